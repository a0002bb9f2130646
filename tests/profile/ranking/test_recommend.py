"""Lists: nothing met before, nothing of one's own, full length, and scores that can be taken apart."""

import numpy as np
import pytest

from penchant.profile.ranking.recommend import Ranker
from penchant.profile.signals import Action, Signal
from penchant.profile.updater import ProfileUpdater

NOW = 1_750_000_000_000


@pytest.fixture
def ranker(items, vectors, identity, horizons):
    """Makes lists of four from eight candidates."""
    return Ranker(items, vectors, identity, horizons, count=4, candidates=8, relevance_share=0.8, reasons=2)


@pytest.fixture
def profile_of(profiles, vectors, horizons, limits):
    """A user's profile after signals on items."""

    async def make(user, *item_ids, action=Action.LIKE, weight=2.0):
        updater = ProfileUpdater(profiles, vectors, horizons, limits, capacity=10)
        signals = [
            Signal(NOW + place, f"{user}-{place}", item_id, action, weight) for place, item_id in enumerate(item_ids)
        ]
        await updater.apply({user: signals})
        return (await updater.read([user]))[user]

    return make


async def test_a_score_is_the_sum_of_its_parts_and_is_explained(ranker, profile_of, catalogue):
    """Parts by slice sum to the score, and so do what all the user's signals say for the item."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", "i1", "i2")
    [ranked] = await ranker.rank([profile])
    assert len(ranked) == 4
    for item in ranked:
        assert item.score == pytest.approx(float(made[item.item_id] @ profile.interest), abs=1e-6)
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=1e-6)
        assert [reason.part for reason in item.reasons] == sorted((one.part for one in item.reasons), reverse=True)
        assert all(reason.part > 0 and reason.signal in profile.state.signals for reason in item.reasons)
        assert len(item.reasons) <= 2


async def test_scores_and_reasons_are_of_one_reading_of_the_items(ranker, profile_of, catalogue):
    """An item that got vectors after the profile was stored counts in a score if it is named as a reason for it."""
    await catalogue("i0", *(f"i{number}" for number in range(2, 30)))
    profile = await profile_of("ada", "i0", "i1")
    await catalogue("i1", seed=1)
    [ranked] = await ranker.rank([profile])
    assert any(reason.signal.item_id == "i1" for item in ranked for reason in item.reasons)
    for item in ranked:
        if len(item.reasons) == 2:  # both of the user's signals: together they are the whole score
            assert sum(reason.part for reason in item.reasons) == pytest.approx(item.score, abs=1e-6)


async def test_what_the_set_has_forgotten_is_not_recommended_again(ranker, profile_of, catalogue, limits):
    """Items met longer ago than the signals reach stay out, and the list is full all the same."""
    await catalogue(*(f"i{number}" for number in range(60)))
    met = [f"i{number}" for number in range(50)]
    profile = await profile_of("ada", *met)
    assert len(profile.state.signals) == limits.strong
    [ranked] = await ranker.rank([profile])
    assert not {item.item_id for item in ranked} & set(met)
    assert len(ranked) == 4


async def test_who_has_met_everything_gets_what_is_left(ranker, profile_of, catalogue):
    """A list may be short, or empty, where there is nothing more to show."""
    await catalogue(*(f"i{number}" for number in range(20)))
    most = await profile_of("ada", *(f"i{number}" for number in range(18)))
    everything = await profile_of("bob", *(f"i{number}" for number in range(20)))
    lists = await ranker.rank([most, everything])
    assert {item.item_id for item in lists[0]} <= {"i18", "i19"}
    assert lists[1] == ()


async def test_lists_come_in_the_order_of_the_profiles(ranker, profile_of, catalogue, profiles, identity):
    """Each profile gets its own list, also where some have no interests at all."""
    await catalogue(*(f"i{number}" for number in range(30)))
    await catalogue("own", author=identity.author("ada"))
    ada, bob = await profile_of("ada", "i1"), await profile_of("bob", "i2", "i3")
    nobody = profiles.empty("nobody")
    together = await ranker.rank([nobody, ada, bob])
    alone = [(await ranker.rank([one]))[0] for one in (nobody, ada, bob)]
    assert together == alone
    assert together[0] == ()
    assert "own" not in {item.item_id for item in together[1]}
    assert await ranker.rank([]) == []


async def test_who_only_dislikes_is_shown_the_opposite(ranker, profile_of, catalogue):
    """An interest may point away from what a user has rejected, and no signal speaks for what is like it."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", action=Action.HIDE, weight=-3.0)
    [ranked] = await ranker.rank([profile])
    np.testing.assert_allclose(profile.interest, -made["i0"], atol=1e-6)
    assert all(item.score >= -1 and item.item_id != "i0" for item in ranked)
