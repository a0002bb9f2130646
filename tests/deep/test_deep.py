"""Deep fusion: what it is made of counts and nothing else, it learns, and it can be kept."""

import numpy as np
import pytest

from penchant.deep.kept import Kept, load, save
from penchant.deep.mode import DeepMode, deep_mode
from penchant.deep.model import AGES, DeepFusion, age_buckets, initial
from penchant.deep.training import Seen, examples_of, train
from penchant.encoders.base import extra, unit_rows
from penchant.errors import ConfigurationError
from penchant.profile.fusion import Slice, Space
from penchant.profile.places import InForce
from penchant.profile.ranking.fused import Liked
from penchant.profile.ranking.whitening import Calibration, Whitening


@pytest.fixture(scope="module")
def trained(slices, history, form, recipe):
    """A model, and how it came about."""
    return train(slices, history, seed=1, form=form, recipe=recipe)


def parameters_of(model):
    """The bytes of every parameter."""
    return {name: value.numpy().tobytes() for name, value in model.parameters.items()}


def test_an_absent_slice_counts_for_nothing(slices, form):
    """Where an item lacks a slice, its vector is the same whatever the model knows of that slice."""
    model = DeepFusion(form, initial(form, 0))
    other = DeepFusion(form, {**model.parameters, "slice.graph.map": 7 * model.parameters["slice.graph.map"]})
    before, after = model.fuse(slices), other.fuse(slices)
    assert np.array_equal(before[::2], after[::2])
    assert not np.allclose(before[1::2], after[1::2])


def test_items_are_fused_alone(slices, form):
    """Taking a slice off some items changes no other item's vector."""
    model = DeepFusion(form, initial(form, 0))
    less = {**slices, "text": slices["text"].copy()}
    less["text"][:10] = 0
    before, after = model.fuse(slices), model.fuse(less)
    assert np.array_equal(before[10:], after[10:])
    assert not np.allclose(before[1:10:2], after[1:10:2])
    assert not after[:10:2].any()  # no slice is left of them


def test_a_score_is_a_dot_product_with_what_the_candidate_sees(slices, form):
    """The shortcut by which scores are computed gives what cross-attention is defined to give."""
    model = DeepFusion(form, initial(form, 0))
    of = {name: value.double().numpy() for name, value in model.parameters.items()}
    of["user.anyone_key"] += 0.5
    of["user.anyone_value"] -= 0.5
    model = DeepFusion(form, {name: extra("torch").from_numpy(value).float() for name, value in of.items()})
    fused, liked, ages = model.fuse(slices).astype(float), np.array([7, 3, 9]), np.array([1_000, 60_000, 86_400_000])
    placed = fused[liked] + of["user.rank"][:3] + of["user.age"][age_buckets(ages)]
    keys = np.vstack([placed @ of["user.key"], of["user.anyone_key"]])
    values = np.vstack([fused[liked] @ of["user.value"], of["user.anyone_value"]])
    expected = np.zeros(len(fused))
    for place, candidate in enumerate(fused):
        seen = []
        for head in np.split(np.arange(form.dimension), form.heads):
            looks = np.exp(keys[:, head] @ (candidate @ of["user.query"])[head] / np.sqrt(len(head)))
            seen.append(looks / looks.sum() @ values[:, head])
        expected[place] = candidate @ of["user.out"] @ np.concatenate(seen) / np.sqrt(form.dimension)
    assert model.scores(model.catalogue(slices), model.catalogue(slices), liked, ages) == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


def test_who_liked_nothing_yet_is_given_what_anyone_is(trained, slices):
    """Scores without a past are finite, tell items apart, and are not those of somebody with one."""
    model, _ = trained
    catalogue, nothing = model.catalogue(slices), np.zeros(0, np.int64)
    anyone = model.scores(catalogue, catalogue, nothing, nothing)
    assert np.isfinite(anyone).all()
    assert np.unique(anyone).size > 1
    assert not np.allclose(anyone, model.scores(catalogue, catalogue, np.array([3]), np.array([60_000])))


def test_only_so_many_likes_are_remembered(trained, slices, form):
    """What was liked before the last few changes nothing."""
    model, _ = trained
    catalogue, liked = model.catalogue(slices), np.arange(form.remembered + 3)
    kept = liked[: form.remembered]
    assert np.array_equal(
        model.scores(catalogue, catalogue, liked, liked), model.scores(catalogue, catalogue, kept, kept)
    )


def test_ages_are_told_apart_by_powers_of_two_and_bounded():
    """From now, and from a clock that is ahead, to longer than anyone has lived."""
    ages = np.array([-5_000, 0, 999, 1_000, 3_000, 7_000, 2**62])
    assert age_buckets(ages).tolist() == [0, 0, 0, 1, 2, 3, AGES - 1]


