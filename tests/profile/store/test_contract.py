"""What every store promises, embedded or on a server."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import msgspec
import numpy as np
import pytest

from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    LayoutMismatch,
    NoCollection,
    Point,
    SearchFilter,
    SparseVector,
    Store,
    Vector,
    Write,
    new_token,
)

EVERYTHING = SearchFilter()


def point(
    payload: Mapping[str, Any] | None = None,
    vectors: dict[str, Vector] | None = None,
    *,
    sparse: dict[str, SparseVector] | None = None,
    name: UUID | None = None,
) -> Point:
    """A point with a fresh token."""
    return Point(
        id=name or uuid4(), payload={**(payload or {}), TOKEN: new_token()}, vectors=vectors or {}, sparse=sparse or {}
    )


def sparse(values: Mapping[int, float]) -> SparseVector:
    """A sparse vector by index."""
    return SparseVector(np.array(list(values), np.uint32), np.array(list(values.values()), np.float32))


def components(vector: SparseVector) -> dict[int, float]:
    """The inverse."""
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def insert(*points: Point) -> list[Write]:
    """Writes of points that are not there yet."""
    return [Write(point=one, expected=None) for one in points]


def unit(dimension: int, axis: int, scale: float = 1.0) -> Vector:
    """A vector along one axis."""
    vector = np.zeros(dimension, np.float32)
    vector[axis] = scale
    return vector


async def one(store: Store, collection: str, name: UUID) -> Point:
    """The point as it is stored, whole."""
    return (await store.retrieve(collection, [name], vectors=["content", "short"]))[name]


async def names(store: Store, collection: str, where: SearchFilter, page: int = 256) -> list[UUID]:
    """The ids of all points that pass."""
    return [found.id async for found in store.scroll(collection, where, page=page)]


class TestReading:
    """Points come back as they were written."""

    async def test_payload_and_vectors_return_exactly(self, store: Store, layout: CollectionLayout) -> None:
        """Every kind of payload value, the largest token, and float32 vectors, bit by bit."""
        rng = np.random.default_rng(1)
        payload = {
            "text": "naïve ☂",
            "whole": -(2**53) - 1,
            "real": 0.1,
            "yes": True,
            "none": None,
            "list": [1, "two", [3.5]],
            "map": {"inner": {"a": 1}},
            TOKEN: 2**63 - 1,
        }
        vectors = {"content": rng.normal(size=8).astype(np.float32), "short": rng.normal(size=3).astype(np.float32)}
        written = Point(id=uuid4(), payload=payload, vectors=vectors)
        assert await store.write(layout.name, insert(written)) == {written.id}
        found = await one(store, layout.name, written.id)
        assert found.payload == payload
        assert found.token == 2**63 - 1
        assert {name: vector.dtype for name, vector in found.vectors.items()} == dict.fromkeys(vectors, np.float32)
        for name, vector in vectors.items():
            np.testing.assert_array_equal(found.vectors[name], vector)

    async def test_only_what_is_asked_for_returns(self, store: Store, layout: CollectionLayout) -> None:
        """Payload fields and vectors are chosen by name, and both may be left out."""
        written = point({"kind": "a", "age": 3}, {"content": unit(8, 0), "short": unit(3, 0)})
        await store.write(layout.name, insert(written))
        chosen = await store.retrieve(layout.name, [written.id], vectors=["short"], payload=["age"])
        assert chosen[written.id].payload == {"age": 3}
        assert set(chosen[written.id].vectors) == {"short"}
        bare = await store.retrieve(layout.name, [written.id], payload=False)
        assert bare[written.id].payload == {}
        assert bare[written.id].vectors == {}

    async def test_unknown_ids_are_absent(self, store: Store, layout: CollectionLayout) -> None:
        """Asking for what is not there is no error."""
        written = point()
        await store.write(layout.name, insert(written))
        assert set(await store.retrieve(layout.name, [uuid4(), written.id, uuid4()])) == {written.id}
        assert await store.retrieve(layout.name, []) == {}

    async def test_a_point_may_lack_vectors(self, store: Store, layout: CollectionLayout) -> None:
        """It is kept, found by scrolling and counting, and left out of searches by the vector that it lacks."""
        bare, partly = point(), point(vectors={"short": unit(3, 0)})
        await store.write(layout.name, insert(bare, partly))
        assert (await one(store, layout.name, bare.id)).vectors == {}
        assert set((await one(store, layout.name, partly.id)).vectors) == {"short"}
        assert set(await names(store, layout.name, EVERYTHING)) == {bare.id, partly.id}
        [by_short] = await store.search(layout.name, "short", [(unit(3, 0), EVERYTHING)], limit=10)
        assert [hit.id for hit in by_short] == [partly.id]
        [by_content] = await store.search(layout.name, "content", [(unit(8, 0), EVERYTHING)], limit=10)
        assert by_content == []


class TestWriting:
    """A write stands only on what its author has read."""

    async def test_a_write_replaces_the_whole_point(self, store: Store, layout: CollectionLayout) -> None:
        """Neither payload fields nor vectors of the former point remain."""
        first = point({"kind": "a", "age": 1}, {"content": unit(8, 0), "short": unit(3, 0)})
        await store.write(layout.name, insert(first))
        second = point({"hidden": True}, {"short": unit(3, 1)}, name=first.id)
        assert await store.write(layout.name, [Write(point=second, expected=first.token)]) == {first.id}
        found = await one(store, layout.name, first.id)
        assert found.payload == second.payload
        assert set(found.vectors) == {"short"}
        np.testing.assert_array_equal(found.vectors["short"], unit(3, 1))
        [hits] = await store.search(layout.name, "content", [(unit(8, 0), EVERYTHING)], limit=10)
        assert hits == []

    async def test_a_stale_token_changes_nothing(self, store: Store, layout: CollectionLayout) -> None:
        """Whoever read before another wrote is told so."""
        first = point({"age": 1})
        await store.write(layout.name, insert(first))
        second, third = point({"age": 2}, name=first.id), point({"age": 3}, name=first.id)
        await store.write(layout.name, [Write(point=second, expected=first.token)])
        assert await store.write(layout.name, [Write(point=third, expected=first.token)]) == set()
        assert (await one(store, layout.name, first.id)).payload == second.payload

    async def test_an_insert_never_replaces(self, store: Store, layout: CollectionLayout) -> None:
        """Whoever found nothing does not overwrite what has come since."""
        first = point({"age": 1})
        await store.write(layout.name, insert(first))
        assert await store.write(layout.name, insert(point({"age": 2}, name=first.id))) == set()
        assert (await one(store, layout.name, first.id)).payload == first.payload

    async def test_an_update_never_inserts(self, store: Store, layout: CollectionLayout) -> None:
        """Whoever read a point that is gone does not bring it back."""
        ghost = point()
        assert await store.write(layout.name, [Write(point=ghost, expected=new_token())]) == set()
        assert await store.retrieve(layout.name, [ghost.id]) == {}

    async def test_a_batch_may_succeed_in_part(self, store: Store, layout: CollectionLayout) -> None:
        """Each point of a batch is decided by itself, whatever its neighbours."""
        known = [point({"age": number}) for number in range(4)]
        await store.write(layout.name, insert(*known))
        fresh = point({"age": 10})
        good = point({"age": 11}, name=known[0].id)
        stale = point({"age": 12}, name=known[1].id)
        swapped = point({"age": 13}, name=known[2].id)
        late = point({"age": 14}, name=known[3].id)
        stands = await store.write(
            layout.name,
            [
                Write(point=fresh, expected=None),
                Write(point=good, expected=known[0].token),
                Write(point=stale, expected=new_token()),
                Write(point=swapped, expected=known[3].token),  # a token of the batch, of another point
                Write(point=late, expected=None),
            ],
        )
        assert stands == {fresh.id, good.id}
        ages = {name: (await one(store, layout.name, name)).payload["age"] for name in (p.id for p in known)}
        assert ages == {known[0].id: 11, known[1].id: 1, known[2].id: 2, known[3].id: 3}

    async def test_batches_larger_than_a_slice(self, store: Store, layout: CollectionLayout) -> None:
        """Three hundred points, a third of them conflicting, come out as if written one by one."""
        points = [point({"age": number}, {"short": unit(3, number % 3)}) for number in range(300)]
        assert await store.write(layout.name, insert(*points)) == {p.id for p in points}
        again = [point({"age": p.payload["age"] + 1000}, name=p.id) for p in points]
        stands = await store.write(
            layout.name,
            [
                Write(point=new, expected=old.token if number % 3 else new_token())
                for number, (old, new) in enumerate(zip(points, again, strict=True))
            ],
        )
        assert stands == {p.id for number, p in enumerate(points) if number % 3}
        found = await store.retrieve(layout.name, [p.id for p in points], payload=["age"])
        assert [found[p.id].payload["age"] for p in points] == [
            number + 1000 if number % 3 else number for number in range(300)
        ]

    async def test_no_update_is_lost_between_two_writers(
        self, backend: Any, store: Store, layout: CollectionLayout
    ) -> None:
        """Each adds its marks to shared points, many times at once; in the end every mark is there exactly once."""
        other = store if backend.exclusive else await backend.open(layout)
        shared = [uuid4() for _ in range(3)]

        async def add_marks(through: Store, author: str) -> None:
            for number in range(60):
                waiting = dict.fromkeys(shared, f"{author}{number}")
                while waiting:
                    held = await through.retrieve(layout.name, list(waiting))
                    writes = []
                    for name, mark in list(waiting.items()):
                        marks = held[name].payload["marks"] if name in held else []
                        if mark in marks:  # it stood, and was replaced before it was read back
                            del waiting[name]
                            continue
                        new = point({"marks": [*marks, mark]}, name=name)
                        writes.append(Write(point=new, expected=held[name].token if name in held else None))
                    await asyncio.sleep(0)
                    for name in await through.write(layout.name, writes):
                        del waiting[name]

        await asyncio.gather(add_marks(store, "a"), add_marks(other, "b"))
        expected = sorted(f"{author}{number}" for author in "ab" for number in range(60))
        for name in shared:
            assert sorted((await one(store, layout.name, name)).payload["marks"]) == expected

    async def test_put_replaces_whatever_is_there(self, store: Store, layout: CollectionLayout) -> None:
        """Once acknowledged it is behind the writes before it, and the token that they left counts no more."""
        first = point({"age": 1})
        await store.write(layout.name, insert(first))
        position = point({"age": 2}, name=first.id)
        await store.put(layout.name, [position])
        assert (await one(store, layout.name, first.id)).payload == position.payload
        late = point({"age": 3}, name=first.id)
        assert await store.write(layout.name, [Write(point=late, expected=first.token)]) == set()
        assert await store.write(layout.name, [Write(point=late, expected=position.token)]) == {first.id}

    async def test_nothing_to_write_is_no_error(self, store: Store, layout: CollectionLayout) -> None:
        """Empty batches pass."""
        assert await store.write(layout.name, []) == set()
        await store.put(layout.name, [])
        assert await store.search(layout.name, "content", [], limit=3) == []

    async def test_ambiguous_batches_are_refused(self, store: Store, layout: CollectionLayout) -> None:
        """A point named twice, one without a token, or with the token that it had, cannot be told apart later."""
        first = point()
        with pytest.raises(ValueError, match="twice"):
            await store.write(layout.name, insert(first, first))
        with pytest.raises(ValueError, match="no fresh token"):
            await store.write(layout.name, insert(Point(id=uuid4(), payload={})))
        with pytest.raises(ValueError, match="no fresh token"):
            await store.write(layout.name, [Write(point=first, expected=first.token)])
        assert await store.count(layout.name, EVERYTHING) == 0

    @pytest.mark.parametrize(("vectors", "words"), [({"long": 3}, "no vector long"), ({"short": 4}, r"shape \(3,\)")])
    async def test_vectors_that_do_not_fit_are_refused(
        self, store: Store, layout: CollectionLayout, vectors: dict[str, int], words: str
    ) -> None:
        """They are a mistake of the program, and not of the store's availability."""
        wrong = point(vectors={name: unit(size, 0) for name, size in vectors.items()})
        with pytest.raises(ValueError, match=words):
            await store.write(layout.name, insert(wrong))
        with pytest.raises(ValueError, match=words):
            await store.put(layout.name, [wrong])


