"""Items are placed in the graph whatever comes first, by one model at a time, and nothing else of them changes."""

import numpy as np
import pytest

from penchant.profile.entities import GraphModel, place
from penchant.profile.fusion import Slice, Space
from penchant.profile.graph import Fact, Graph
from penchant.profile.items import Item
from penchant.profile.places import Entities, OwnVector, Places

ONE, OTHER = "1" * 16, "2" * 16
VECTORS = {
    "a": np.array([1, 0, 0, 0], np.float32),
    "b": np.array([0, 1, 0, 0], np.float32),
    "c": np.array([0, 0, 1, 1], np.float32),
}


@pytest.fixture
def space():
    """Text, and the graph."""
    return Space((Slice("text", 4, 0.6, "t1"), Slice("graph", 3, 0.4, "published", apart=True)))


@pytest.fixture
async def graph(edge):
    """Facts beside the items."""
    found = Graph(edge, "triples")
    await edge.open([found.layout])
    return found


@pytest.fixture
async def entities(edge):
    """Entities' vectors beside the items."""
    found = Entities(edge, "entities")
    await edge.open([found.layout])
    return found


@pytest.fixture
def places(items, entities, graph):
    """The part under test."""
    return Places(items, entities, graph, now=lambda: 7)


def model(fingerprint, turn=0):
    """A model with one relation, which adds to the first component; its components may be turned."""
    relation = np.array([1, 0, 0, 0], np.float32)
    components = np.roll(np.eye(4, dtype=np.float32)[:3], turn, axis=1)
    return GraphModel(
        fingerprint=fingerprint,
        operation="add",
        mean=np.zeros(4, np.float32),
        components=components,
        forward={"r": relation},
        backward={"r": -relation},
    )


def own(entity, *, of=ONE, version=1, vector=None):
    """A vector as it was published."""
    return OwnVector(
        entity=entity, model=of, version=(version, 0), vector=VECTORS[entity] if vector is None else vector
    )


async def film(items, name, entity, *, text=True, version=1):
    """Stores an item that names an entity, as a lane that knows no graph would."""
    content = items.space.fuse({"text": np.array([0, 0.6, 0.8, 0], np.float32)}) if text else None
    item = Item(item_id=name, version=(version, 0, 0), listed=text, entity=entity, modalities=("text",) * text)
    await items.put([(item, content)])


async def slices(items, name):
    """An item's unit vectors by modality."""
    [stored] = await items.stored([name])
    return {} if stored.vector is None else items.space.split(stored.vector)


async def test_whatever_comes_first_an_item_gets_its_place(items, entities, places):
    """Item, vector and model in any order: the same content in the end, and the text slice as it was."""

    async def item(name):
        await film(items, name, "a")
        await places.refresh([name])

    async def vector(_):
        await entities.put([own("a")])
        await places.refresh_naming(["a"])

    async def force(_):
        await places.come_into_force(model(ONE), (1, 0))

    for number, order in enumerate([(item, vector, force), (force, vector, item), (vector, force, item)]):
        for step in order:
            await step(f"film-{number}")
        found = await slices(items, f"film-{number}")
        np.testing.assert_allclose(found["graph"], place(model(ONE), VECTORS["a"]), atol=1e-6)
        np.testing.assert_allclose(found["text"], [0, 0.6, 0.8, 0], atol=1e-6)
        [stored] = await items.stored([f"film-{number}"])
        assert np.linalg.norm(stored.vector) == pytest.approx(1, abs=1e-6)
        assert stored.item.modalities == ("text", "graph")
        assert (stored.item.placed.model, stored.item.placed.mean) == (ONE, False)


async def test_what_is_right_already_is_not_written_again(items, entities, places):
    """Refreshing, a replayed vector and a replayed model change nothing: tokens stay."""
    await film(items, "film", "a")
    await entities.put([own("a")])
    await places.come_into_force(model(ONE), (1, 0))
    [before] = await items.stored(["film"])
    await entities.put([own("a")])
    await places.come_into_force(model(ONE), (1, 0))
    assert await places.refresh(["film"]) == 0
    [after] = await items.stored(["film"])
    assert after.token == before.token


async def test_an_item_with_nothing_else_lives_by_its_place(items, entities, places):
    """Of an entity alone an item has content, and is listed; when the vector goes, it is void again."""
    await film(items, "film", "a", text=False)
    await entities.put([own("a")])
    await places.come_into_force(model(ONE), (1, 0))
    [stored] = await items.stored(["film"])
    assert stored.item.listed
    assert (await slices(items, "film")).keys() == {"graph"}
    await entities.put([own("a", of="", version=2, vector=np.zeros(0, np.float32))])
    await places.refresh_naming(["a"])
    [stored] = await items.stored(["film"])
    assert not stored.item.listed
    assert stored.vector is None