def test_examples_are_first_likes_with_what_was_liked_before(history, form):
    """Newest first, nothing of the future, and nothing that the user had seen."""
    examples = examples_of(history, form.remembered)
    assert len(examples) > 200
    for place in range(0, len(examples), 37):
        event, user = examples.event[place], examples.user[place]
        before = np.flatnonzero((history.user == user) & (np.arange(len(history.user)) < event))
        expected = history.item[before[history.positive[before]]][::-1][: form.remembered]
        assert examples.liked[place, : len(expected)].tolist() == expected.tolist()
        assert (examples.liked[place, len(expected) :] == -1).all()
        assert examples.item[place] not in history.item[before]


def test_what_was_seen_before_is_no_candidate(history, form):
    """And what is seen later is one."""
    examples = examples_of(history, form.remembered).at(slice(50, 80))
    candidates = np.arange(120)
    found = Seen(history, 120).before(examples, candidates)
    for row, (event, user) in enumerate(zip(examples.event, examples.user, strict=True)):
        before = set(history.item[:event][history.user[:event] == user].tolist())
        assert set(np.flatnonzero(found[row]).tolist()) == before


def test_training_foretells_what_was_held_out(trained, slices, history):
    """The loss falls, and a user's genre comes first for likes that are later than all that was learned."""
    model, how = trained
    assert min(how.losses) < how.losses[0] - 0.2
    assert how.events == len(history.user)
    assert (how.first, how.last) == (0, int(history.time[-1]))
    likes_two = np.flatnonzero(np.arange(120) % 4 == 2)
    scores = model.scores(model.catalogue(slices), model.catalogue(slices), likes_two[:4], np.full(4, 60_000))
    assert set(np.argsort(-scores)[:15] % 4) == {2}


def test_the_same_seed_gives_the_same_model(trained, slices, history, form, recipe):
    """Whatever was drawn before; another seed gives another."""
    torch = extra("torch")
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again, how = train(slices, history, seed=1, form=form, recipe=recipe)
    assert parameters_of(again) == parameters_of(trained[0])
    assert how == trained[1]
    assert torch.equal(torch.random.get_rng_state(), state)  # nor does it disturb what others draw
    other, _ = train(slices, history, seed=2, form=form, recipe=recipe)
    assert parameters_of(other) != parameters_of(again)


def test_too_few_likes_to_learn_from_are_refused(slices, history, form):
    """Some must be held out."""
    few = type(history)(**{name: getattr(history, name)[:8] for name in history.__struct_fields__})
    with pytest.raises(ConfigurationError, match="too few"):
        train(slices, few, seed=0, form=form)


@pytest.fixture(scope="module")
def kept(trained):
    """The model with what it needs of the world: text is whitened from twenty components, the graph is not."""
    random = np.random.default_rng(0)
    whitening = Whitening(
        mean=random.normal(size=20).astype(np.float32), map=random.normal(size=(20, 12)).astype(np.float32)
    )
    model, how = trained
    return Kept(
        model=model, trained=how, calibration=Calibration({"text": whitening}), encoders={"text": "t1", "graph": "g1"}
    )


def test_a_kept_model_is_the_same_bit_for_bit(kept, slices, tmp_path):
    """Its parameters, its form, what it was trained on, its whitening and its encoders, and what it says."""
    save(tmp_path / "new" / "deep.safetensors", kept)
    again = load(tmp_path / "new" / "deep.safetensors")
    assert parameters_of(again.model) == parameters_of(kept.model)
    assert (again.model.form, again.trained, again.encoders) == (kept.model.form, kept.trained, kept.encoders)
    assert again.calibration.fingerprint == kept.calibration.fingerprint
    assert again.dimensions == {"text": 20, "graph": 6}
    assert again.model.fuse(slices).tobytes() == kept.model.fuse(slices).tobytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["deep.safetensors"]


