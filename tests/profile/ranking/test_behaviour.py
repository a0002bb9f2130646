"""Features of behaviour: read in bulk, they are what the rows themselves say."""

import numpy as np
import pytest

from penchant.profile.affinity import LANDMARK_MS, transition_scores
from penchant.profile.ranking.behaviour import age, evidence, familiarity, log_popularity, transition_terms

DAY_MS = 86_400_000
NOW = LANDMARK_MS + 1_000 * DAY_MS
ITEMS = [f"i{number}" for number in range(12)]


@pytest.fixture
async def log(liked):
    """Items liked at different times, after different others."""
    rng = np.random.default_rng(0)
    for item in ITEMS[:8]:
        for at in rng.integers(0, 900, 6):
            before = rng.choice(ITEMS, rng.integers(0, 6), replace=False)
            await liked(item, *map(str, before), at=LANDMARK_MS + int(at) * DAY_MS)


async def test_popularity_is_that_of_the_rows(rows, log):
    """By horizon and in all; zero of what nobody liked."""
    known = await rows.get(ITEMS)
    found = log_popularity(await rows.figures(ITEMS), NOW)
    expected = [known[item].popularity_at(NOW) if item in known else np.zeros(3) for item in ITEMS]
    np.testing.assert_allclose(np.expm1(found).T, expected, rtol=1e-4)
    assert not found[:, 8:].any()


async def test_terms_of_transitions_sum_to_their_scores(rows, log):
    """The sum over recent items is the score that the rows give, and a term is the score of its item alone."""
    recent = [(item, 0.9**place) for place, item in enumerate(("i3", "i0", "i11", "unknown"))]
    known = await rows.get(ITEMS)
    masses = {item: row.mass for item, row in known.items()}
    after = await rows.after(ITEMS)
    vectors = [after.get(item) for item in ITEMS]
    terms = transition_terms(recent, masses, vectors, await rows.figures(ITEMS), now_ms=NOW)
    candidates = [known.get(item) for item in ITEMS]
    expected = transition_scores([recent], candidates, masses, now_ms=NOW)[0]
    assert expected.any()
    np.testing.assert_allclose(terms.sum(axis=0), expected, rtol=1e-5)
    for term, one in zip(terms, recent, strict=True):
        np.testing.assert_allclose(term, transition_scores([[one]], candidates, masses, now_ms=NOW)[0], rtol=1e-5)


async def test_popularity_is_a_number_whatever_the_clocks_say(rows, liked):
    """Of what was liked in centuries to come, for a list as of 1970: producers tell both times."""
    await liked("i0", at=LANDMARK_MS + 400_000 * DAY_MS)
    found = log_popularity(await rows.figures(["i0", "i1"]), 0)
    assert np.isfinite(found).all()
    assert np.isfinite(evidence(found)).all()


def test_what_few_have_done_is_little_evidence():
    """None for no likes at all, a half for thirty, whatever items they are on, and nearly all of it for many."""
    likes = np.array([[0, 0, 0], [0, 10, 20], [300, 3_000, 0]])
    assert evidence(np.log1p(likes)) == pytest.approx([0, 0.5, 3_300 / 3_330])


def test_without_a_past_or_rows_there_are_no_transitions():
    """Zeros of the right shape."""
    nobody = np.full((2, 5), -np.inf)
    assert transition_terms([], {}, [None, None], nobody, now_ms=NOW).shape == (0, 2)
    assert transition_terms([("a", 1.0)], {}, [None, None], nobody, now_ms=NOW).tolist() == [[0, 0]]


def test_age_is_counted_in_days():
    """What is to come is new, too, and what came within an hour came at once."""
    found = age([NOW, NOW + DAY_MS, NOW - DAY_MS, NOW - 99 * DAY_MS, NOW - DAY_MS // 48], NOW)
    assert np.expm1(found) == pytest.approx([0, 0, 1, 99, 0])


def test_one_event_says_half_of_what_many_do():
    """Of whom nothing is known, content says nothing."""
    assert [familiarity(events) for events in (0, 1, 3, 99)] == [0, 0.5, 0.75, 0.99]
