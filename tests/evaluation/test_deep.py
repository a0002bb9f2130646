"""Deep fusion as a contestant: trained once on what came before, frozen, kept, and zero until there is enough."""

import numpy as np
import pytest

from penchant.encoders.base import unit_rows
from penchant.evaluation.deep import Deep
from penchant.evaluation.protocol import Rules, evaluate
from penchant.evaluation.roster import Material, makers, served
from penchant.profile.ranking.whitening import Calibration
from penchant.settings import load_settings


@pytest.fixture
def make(crowd, tmp_path, monkeypatch):
    """Makes the contestant for `crowd`, whose items' contents know the crowds' tastes."""
    monkeypatch.setattr("penchant.evaluation.deep.ENOUGH", 600)
    monkeypatch.setattr("penchant.evaluation.deep.LATER", 800)
    vectors = np.random.default_rng(0).normal(size=(len(crowd.items), 8))
    vectors[:15, 0] += 3
    vectors[15:30, 0] -= 3

    def build(seed=0, folder="kept"):
        slices = {"text": unit_rows(vectors)}
        return Deep(len(crowd.users), slices, Calibration(), {"text": "made"}, seed=seed, folder=tmp_path / folder)

    return build


def played_to(one, stream, make_event, end):
    """A contestant that has learned the events before `end`."""
    for index in range(end):
        one.learn(make_event(stream, index))
    return one


def test_scores_are_finite_and_a_column_is_its_items_score(make, crowd, make_event):
    """For all items as for some, for who has a past as for who has none."""
    one = played_to(make(), crowd, make_event, 700)
    every, some, event = np.arange(len(crowd.items)), np.array([1, 4, 17, 29, 33]), make_event(crowd, 700)
    scores = one.scores(event, every)
    assert scores.shape == (1, len(every))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert scores.any()
    assert np.array_equal(scores[:, some], one.scores(event, some))


def test_scores_are_zero_until_there_is_enough_to_train_on(make, crowd, make_event):
    """Asked too early, it waits for more than it would have needed otherwise, and writes nothing meanwhile."""
    one, every = make(), np.arange(len(crowd.items))
    for index in range(900):
        event = make_event(crowd, index)
        if index in {100, 700, 799}:
            assert not one.scores(event, every).any()
        if index in {800, 899}:
            assert one.scores(event, every).any()
        one.learn(event)


def test_it_trains_at_the_first_probe_with_enough_behind_it_and_never_again(make, crowd, make_event, tmp_path):
    """One model is kept, of what had come by then; users' memories go on."""
    one, every = played_to(make(), crowd, make_event, 650), np.arange(len(crowd.items))
    event = make_event(crowd, 650)
    before = one.scores(event, every)
    (kept,) = (tmp_path / "kept").iterdir()
    content = kept.read_bytes()
    for index in range(650, 1_200):
        one.learn(make_event(crowd, index))
    after = one.scores(event, every)
    assert [path.read_bytes() for path in (tmp_path / "kept").iterdir()] == [content]
    assert not np.array_equal(before, after)


def test_a_kept_model_is_used_again_for_the_same_events_and_seed(make, crowd, make_event, tmp_path):
    """And for no others."""
    every, event = np.arange(len(crowd.items)), make_event(crowd, 700)
    first = played_to(make(), crowd, make_event, 700).scores(event, every)
    (kept,) = (tmp_path / "kept").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert np.array_equal(played_to(make(), crowd, make_event, 700).scores(event, every), first)
    assert kept.stat().st_mtime_ns == stamp
    assert not np.array_equal(played_to(make(seed=1), crowd, make_event, 700).scores(event, every), first)
    played_to(make(), crowd, make_event, 701).scores(event, every)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    again = played_to(make(folder="new"), crowd, make_event, 700).scores(event, every)
    np.testing.assert_allclose(again, first, atol=1e-4)


def test_it_ranks_what_contents_foretell(make, crowd):
    """Of two crowds' tastes it finds out which is the user's."""
    outcome = evaluate(crowd, [make()], Rules(probes=0, min_events=1))
    assert outcome.names == ("fusion deep",)
    assert outcome.negatives.mean() < 0.35


def test_it_takes_part(crowd, tmp_path, at_end):
    """Under its name, and kept where texts' vectors are."""
    given = Material(
        stream=crowd,
        vectors=np.eye(len(crowd.items), dtype=np.float32),
        rules=Rules(),
        settings=load_settings(data_dir=tmp_path),
        at_end=at_end,
    )
    assert "fusion deep" in {name for make in makers() for name in make(given).names}


def test_a_workers_parts_do_not_rank_by_a_model_that_has_seen_what_is_asked(crowd, tmp_path, at_end):
    """Nor is one loaded: where the settings say deep, features rank what a worker would list."""
    given = Material(
        stream=crowd,
        vectors=np.eye(len(crowd.items), dtype=np.float32),
        rules=Rules(probes=20, min_events=1),
        settings=load_settings(data_dir=tmp_path, fusion={"mode": "deep", "deep_model": str(tmp_path / "none")}),
        at_end=at_end,
    )
    outcome = evaluate(crowd, [served(given)], given.rules)
    assert (outcome.tops >= 0).any()