@pytest.mark.parametrize(
    "wrong",
    [
        *("shape", "missing", "more", "type", "infinite", "heads", "kind", "encoders", "no header", "no tensors"),
        *("whitening of another width", "half a whitening", "infinite whitening"),
    ],
)
def test_a_file_of_another_form_is_refused(kept, tmp_path, wrong):
    """With its name, and without a word of it taken over."""
    torch, safetensors = extra("torch"), extra("safetensors.torch")
    path = tmp_path / "deep.safetensors"
    save(path, kept)
    with extra("safetensors").safe_open(path, framework="pt") as file:
        header, tensors = file.metadata()["penchant"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    name, columns = "user.query", "content.text.map"
    spoilt = {
        "shape": {name: tensors[name][:, :3].contiguous()},
        "more": {"user.other": torch.zeros(3)},
        "type": {name: tensors[name].double()},
        "infinite": {name: tensors[name] / 0},
        "whitening of another width": {columns: tensors[columns][:, :3].contiguous()},
        "infinite whitening": {columns: tensors[columns] / 0},
    }
    if wrong in {"missing", "half a whitening"}:
        del tensors[name if wrong == "missing" else columns]
    changes = {"heads": ('"heads":2', '"heads":3'), "kind": ("fusion 2", "fusion 3"), "encoders": ('"text":"t1",', "")}
    changed = header.replace(*changes.get(wrong, ("", "")))
    assert (changed != header) == (wrong in changes)
    metadata = None if wrong == "no header" else {"penchant": changed}
    content = safetensors.save(tensors | spoilt.get(wrong, {}), metadata=metadata)
    path.write_bytes(b"not tensors" if wrong == "no tensors" else content)
    with pytest.raises(ConfigurationError, match=r"deep\.safetensors is no model of deep fusion"):
        load(path)


def test_a_model_that_is_not_there_is_said_to_be_missing(tmp_path):
    """And what writes one."""
    with pytest.raises(ConfigurationError, match=r"no model of deep fusion at .*none\.safetensors\n.*deep train"):
        load(tmp_path / "none.safetensors")


def space_of(**changes):
    """A space that the model was made for, and a slice that it knows nothing of."""
    parts = {"text": ("t1", 20), "image": ("i1", 3), "graph": ("g1", 6)} | changes
    return Space(tuple(Slice(name, size, 0.3, print_) for name, (print_, size) in parts.items() if size))


def test_a_mode_ranks_by_the_model_and_its_own_whitening(kept, tmp_path):
    """As the model does, with slices as encoders and graph give them; candidates and likes may be looked up apart."""
    save(tmp_path / "deep.safetensors", kept)
    mode = deep_mode(tmp_path / "deep.safetensors", space_of())
    random = np.random.default_rng(2)
    raw = {
        name: unit_rows(random.normal(size=(9, size))) for name, size in {"text": 20, "image": 3, "graph": 6}.items()
    }
    raw["text"][4] = raw["graph"][5] = 0
    catalogue = kept.model.catalogue({"text": kept.calibration.apply("text", raw["text"]), "graph": raw["graph"]})
    rows, ages = np.array([8, 4, 7]), np.array([0, 50_000, 900_000])
    expected = kept.model.scores(catalogue, catalogue, rows, ages)
    known = mode.fused({name: vectors[[8, 4, 7]] for name, vectors in raw.items()})
    targets = mode.fused({name: vectors[:6] for name, vectors in raw.items()})
    found = mode.scores(Liked(rows=np.arange(3), ages_ms=ages), known, targets)
    assert found == pytest.approx(expected[:6], abs=1e-5)
    assert mode.terms(Liked(rows=np.arange(3), ages_ms=ages), known, targets) is None
    nothing = mode.fused({name: vectors[:0] for name, vectors in raw.items()})
    none = Liked(rows=np.zeros(0, np.int64), ages_ms=np.zeros(0, np.int64))
    assert np.isfinite(mode.scores(none, nothing, targets)).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"graph": ("g1", 0)}, "slice 'graph', and here there are: text, image"),
        ({"text": ("t1", 12)}, "20 components of text, and here there are 12"),
        ({"text": ("t2", 20)}, "another encoder: t1, not t2"),
    ],
)
def test_a_model_of_other_slices_is_refused(kept, tmp_path, changes, told):
    """With what is different, and what to do."""
    save(tmp_path / "deep.safetensors", kept)
    with pytest.raises(ConfigurationError, match=f"{told}\nTrain it anew"):
        deep_mode(tmp_path / "deep.safetensors", space_of(**changes))


def test_a_mode_without_a_model_is_refused():
    """What is missing is said."""
    with pytest.raises(ConfigurationError, match=r"fusion\.deep_model names no model\n.*deep train"):
        deep_mode(None, space_of())


def test_a_model_of_another_graph_is_refused(kept):
    """Its places are not those that the model knows; without any graph there are none."""
    mode = DeepMode(kept)
    mode.check_graph(None)
    mode.check_graph(InForce(model="g1", version=(1, 1), ready=True))
    with pytest.raises(ConfigurationError, match="trained on the graph g1, and items are placed by g2"):
        mode.check_graph(InForce(model="g2", version=(2, 1), ready=False))
