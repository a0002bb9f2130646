"""Candidates: three sources, and none of them brings what may not be recommended."""

import pytest

from penchant.profile.ranking.candidates import TRENDING_S, Finder

NOW = 1_750_000_000_000


class Clock:
    """Seconds, as a test wants them."""

    now = 0.0


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def finder(items, rows, identity, clock):
    """Finds three candidates a source, for lists of two."""
    return Finder(items, rows, identity, count=2, candidates=3, clock=lambda: clock.now)


async def test_candidates_come_from_content_from_transitions_and_from_trends(finder, profile_of, catalogue, liked):
    """Each source is asked for so many; what several of them name is there once."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0")
    nearest = sorted(made, key=lambda one: -float(made[one] @ made["i0"]))[1:4]
    far = [one for one in made if one not in {*nearest, "i0"}]
    await liked(far[0], "i0", times=3)
    await liked(far[1], "i0", "i5")
    await liked(far[2], times=9)
    [found] = await finder.find([profile], [NOW])
    assert list(found.listed_at) == [*nearest, far[0], far[1], far[2]]
    assert found.following == {far[0], far[1]}
    assert found.recent == (("i0", 1.0),)
    assert set(found.listed_at.values()) == {1}


async def test_what_may_not_be_recommended_is_no_candidate(finder, profile_of, catalogue, liked, identity):
    """Withdrawn, unlisted, one's own, met or in no catalogue: whichever source names it. Others' own items may be."""
    await catalogue("i0", "plain")
    await catalogue("own", author=identity.author("ada"))
    await catalogue("theirs", author=identity.author("bob"))
    await catalogue("hidden", listed=False)
    await catalogue("gone", listed=False, withdrawn=True)
    for item in ("own", "theirs", "hidden", "gone", "never", "i0", "plain"):
        await liked(item, "i0", times=5)
    profile = await profile_of("ada", "i0")
    [found] = await finder.find([profile], [NOW])
    assert set(found.listed_at) == {"plain", "theirs"}
    assert found.following <= {"plain", "theirs"}


async def test_what_is_withdrawn_is_gone_at_once_from_what_is_remembered(finder, profile_of, catalogue, liked):
    """Trending items are remembered, whether they are listed is not."""
    await catalogue("i0", "i1", "i2")
    await liked("i1", times=5)
    profile = await profile_of("ada", "other")
    assert "i1" in (await finder.find([profile], [NOW]))[0].listed_at
    await catalogue("i1", version=2, listed=False, withdrawn=True)
    assert "i1" not in (await finder.find([profile], [NOW]))[0].listed_at


async def test_trends_are_remembered_for_some_seconds(finder, clock, profile_of, catalogue, liked):
    """A new one appears when they are read again."""
    await catalogue("i0", "i1")
    profile = await profile_of("ada", "other")
    await liked("i0")
    assert set((await finder.find([profile], [NOW]))[0].listed_at) == {"i0"}
    await liked("i1")
    clock.now = TRENDING_S / 2
    assert set((await finder.find([profile], [NOW]))[0].listed_at) == {"i0"}
    clock.now = TRENDING_S
    assert set((await finder.find([profile], [NOW]))[0].listed_at) == {"i0", "i1"}


async def test_who_has_met_the_first_trends_gets_the_next(finder, profile_of, catalogue, liked):
    """Trending items beyond those that a user knows already."""
    await catalogue(*(f"i{number}" for number in range(9)))
    for number in range(9):
        await liked(f"i{number}", times=20 - number)
    profile = await profile_of("ada", *(f"i{number}" for number in range(5)), weight=0.0)
    assert not profile.interest.any()
    [found] = await finder.find([profile], [NOW])
    assert list(found.listed_at) == ["i5", "i6", "i7"]