class TestFinding:
    """Searches, scrolls and counts return what passes their filter, and nothing of the store's own."""

    async def test_search_orders_by_dot_product(self, store: Store, layout: CollectionLayout) -> None:
        """Lengths count: nothing is normalised on the way."""
        rng = np.random.default_rng(2)
        matrix = rng.normal(size=(40, 8)).astype(np.float32) * rng.uniform(0.1, 5, size=(40, 1)).astype(np.float32)
        points = [point({"age": row}, {"content": vector}) for row, vector in enumerate(matrix)]
        await store.write(layout.name, insert(*points))
        queries = rng.normal(size=(70, 8)).astype(np.float32)
        found = await store.search(
            layout.name, "content", [(query, EVERYTHING) for query in queries], limit=5, payload=["age"]
        )
        scores = queries.astype(np.float64) @ matrix.T
        assert len(found) == 70
        for hits, row in zip(found, scores, strict=True):
            best = np.argsort(-row)[:5]
            assert [hit.payload["age"] for hit in hits] == best.tolist()
            assert [hit.id for hit in hits] == [points[index].id for index in best]
            np.testing.assert_allclose([hit.score for hit in hits], row[best], rtol=1e-5)

    async def test_filters(self, store: Store, layout: CollectionLayout) -> None:
        """Equal, unequal and without, over words, numbers and truth values, alike for search, scroll and count."""
        payloads: list[dict[str, Any]] = [
            {"kind": "a", "age": 1, "hidden": False},
            {"kind": "a", "age": 2, "hidden": True},
            {"kind": "b", "age": 1},
            {},
        ]
        points = [point(payload, {"short": unit(3, 0)}) for payload in payloads]
        await store.write(layout.name, insert(*points))
        cases: list[tuple[SearchFilter, set[int]]] = [
            (EVERYTHING, {0, 1, 2, 3}),
            (SearchFilter(equal={"kind": "a"}), {0, 1}),
            (SearchFilter(equal={"kind": "a", "age": 1}), {0}),
            (SearchFilter(equal={"hidden": False}), {0}),
            (SearchFilter(unequal={"hidden": True}), {0, 2, 3}),
            (SearchFilter(unequal={"kind": "a", "age": 2}), {2, 3}),
            (SearchFilter(equal={"age": 1}, unequal={"kind": "b"}), {0}),
            (SearchFilter(without=[points[0].id, points[3].id]), {1, 2}),
            (SearchFilter(equal={"kind": "a"}, without=[points[1].id, uuid4()]), {0}),
            (SearchFilter(equal={"kind": "c"}), set()),
        ]
        found = await store.search(layout.name, "short", [(unit(3, 0), where) for where, _ in cases], limit=10)
        for (where, expected), hits in zip(cases, found, strict=True):
            ids = {points[index].id for index in expected}
            assert {hit.id for hit in hits} == ids
            assert set(await names(store, layout.name, where)) == ids
            assert await store.count(layout.name, where) == len(ids)

    async def test_search_keeps_to_its_limit(self, store: Store, layout: CollectionLayout) -> None:
        """At most so many, the best ones; fewer where there are no more."""
        points = [point(vectors={"short": unit(3, 0, scale)}) for scale in (1, 2, 3)]
        await store.write(layout.name, insert(*points))
        [best] = await store.search(layout.name, "short", [(unit(3, 0), EVERYTHING)], limit=2, payload=False)
        assert [(hit.id, hit.score, hit.payload) for hit in best] == [(points[2].id, 3, {}), (points[1].id, 2, {})]
        [every] = await store.search(layout.name, "short", [(unit(3, 0), EVERYTHING)], limit=10)
        assert len(every) == 3

    async def test_scroll_passes_every_point_once(self, store: Store, layout: CollectionLayout) -> None:
        """Over several pages, with vectors, and with a filter that leaves pages partly empty."""
        points = [point({"kind": "ab"[number % 2]}, {"short": unit(3, number % 3)}) for number in range(100)]
        await store.write(layout.name, insert(*points))
        everything = await names(store, layout.name, EVERYTHING, page=7)
        assert len(everything) == 100
        assert set(everything) == {p.id for p in points}
        by_id = {p.id: p for p in points}
        halves = [
            found
            async for found in store.scroll(
                layout.name, SearchFilter(equal={"kind": "b"}), vectors=["short"], payload=["kind"], page=7
            )
        ]
        assert len(halves) == 50
        for found in halves:
            assert found.payload == {"kind": "b"}
            np.testing.assert_array_equal(found.vectors["short"], by_id[found.id].vectors["short"])

    async def test_the_largest_values_of_a_field(self, store: Store, layout: CollectionLayout) -> None:
        """Largest first, at most so many, of those that pass and have the field; equal values are all there."""
        ages = [3, 2**40, -5, 7, 7, 7, 0]
        points = [point({"age": age, "kind": "ab"[age == 0]}, {"short": unit(3, 0)}) for age in ages]
        bare = point({"kind": "a"})
        await store.write(layout.name, insert(*points, bare))
        every = await store.largest(layout.name, "age", EVERYTHING, limit=20, payload=["age"])
        assert [found.payload for found in every] == [{"age": age} for age in sorted(ages, reverse=True)]
        assert {found.id for found in every} == {made.id for made in points}
        assert all(found.vectors == {} for found in every)
        few = await store.largest(layout.name, "age", SearchFilter(equal={"kind": "a"}), limit=2)
        assert [found.payload["age"] for found in few] == [2**40, 7]
        where = SearchFilter(equal={"kind": "a"}, without=[points[1].id])
        assert [found.payload["age"] for found in await store.largest(layout.name, "age", where, limit=9)] == [
            7, 7, 7, 3, -5,
        ]  # fmt: skip

    async def test_the_largest_values_are_those_of_now(self, store: Store, layout: CollectionLayout) -> None:
        """A point that is written anew is where its new value belongs, once, or nowhere."""
        points = [point({"age": age}) for age in range(300)]
        await store.write(layout.name, insert(*points))
        changed = point({"age": 1_000}, name=points[5].id)
        without = point({"kind": "a"}, name=points[299].id)
        for old, new in ((points[5], changed), (points[299], without)):
            assert await store.write(layout.name, [Write(point=new, expected=old.token)]) == {old.id}
        found = await store.largest(layout.name, "age", EVERYTHING, limit=400, payload=["age"])
        assert [one.payload["age"] for one in found] == [1_000, *(age for age in range(298, -1, -1) if age != 5)]
        assert await store.largest(layout.name, "age", SearchFilter(equal={"kind": "b"}), limit=3) == []

    async def test_an_empty_collection_has_nothing(self, store: Store, layout: CollectionLayout) -> None:
        """What the store remembers of the layout is seen by nobody."""
        assert await store.count(layout.name, EVERYTHING) == 0
        assert await names(store, layout.name, EVERYTHING) == []
        assert await names(store, layout.name, SearchFilter(unequal={"kind": "a"}, without=[uuid4()])) == []
        assert await store.largest(layout.name, "age", EVERYTHING, limit=5) == []
        for vector, size in layout.vectors.items():
            assert await store.search(layout.name, vector, [(unit(size, 0), EVERYTHING)], limit=5) == [[]]


