"""The content lane stores what events contain, reports what it cannot use, and tells authors what has come."""

import io
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from penchant.encoders.embedder import Embedder
from penchant.encoders.embedder import space as encoder_space
from penchant.encoders.media import MediaReader
from penchant.profile.entities import GraphModel
from penchant.profile.fusion import space_of
from penchant.profile.graph import Graph
from penchant.profile.identity import Identity
from penchant.profile.items import Items
from penchant.profile.places import Entities, Places
from penchant.profile.store.edge import EdgeStore
from penchant.settings import load_settings
from penchant.streams.codec import decode
from penchant.streams.content import ContentHandler
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.entities import EntityKeeper, model_event, vector_event
from penchant.streams.events import Item, ItemReady, Media, MediaUpload, Post
from penchant.streams.interpret import Reader
from penchant.streams.lane import Batch
from penchant.streams.records import Record

NOW = 1_750_000_000_000
ONE = "1" * 16


def picture(colour="red"):
    """A small PNG."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "png")
    return file.getvalue()


# One event loop for all: an embedder belongs to the one that it is first used in.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder():
    """The real encoders, loaded once."""
    async with Embedder(load_settings().encoders) as embedder:
        yield embedder


@pytest_asyncio.fixture(loop_scope="module")
async def items(tmp_path):
    """Items of an embedded store."""
    settings = load_settings()
    encoders = encoder_space(settings.encoders)
    space = space_of(encoders.dimensions, encoders.fingerprints, settings.fusion.shares, graph_dimension=4)
    store = EdgeStore(tmp_path / "store")
    items = Items(store, "items", space)
    await store.open([items.layout, Graph(store, "triples").layout, Entities(store, "entities").layout])
    yield items
    await store.close()


@pytest.fixture
def graph(items):
    """The facts beside the items."""
    return Graph(items._store, "triples")


@pytest.fixture
def handler(embedder, items, graph):
    """The lane's handler."""
    settings = load_settings()
    entities = Entities(items._store, "entities")
    keeper = EntityKeeper(entities, Places(items, entities, graph), 4)
    media = MediaReader(settings.encoders)
    return ContentHandler(settings, Reader(Identity("key"), settings.profile), embedder, items, keeper, media=media)


def batch(topic, *events, first=0, key=None):
    """A batch of one topic; None stands for a null value under `key`."""
    records = [
        Record(
            topic=topic,
            partition=0,
            offset=first + number,
            timestamp=NOW,
            key=key,
            value=event if event is None or isinstance(event, bytes) else msgspec.msgpack.encode(event),
        )
        for number, event in enumerate(events)
    ]
    return Batch(topic=topic, records=records, assignments={0: 1})


def letters(handled):
    """The dead letters among the outputs, as (offset, reason)."""
    found = []
    for _, output in handled.outputs:
        if output.topic == "dead-letters":
            read = DeadLetter.read(
                Record(
                    topic="",
                    partition=0,
                    offset=0,
                    timestamp=0,
                    key=output.key,
                    value=output.value,
                    headers=output.headers,
                )
            )
            found.append((read.offset, read.reason))
    return found


def announced(handled):
    """The announcements among the outputs."""
    return [decode(ItemReady, output.value) for _, output in handled.outputs if output.topic == "item-ready"]


async def test_items_are_embedded_by_modality_and_listed(handler, items):
    """Text and picture each have their slice; nobody is told of the catalogue."""
    both = Item(item_id="both", title="Red", media=(Media(kind="image", data=picture()),))
    handled = await handler.handle(batch("items", both, Item(item_id="text", title="Red")))
    assert handled.outputs == []
    assert handled.touched == {}
    stored = await items.get(["both", "text"])
    assert stored["both"].modalities == ("text", "image")
    assert stored["text"].modalities == ("text",)
    assert all(item.listed for item in stored.values())
    for vector in (await items.vectors(["both", "text"])).values():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


