"""Items keep their newest version whatever order versions come in, and lists show only what may be shown."""

import asyncio
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.profile.items import Item, Items, Listed, Reference, Refused, item_of
from penchant.profile.positions import Position, Positions

VERSIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), unique=True, min_size=1, max_size=5
)


def unit(*components):
    """A unit vector of the tests' space."""
    vector = np.zeros(7, np.float32)
    vector[: len(components)] = components
    return vector / np.linalg.norm(vector)


def item(item_id, version, **changes):
    """A listed item; a number is short for a version of that time."""
    version = (version, version, 0) if isinstance(version, int) else version
    return Item(**{"item_id": item_id, "version": version, "listed": True, **changes})


async def listed(items, query, *, author="nobody", without=()):
    """The ids that a search shows."""
    [found] = await items.search([(query, items.listed_filter(author=author, without=without))], limit=50)
    return [candidate.item_id for candidate in found]


# One store serves all examples: each has an item of its own.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), versions=VERSIONS)
async def test_the_newest_version_stands_whatever_order_they_come_in(items, data, versions):
    """Versions, withdrawals among them, in any order, some of them twice: the largest stands, whole."""
    name = uuid4().hex
    made = {
        version: item(
            name,
            version,
            title=f"{version}",
            withdrawn=data.draw(st.booleans(), label="withdrawn"),
            tags=(f"{version}",),
        )
        for version in versions
    }
    order = data.draw(st.permutations(versions + data.draw(st.lists(st.sampled_from(versions), max_size=3))))
    for version in order:
        await items.put([(made[version], unit(1 + sum(version), 1))])
    assert await items.get([name]) == {name: made[max(versions)]}
    vectors = await items.vectors([name])
    np.testing.assert_array_equal(vectors[name], unit(1 + sum(max(versions)), 1))


async def test_everything_about_an_item_comes_back(items):
    """Text, references, refusals and all: an item can be embedded anew from the store itself."""
    whole = item(
        "film/1 é",
        (5, 6, 7),
        author="ab12",
        title="A film",
        text="of some length",
        tags=("a", "b"),
        attributes={"year": "1999"},
        entity="m.01",
        media=(Reference("image", "file:///a.png"), Reference("audio", "")),
        private=True,
        modalities=("text",),
        refused=(Refused("image", "corrupt", "no picture"),),
    )
    await items.put([(whole, unit(1))])
    assert await items.get(["film/1 é", "other"]) == {"film/1 é": whole}


@pytest.mark.parametrize(
    ("author", "listed", "private"), [("", False, False), ("ab12", True, False), ("ab12", False, True)]
)
def test_an_item_of_an_older_store_is_read(author, listed, private):
    """Its references come without their kinds, and what a user has and nobody was shown is private."""
    payload = {"item_id": "i", "version": [1, 1, 0], "listed": listed, "author": author, "media": ["file:///a"]}
    read = item_of(payload | {"text": "old maps"})
    assert (read.media, read.private, read.text) == ((Reference("", "file:///a"),), private, "old maps")


async def test_all_items_are_read_and_nothing_else(items, edge):
    """Listed or not, with their vectors and tokens; positions, which lie beside them, are none."""
    await items.put([(item("a", 1), unit(1)), (item("b", 1, listed=False), None)])
    position = Position(topic_id="t", next_offset=7)
    await Positions(edge, items.layout.name, "group").save({("items", 0): position})
    found = {one.item.item_id: one async for one in items.all()}
    assert found.keys() == {"a", "b"}
    assert found["b"].vector is None
    np.testing.assert_array_equal(found["a"].vector, unit(1))
    assert await items.replace([msgspec.structs.replace(found["a"], vector=unit(2))]) == {"a"}


async def test_a_void_item_is_present_without_a_vector(items):
    """Nobody need wait for an item that has no content, and nobody is shown it."""
    await items.put([(item("void", 1, listed=False), None)])
    assert await items.present(["void", "absent"]) == {"void"}
    assert await items.vectors(["void", "absent"]) == {"void": None}
    assert await listed(items, unit(1)) == []


async def test_a_new_version_without_content_takes_the_vector_away(items):
    """What an item no longer says does not count any more."""
    await items.put([(item("a", 1), unit(1))])
    await items.put([(item("a", 2, listed=False), None)])
    assert await items.vectors(["a"]) == {"a": None}


async def test_lists_leave_out_what_must_not_be_shown(items):
    """Not one's own, not what is named, not what is withdrawn, void or private."""
    await items.put(
        [
            (item("fine", 1), unit(1)),
            (item("mine", 1, author="me"), unit(1)),
            (item("yours", 1, author="you"), unit(1)),
            (item("met", 1), unit(1)),
            (item("gone", 1, listed=False, withdrawn=True), unit(1)),
            (item("private", 1, author="you", listed=False), unit(1)),
        ]
    )
    assert set(await listed(items, unit(1), author="me", without=["met"])) == {"fine", "yours"}
    assert await items.count() == 4


async def test_candidates_come_best_first_with_their_dot_products(items):
    """A search's order and scores are those of the content space."""
    await items.put([(item("near", 1), unit(1, 0.1)), (item("far", 1), unit(-1)), (item("middle", 1), unit(1, 1))])
    [found] = await items.search([(unit(1), items.listed_filter(author="nobody", without=[]))], limit=2)
    assert [candidate.item_id for candidate in found] == ["near", "middle"]
    assert [candidate.score for candidate in found] == pytest.approx([unit(1, 0.1)[0], unit(1, 1)[0]], abs=1e-6)


async def test_many_writers_at_once_leave_the_newest_version(edge, space, items):
    """Writers of many versions of the same items at once: none fails, and of each item the newest stands."""
    writers = [Items(edge, "items", space) for _ in range(6)]

    async def write(number, writer):
        for round_ in range(5):
            version = (round_, (number * 7 + round_) % 6, number)
            await writer.put(
                [(item(f"i{one}", version, title=f"{version}"), unit(1 + number, 1 + round_)) for one in range(4)]
            )

    await asyncio.gather(*(write(number, writer) for number, writer in enumerate(writers)))
    newest = max((4, (number * 7 + 4) % 6, number) for number in range(6))
    stored = await items.get(f"i{one}" for one in range(4))
    assert {one.version for one in stored.values()} == {newest}
    assert {one.title for one in stored.values()} == {f"{newest}"}
    vectors = await items.vectors(["i0"])
    np.testing.assert_array_equal(vectors["i0"], unit(1 + newest[2], 5))


async def test_writing_what_is_there_changes_nothing(edge, items):
    """A replayed version is not written again: its write token stays."""
    await items.put([(item("a", 1), unit(1))])
    before = await items._load(["a"])
    await items.put([(item("a", 1), unit(1))])
    assert await items._load(["a"]) == before


async def test_what_may_be_recommended_is_known_of_items_found_elsewhere(items, catalogue):
    """Listed ones with author and time; neither unlisted nor withdrawn nor unknown ones."""
    await catalogue("plain", version=7)
    await catalogue("own", author="somebody")
    await catalogue("hidden", listed=False)
    await catalogue("gone", listed=False, withdrawn=True)
    found = await items.listed(["plain", "own", "hidden", "gone", "never"])
    assert found == {"plain": Listed(author="", at=7), "own": Listed(author="somebody", at=1)}