async def test_an_older_vector_or_model_never_replaces_a_newer_one(items, entities, places):
    """A replay from an earlier offset leaves what is in force."""
    await film(items, "film", "a")
    newer = VECTORS["b"]
    await entities.put([own("a", of=OTHER, version=2, vector=newer)])
    await places.come_into_force(model(OTHER, turn=1), (2, 0))
    await entities.put([own("a", version=1)])
    await places.come_into_force(model(ONE), (1, 0))
    assert (await entities.in_force()).model == OTHER
    np.testing.assert_allclose((await slices(items, "film"))["graph"], place(model(OTHER, turn=1), newer), atol=1e-6)


async def test_two_models_are_never_in_the_slice_together(items, entities, graph, places, monkeypatch):
    """Looked at behind every write: at no moment do two items have places of different models."""
    for name in "abc":
        await film(items, f"film-{name}", name)
        await entities.put([own(name)])
    await places.come_into_force(model(ONE), (1, 0))
    seen = []
    replace = items.replace

    async def watched(edits):
        stands = set()
        for edit in edits:
            stands |= await replace([edit])
            stored = await items.stored([f"film-{name}" for name in "abc"])
            seen.append({one.item.placed.model for one in stored if one.item.placed and one.item.placed.model})
        return stands

    monkeypatch.setattr(items, "replace", watched)
    for name in "ab":  # of the new model, c has no vector
        await entities.put([own(name, of=OTHER, version=2)])
        await places.refresh_naming([name])
    await places.come_into_force(model(OTHER, turn=1), (2, 0))
    assert all(len(models) <= 1 for models in seen)
    assert seen[-1] == {OTHER}
    assert (await slices(items, "film-c")).keys() == {"text"}


async def test_a_change_of_models_that_was_broken_off_is_finished_by_the_next(items, entities, places, monkeypatch):
    """A crash while old places are taken away: nobody is given a new one before the rest is gone."""
    for name in "abc":
        await film(items, f"film-{name}", name)
        await entities.put([own(name)])
    await places.come_into_force(model(ONE), (1, 0))
    refresh = places.refresh

    async def crashing(_):
        await refresh(["film-a"])
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(places, "refresh", crashing)
        with pytest.raises(ConnectionError):
            await places.come_into_force(model(OTHER, turn=1), (2, 0))
    await entities.put([own("a", of=OTHER, version=2, vector=VECTORS["b"])])
    assert await places.refresh_naming(["a"]) == 0
    await places.come_into_force(model(OTHER, turn=1), (2, 0))
    stored = await items.stored([f"film-{name}" for name in "abc"])
    assert {one.item.item_id: one.item.placed.model for one in stored} == {
        "film-a": OTHER,
        "film-b": "",
        "film-c": "",
    }


async def test_a_new_entity_is_placed_by_its_neighbours_until_it_has_a_vector(items, entities, graph, places):
    """The mean of t - r and h + r over its facts; more facts move it, its own vector overrules them."""
    await film(items, "film", "new")
    await entities.put([own(name) for name in "ab"])
    await places.come_into_force(model(ONE), (1, 0))
    assert "graph" not in await slices(items, "film")
    before = await places.known()
    await graph.add(Fact("new", "r", "a"), (1, 0))
    await graph.add(Fact("new", "never seen", "b"), (1, 0))
    assert await places.known() != before
    relation = np.array([1, 0, 0, 0], np.float32)
    assert await places.fill() == 0  # a - r is the origin, which has no direction
    await graph.add(Fact("b", "r", "new"), (1, 0))
    assert await places.fill() == 1
    mean = (VECTORS["a"] - relation + VECTORS["b"] + relation) / 2
    np.testing.assert_allclose((await slices(items, "film"))["graph"], place(model(ONE), mean), atol=1e-6)
    [stored] = await items.stored(["film"])
    assert stored.item.placed.mean
    await entities.put([OwnVector(entity="new", model=ONE, version=(3, 0), vector=VECTORS["c"])])
    await places.refresh_naming(["new"])
    np.testing.assert_allclose((await slices(items, "film"))["graph"], place(model(ONE), VECTORS["c"]), atol=1e-6)


async def test_a_model_that_is_taken_back_leaves_no_place(items, entities, places):
    """Without a model in force, items are as if there were no graph."""
    await film(items, "film", "a")
    await entities.put([own("a")])
    await places.come_into_force(model(ONE), (1, 0))
    await places.come_into_force(None, (2, 0))
    assert (await slices(items, "film")).keys() == {"text"}
    assert await places.of(["a"]) == {}