class TestSparse:
    """Vectors of which only some components are there, by name beside the others."""

    async def test_they_return_exactly(self, store: Store, layout: CollectionLayout) -> None:
        """Indices up to the largest, values bit by bit, beside a dense vector, or not at all if not asked for."""
        after = sparse({0: 0.1, 7: -2.5, 2**32 - 1: 1e-20})
        written = point({"age": 1}, {"short": unit(3, 0)}, sparse={"after": after})
        await store.write(layout.name, insert(written))
        found = (await store.retrieve(layout.name, [written.id], vectors=["short", "after"]))[written.id]
        np.testing.assert_array_equal(found.vectors["short"], unit(3, 0))
        assert components(found.sparse["after"]) == components(after)
        assert (await one(store, layout.name, written.id)).sparse == {}
        scrolled = [
            components(found.sparse["after"])
            async for found in store.scroll(layout.name, EVERYTHING, vectors=["after"])
        ]
        assert scrolled == [components(after)]

    async def test_search_orders_by_dot_product(self, store: Store, layout: CollectionLayout) -> None:
        """Of those points that share a component with the query; the filter holds as for any search."""
        points = [
            point({"kind": "a"}, sparse={"after": sparse({1: 1.0, 5: 2.0})}),
            point({"kind": "b"}, sparse={"after": sparse({5: 3.0})}),
            point({"kind": "a"}, sparse={"after": sparse({9: 9.0})}),
            point({"kind": "a"}, {"short": unit(3, 0)}),
        ]
        await store.write(layout.name, insert(*points))
        query = sparse({1: 4.0, 5: 1.0, 77: 1.0})
        cases = [(query, EVERYTHING), (query, SearchFilter(equal={"kind": "b"})), (sparse({2: 1.0}), EVERYTHING)]
        found = await store.search(layout.name, "after", cases, limit=3)
        assert [[(hit.id, hit.score) for hit in hits] for hits in found] == [
            [(points[0].id, 6.0), (points[1].id, 3.0)],
            [(points[1].id, 3.0)],
            [],
        ]

    async def test_a_write_replaces_them(self, store: Store, layout: CollectionLayout) -> None:
        """No component of the former vector is found any more, nor one that a refused write would have had."""
        first = point(sparse={"after": sparse({1: 1.0})})
        await store.write(layout.name, insert(first))
        second = point(name=first.id, sparse={"after": sparse({2: 1.0})})
        late = point(name=first.id, sparse={"after": sparse({3: 1.0})})
        assert await store.write(layout.name, [Write(point=second, expected=first.token)]) == {first.id}
        assert await store.write(layout.name, [Write(point=late, expected=first.token)]) == set()
        queries = [(sparse({index: 1.0}), EVERYTHING) for index in (1, 2, 3)]
        found = await store.search(layout.name, "after", queries, limit=3)
        assert [[hit.id for hit in hits] for hits in found] == [[], [first.id], []]

    async def test_those_that_do_not_fit_are_refused(self, store: Store, layout: CollectionLayout) -> None:
        """An unknown name, a value too many, an index twice."""
        wrong = {
            "no sparse vector before": {"before": sparse({1: 1.0})},
            "one value an index": {"after": SparseVector(np.array([1], np.uint32), np.ones(2, np.float32))},
            "each index once": {"after": SparseVector(np.array([1, 1], np.uint32), np.ones(2, np.float32))},
        }
        for words, vectors in wrong.items():
            with pytest.raises(ValueError, match=words):
                await store.put(layout.name, [point(sparse=vectors)])


