"""Candidates: four sources, and none of them brings what may not be recommended."""

import asyncio

import pytest

from penchant.profile.affinity import positives, recent_items
from penchant.profile.ranking.candidates import FEW_LIKES, REMEMBERED_S, TRIED, Finder
from penchant.profile.ranking.exploration import Arms
from penchant.profile.shelf import Shelf

NOW = 1_750_000_000_000


class Clock:
    """Seconds, as a test wants them."""

    now = 0.0


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def arms():
    """What came of listing items: nothing yet."""
    return Arms(100)


@pytest.fixture
def finder(items, rows, identity, arms, clock):
    """Finds three candidates a source, for lists of two."""
    shelf = Shelf(items, most=0)
    return Finder(items, rows, identity, arms, shelf=shelf, count=2, candidates=3, clock=lambda: clock.now)


async def candidates_of(finder, profile):
    """What a finder finds for one user."""
    recent = recent_items(positives(profile.state.signals))
    [found] = await finder.find([profile], [recent], [NOW])
    return found


async def test_candidates_come_from_content_transitions_trends_and_what_is_new(finder, profile_of, catalogue, liked):
    """Each source is asked for so many; what several of them name is there once."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    for version in range(2, 7):
        made |= await catalogue(f"n{version}", seed=version, version=version)
    profile = await profile_of("ada", "i0")
    nearest = sorted(made, key=lambda one: -float(made[one] @ made["i0"]))[1:4]
    far = [one for one in made if one.startswith("i") and one not in {*nearest, "i0"}]
    await liked(far[0], "i0", times=3)
    await liked(far[1], "i0", "i5")
    await liked(far[2], times=9)
    await liked("n6", times=FEW_LIKES - 1)
    await liked("n5", times=FEW_LIKES)
    found = await candidates_of(finder, profile)
    assert list(found.listed_at) == [*nearest, far[0], far[1], far[2], "n5", "n6", "n4", "n3"]
    assert found.following == {far[0], far[1]}
    assert found.new == {"n6", "n4", "n3"}
    assert found.listed_at["n4"] == 4


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
    found = await candidates_of(finder, profile)
    assert set(found.listed_at) == {"plain", "theirs"}
    assert found.following <= {"plain", "theirs"}


async def test_what_is_withdrawn_is_gone_at_once_from_what_is_remembered(finder, profile_of, catalogue, liked):
    """Trending items are remembered, whether they are listed is not."""
    await catalogue("i0", "i1", "i2")
    await liked("i1", times=5)
    profile = await profile_of("ada", "other")
    assert "i1" in (await candidates_of(finder, profile)).listed_at
    await catalogue("i1", version=2, listed=False, withdrawn=True)
    assert "i1" not in (await candidates_of(finder, profile)).listed_at


async def test_what_trends_and_what_is_new_is_remembered_for_some_seconds(finder, clock, profile_of, catalogue, liked):
    """What has come since appears when they are read again."""
    await catalogue("i0", "i1", "n0")
    await liked("i0", times=FEW_LIKES)
    profile = await profile_of("ada", "other")

    async def found():
        candidates = await candidates_of(finder, profile)
        return set(candidates.listed_at), candidates.new

    assert await found() == ({"i0", "i1", "n0"}, {"i1", "n0"})
    await liked("i1", times=FEW_LIKES)
    await catalogue("n1")
    clock.now = REMEMBERED_S / 2
    assert await found() == ({"i0", "i1", "n0"}, {"i1", "n0"})
    clock.now = REMEMBERED_S  # read anew, for those who come next
    assert await found() == ({"i0", "i1", "n0"}, {"i1", "n0"})
    async with asyncio.timeout(10):
        while await found() != ({"i0", "i1", "n0", "n1"}, {"n0", "n1"}):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
    await catalogue("n2")
    clock.now = 3 * REMEMBERED_S  # too old: waited for
    assert await found() == ({"i0", "i1", "n0", "n1", "n2"}, {"n0", "n1", "n2"})


async def test_what_is_liked_and_is_no_item_takes_no_trends_place(finder, profile_of, catalogue, liked, rows):
    """The search for what trends goes further out where most of what it finds cannot be recommended."""
    await catalogue("i0", "i1")
    for number in range(40):
        await liked(f"foreign{number}", times=20)
    await liked("i1", times=FEW_LIKES)
    await liked("i0", times=FEW_LIKES + 1)
    profile = await profile_of("ada", "other")
    found = await candidates_of(finder, profile)
    assert list(found.listed_at) == ["i0", "i1"]
    assert not found.new


async def test_a_catalogue_that_came_at_once_is_new_until_it_is_liked_or_was_tried(
    finder, clock, profile_of, catalogue, liked
):
    """Where the newest are new no more, the search goes further back."""
    for version in range(40, 0, -1):
        await catalogue(f"i{version}", version=version)
        if version > 20:
            await liked(f"i{version}", times=FEW_LIKES)
    profile = await profile_of("ada", "i20", weight=0.0)
    assert (await candidates_of(finder, profile)).new == {"i19", "i18", "i17"}
    finder._arms.listed(["i19"] * TRIED + ["i18"] * (TRIED - 1))
    clock.now = 2 * REMEMBERED_S
    assert (await candidates_of(finder, profile)).new == {"i18", "i17", "i16"}


async def test_who_has_met_the_first_trends_gets_the_next(finder, profile_of, catalogue, liked):
    """Trending items beyond those that a user knows already."""
    await catalogue(*(f"i{number}" for number in range(9)))
    for number in range(9):
        await liked(f"i{number}", times=20 - number)
    profile = await profile_of("ada", *(f"i{number}" for number in range(5)), weight=0.0)
    assert not profile.interest.any()
    found = await candidates_of(finder, profile)
    assert list(found.listed_at) == ["i5", "i6", "i7"]
    assert not found.new