async def test_a_part_that_cannot_be_used_is_a_dead_letter_and_the_rest_counts(handler, items):
    """A corrupt picture beside a text: the text is embedded, the picture reported; replayed, reported again."""
    post = Post(event_id="p", user_id="ada", text="a poem", media=(Media(kind="image", data=b"no picture"),))
    for _ in range(2):
        handled = await handler.handle(batch("posts", post))
        [(offset, reason)] = letters(handled)
        assert (offset, reason.startswith("image-")) == (0, True)
        [ready] = announced(handled)
        assert ready.user_id == "ada"
    stored = await items.get([ready.item_id])
    assert stored[ready.item_id].modalities == ("text",)
    assert stored[ready.item_id].listed


async def test_an_item_of_which_nothing_is_left_is_void(handler, items):
    """Nobody need wait for an upload that is no picture: it is there, without content, and its author is told."""
    upload = MediaUpload(event_id="u", user_id="ada", kind="image", data=b"no picture")
    handled = await handler.handle(batch("media-uploads", upload))
    assert len(letters(handled)) == 1
    [ready] = announced(handled)
    assert await items.vectors([ready.item_id]) == {ready.item_id: None}
    assert not (await items.get([ready.item_id]))[ready.item_id].listed


async def test_private_posts_are_embedded_and_not_listed(handler, items):
    """A search says something about its author, and is shown to nobody."""
    search = Post(event_id="s", user_id="ada", text="old maps", recommendable=False)
    [ready] = announced(await handler.handle(batch("posts", search)))
    assert not (await items.get([ready.item_id]))[ready.item_id].listed
    assert (await items.vectors([ready.item_id]))[ready.item_id] is not None


async def test_a_search_is_embedded_as_what_asks(handler, embedder, monkeypatch):
    """Models that take a search in another way than what may be found are told which is which."""
    embed, seen = embedder.embed, {}

    async def watched(contents):
        seen.update({content.text: content.asks for content in contents})
        return await embed(contents)

    monkeypatch.setattr(embedder, "embed", watched)
    await handler.handle(batch("items", Item(item_id="i", title="a film")))
    await handler.handle(
        batch(
            "posts",
            Post(event_id="s", user_id="ada", text="old maps", recommendable=False),
            Post(event_id="p", user_id="ada", text="a poem"),
            Post(
                event_id="q",
                user_id="ada",
                text="my garden",
                media=(Media(kind="image", data=picture()),),
                recommendable=False,
            ),
        )
    )
    assert seen == {"a film": False, "old maps": True, "a poem": False, "my garden": False}


async def test_what_cannot_be_read_is_a_dead_letter_with_its_bytes(handler):
    """Rubbish between good records takes none of them with it."""
    good = Item(item_id="good", title="Good")
    handled = await handler.handle(batch("items", b"\x81", good, b"", Item(item_id="~x", title="Reserved")))
    assert letters(handled) == [(0, "malformed"), (2, "empty"), (3, "reserved-id")]
    assert handled.outputs[0][1].value == b"\x81"


async def test_a_withdrawn_item_keeps_its_vector_and_comes_back_with_a_newer_version(handler, items):
    """Past signals speak of it; lists do not show it; a replayed older record changes nothing; a new one does."""
    first = batch("items", Item(item_id="film", title="A film"))
    await handler.handle(first)
    vector = (await items.vectors(["film"]))["film"]
    await handler.handle(batch("items", None, first=1, key=b"film"))
    await handler.handle(first)
    withdrawn = (await items.get(["film"]))["film"]
    assert (withdrawn.withdrawn, withdrawn.listed, withdrawn.title) == (True, False, "A film")
    np.testing.assert_array_equal((await items.vectors(["film"]))["film"], vector)
    assert await items.count() == 0
    await handler.handle(batch("items", Item(item_id="film", title="Another film"), first=2))
    assert await items.count() == 1


@pytest.mark.parametrize("together", [True, False])
async def test_what_is_withdrawn_at_once_is_what_is_withdrawn_later(handler, items, together):
    """It has the content that it had last, whether both records come in one batch or apart."""
    await handler.handle(batch("items", Item(item_id="other", title="The last of three")))
    versions = [Item(item_id="film", title=title) for title in ("The first of three", "The last of three")]
    if together:
        events = [*versions, None]
        records = [batch("items", event, first=number, key=b"film").records[0] for number, event in enumerate(events)]
        await handler.handle(Batch(topic="items", records=records, assignments={0: 1}))
    else:
        for number, event in enumerate([*versions, None]):
            await handler.handle(batch("items", event, first=number, key=b"film"))
    found = (await items.get(["film"]))["film"]
    assert (found.withdrawn, found.listed, found.title) == (True, False, "The last of three")
    vectors = await items.vectors(["film", "other"])
    np.testing.assert_array_equal(vectors["film"], vectors["other"])