class TestOpening:
    """A collection is made once, and only opened by those who would make it likewise."""

    async def test_reopening_keeps_what_was_written(self, backend: Any, store: Store, layout: CollectionLayout) -> None:
        """Data, tokens and layout outlive the store object."""
        written = point({"kind": "a"}, {"short": unit(3, 1)})
        await store.write(layout.name, insert(written))
        again = await backend.open(layout)
        found = await one(again, layout.name, written.id)
        assert found.payload == written.payload
        np.testing.assert_array_equal(found.vectors["short"], unit(3, 1))

    async def test_opening_twice_is_harmless(self, store: Store, layout: CollectionLayout) -> None:
        """Each lane opens what it needs, on one store."""
        written = point()
        await store.write(layout.name, insert(written))
        await store.open([layout])
        assert await names(store, layout.name, EVERYTHING) == [written.id]
        await store.flush()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"fingerprint": "f2"}, "fingerprint f2 expected, f1 stored"),
            ({"vectors": {"content": 9, "short": 3}}, "vector content: dimension 9 expected, 8 stored"),
            ({"vectors": {"content": 8}}, "vector short: dimension none expected, 3 stored"),
            ({"vectors": {"content": 8, "short": 3, "long": 3}}, "vector long: dimension 3 expected, none stored"),
            ({"sparse": ()}, "sparse vectors none expected, after stored"),
            ({"sparse": ("after", "before")}, "sparse vectors after, before expected, after stored"),
        ],
    )
    async def test_another_layout_is_refused(
        self, backend: Any, store: Store, layout: CollectionLayout, change: dict[str, Any], words: str
    ) -> None:
        """The message says what differs and what to do, and the data stay as they were."""
        written = point()
        await store.write(layout.name, insert(written))
        with pytest.raises(LayoutMismatch, match=words) as refusal:
            await backend.open(msgspec.structs.replace(layout, **change))
        assert "encoders and settings that filled it" in str(refusal.value)
        assert "`namespace`" in str(refusal.value)
        again = await backend.open(layout)
        assert await names(again, layout.name, EVERYTHING) == [written.id]

    async def test_looking_creates_nothing(self, backend: Any, layout: CollectionLayout) -> None:
        """Who only wants to look is told that there is nothing, and leaves nothing; what is there is opened."""
        looking = backend.connect()
        with pytest.raises(NoCollection, match=layout.name):
            await looking.open([layout], create=False)
        store = await backend.open(layout)
        written = point()
        await store.write(layout.name, insert(written))
        if backend.exclusive:
            await backend.close()
        await looking.open([layout], create=False)
        assert await names(looking, layout.name, EVERYTHING) == [written.id]
        await looking.close()

    async def test_a_further_index_is_added(self, backend: Any, store: Store, layout: CollectionLayout) -> None:
        """A release may filter by one more field without a collection being made anew."""
        written = point({"origin": "here"})
        await store.write(layout.name, insert(written))
        wider = msgspec.structs.replace(layout, indexes={**layout.indexes, "origin": "keyword"})
        again = await backend.open(wider)
        assert await names(again, layout.name, SearchFilter(equal={"origin": "here"})) == [written.id]

    async def test_opening_at_once(self, backend: Any, layout: CollectionLayout) -> None:
        """Several workers may start on an empty server together."""
        if backend.exclusive:
            pytest.skip("one process at a time")
        stores = await asyncio.gather(*(backend.open(layout) for _ in range(4)))
        written = point()
        await stores[0].write(layout.name, insert(written))
        assert [await names(store, layout.name, EVERYTHING) for store in stores] == [[written.id]] * 4