@pytest.mark.parametrize("cuts", [(1,), (2,), (1, 2), ()])
async def test_however_a_log_is_split_the_last_version_stands(handler, items, cuts):
    """Three versions within one millisecond, in one batch or several: the last one stands."""
    versions = [Item(item_id="film", title=title) for title in ("one", "two", "three")]
    edges = [0, *cuts, 3]
    for start, end in pairwise(edges):
        await handler.handle(batch("items", *versions[start:end], first=start))
    await handler.handle(batch("items", versions[0]))
    assert (await items.get(["film"]))["film"].title == "three"


async def test_the_same_batch_twice_changes_nothing(handler, items):
    """A replay finds its items there: nothing is embedded or written again."""
    same = batch("items", *(Item(item_id=f"i{number}", title=f"item {number}") for number in range(5)))
    await handler.handle(same)
    before = await items._load(f"i{number}" for number in range(5))
    await handler.handle(same)
    assert await items._load(f"i{number}" for number in range(5)) == before


async def test_a_published_graph_places_items_and_what_is_malformed_is_a_dead_letter(handler, items):
    """Items keep their text beside the graph's slice; one withdrawn keeps its vector, and its place follows."""
    await handler.handle(batch("items", *(Item(item_id=name, title="A film", entity=name) for name in "ab")))
    text = items.space.split((await items.vectors(["a"]))["a"])["text"]
    await handler.handle(batch("items", None, first=2, key=b"b"))
    vectors = [vector_event(name, ONE, np.eye(6, dtype=np.float32)[row]) for row, name in enumerate("ab")]
    handled = await handler.handle(batch("entity-vectors", *vectors, b"\x81"))
    assert letters(handled) == [(2, "malformed")]
    model = GraphModel(
        fingerprint=ONE,
        operation="add",
        mean=np.zeros(6, np.float32),
        components=np.eye(6, dtype=np.float32)[:4],
        forward={},
        backward={},
    )
    wrong = msgspec.structs.replace(model_event(model), components=bytes(4))
    handled = await handler.handle(batch("graph-model", model_event(model), wrong))
    assert letters(handled) == [(1, "dimension")]
    for row, name in enumerate("ab"):
        slices = items.space.split((await items.vectors([name]))[name])
        np.testing.assert_allclose(slices["graph"], np.eye(4)[row], atol=1e-6)
        np.testing.assert_allclose(slices["text"], text, atol=1e-5)
    stored = await items.get(["a", "b"])
    assert (stored["a"].listed, stored["b"].listed) == (True, False)
    await handler.handle(batch("graph-model", None, first=2, key=b"model"))
    for name in "ab":
        assert items.space.split((await items.vectors([name]))[name]).keys() == {"text"}


async def test_an_item_is_written_with_the_place_that_is_known(handler, items):
    """An edited item does not lose its place for a while; one that names another entity takes that one's."""
    first = [vector_event(name, ONE, np.eye(4, dtype=np.float32)[row]) for row, name in enumerate("ab")]
    await handler.handle(batch("entity-vectors", *first))
    model = GraphModel(
        fingerprint=ONE,
        operation="add",
        mean=np.zeros(4, np.float32),
        components=np.eye(4, dtype=np.float32),
        forward={},
        backward={},
    )
    await handler.handle(batch("graph-model", model_event(model)))
    for offset, (title, entity) in enumerate([("one", "a"), ("two", "a"), ("three", "b"), ("four", None)]):
        await handler.handle(batch("items", Item(item_id="film", title=title, entity=entity), first=offset))
        slices = items.space.split((await items.vectors(["film"]))["film"])
        if entity is None:
            assert "graph" not in slices
        else:
            np.testing.assert_allclose(slices["graph"], np.eye(4)["ab".index(entity)], atol=1e-6)
