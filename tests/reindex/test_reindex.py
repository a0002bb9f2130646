"""A store made for other encoders is the one that they would have filled, and who is cut short or late does no harm."""

import asyncio
import io
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest
from PIL import Image

from penchant.encoders.embedder import Embedder
from penchant.encoders.media import MediaReader
from penchant.errors import ConfigurationError
from penchant.parts import build_parts
from penchant.profile.affinity import Transition
from penchant.profile.graph import Fact
from penchant.profile.items import Item as StoredItem
from penchant.profile.items import Stored
from penchant.profile.positions import Position, Positions
from penchant.profile.remade import HalfMade
from penchant.profile.signals import Action, Signal
from penchant.profile.store.base import LayoutMismatch
from penchant.profile.updater import ProfileUpdater
from penchant.reindex import reindex
from penchant.reindex.items import is_better, is_news
from penchant.reindex.sides import InUse, sides_of
from penchant.settings import load_settings
from penchant.streams import content, interest
from penchant.streams.content import ContentHandler
from penchant.streams.entities import EntityKeeper
from penchant.streams.events import Item, Media, MediaUpload, Post
from penchant.streams.interpret import Reader
from penchant.streams.lane import Batch
from penchant.streams.records import Record
from tests.chaos.engine import Engine

NOW = 1_750_000_000_000
SMALL, LARGE = ({"kind": "hashing", "dimension": dimension} for dimension in (64, 96))
USERS = ("ada", "bea")


def picture(colour):
    """A small PNG."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "png")
    return file.getvalue()


@pytest.fixture
def media(tmp_path):
    """A folder with pictures."""
    folder = tmp_path / "media"
    folder.mkdir()
    for colour in ("red", "green", "blue"):
        (folder / f"{colour}.png").write_bytes(picture(colour))
    return folder


@pytest.fixture
def settings(tmp_path, media):
    """Settings by the name of the store, and changes to its sections."""

    def of(name, text=SMALL, **sections):
        encoders = {"text": text, "media_roots": [str(media)], **sections.pop("encoders", {})}
        recommend = {"calibrate_at": 10**6}
        return load_settings(
            data_dir=tmp_path / name, namespace="shop", encoders=encoders, **{"recommend": recommend, **sections}
        )

    return of


class Run:
    """A store's parts, open, with what fills it from records and signals."""

    def __init__(self, settings, parts, handler):
        self.settings = settings
        self.parts = parts
        self.handler = handler
        self.updater = ProfileUpdater(parts.profiles, parts.vectors, parts.horizons, parts.limits, capacity=99)

    async def take(self, topic, *events, first=0, key=None):
        """Handles records, and notes how far the store covers the log."""
        records = [
            Record(
                topic=f"shop.{topic}",
                partition=0,
                offset=first + number,
                timestamp=NOW,
                key=key,
                value=None if event is None else msgspec.msgpack.encode(event),
            )
            for number, event in enumerate(events)
        ]
        await self.handler.handle(Batch(topic=f"shop.{topic}", records=records, assignments={0: 1}))
        await self.covers(content, topic, first + len(events))

    async def like(self, user, item_id, number):
        """A user likes an item: the store has it, and says so."""
        await self.updater.apply({user: [Signal(NOW + number, f"{user}-{number}", item_id, Action.LIKE, 2.0)]})
        await self.covers(interest, "clicks", number + 1)

    async def covers(self, lane, topic, offset):
        """Notes a position."""
        layout = {content: self.parts.items.layout, interest: self.parts.profiles.layout}[lane]
        positions = Positions(self.parts.store, layout.name, f"shop.{lane.GROUP}")
        await positions.save({(f"shop.{topic}", 0): Position(topic_id="t", next_offset=offset)})

    async def position(self, lane, topic):
        """The position of a topic's first partition."""
        layout = {content: self.parts.items.layout, interest: self.parts.profiles.layout}[lane]
        source = (f"shop.{topic}", 0)
        found = await Positions(self.parts.store, layout.name, f"shop.{lane.GROUP}").load([source])
        return found[source].next_offset

    async def items(self):
        """All items by id, with their vectors."""
        return {one.item.item_id: one async for one in self.parts.items.all()}

    async def profiles(self):
        """All profiles by user."""
        return {one.user: one async for one in self.parts.profiles.all()}


@asynccontextmanager
async def running(settings):
    """A store's parts, as a worker has them."""
    parts = build_parts(settings)
    await parts.open()
    await parts.remade.claim()
    try:
        async with Embedder(settings.encoders) as embedder, MediaReader(settings.encoders) as media:
            keeper = EntityKeeper(parts.entities, parts.places, settings.fusion.graph_dimension)
            reader = Reader(parts.identity, settings.profile)
            yield Run(settings, parts, ContentHandler(settings, reader, embedder, parts.items, keeper, media=media))
    finally:
        await parts.store.close()


async def filled(settings, media):
    """A store with a catalogue, posts, uploads, searches, something withdrawn, and users who like some of it."""
    async with running(settings) as run:
        films = [
            Item(item_id=f"film-{number}", title=f"Film {number}", text=f"of kind {number % 3}") for number in range(9)
        ]
        seen = [
            Item(
                item_id=colour,
                title=f"A {colour} thing",
                media=(Media(kind="image", uri=f"file://{media}/{colour}.png"),),
            )
            for colour in ("red", "green")
        ]
        gone = Item(item_id="gone", title="Soon withdrawn", text="and still liked")
        await run.take("items", *films, *seen, gone)
        await run.take("items", None, first=12, key=b"gone")
        await run.take(
            "posts",
            Post(event_id="p", user_id="ada", text="a poem on red things", tags=("verse",)),
            Post(event_id="s", user_id="ada", text="old maps", recommendable=False),
        )
        blue = MediaUpload(event_id="u", user_id="bea", kind="image", uri=f"file://{media}/blue.png", caption="blue")
        await run.take("media-uploads", blue)
        poem, search = (run.parts.identity.own_item("ada", name) for name in "ps")
        liked = {"ada": ["film-1", "red", "gone", poem, search, "not-there-yet"], "bea": ["film-2", "green", "film-1"]}
        for user, item_ids in liked.items():
            for number, item_id in enumerate(item_ids):
                await run.like(user, item_id, number)
        await run.parts.graph.add(Fact("m.1", "is", "m.2"), (NOW, 1))
        transition = Transition(item_id="film-1", at=NOW, previous=(("red", 0.9),), origin=("shop.clicks", 0), offset=3)
        await run.parts.rows.apply({"film-1": [transition]})


async def compare(found, expected, *, without=()):
    """Two stores hold the same items and profiles."""
    items, others = await found.items(), await expected.items()
    assert items.keys() == others.keys()
    for item_id in items.keys() - set(without):
        one, other = items[item_id], others[item_id]
        assert msgspec.structs.replace(one.item, placed=None) == msgspec.structs.replace(other.item, placed=None)
        assert (one.vector is None) == (other.vector is None)
        if one.vector is not None:
            np.testing.assert_allclose(one.vector, other.vector, rtol=0, atol=1e-6)
    profiles, others = await found.profiles(), await expected.profiles()
    assert profiles.keys() == others.keys()
    for user, one in profiles.items():
        assert (one.state, one.told, one.awaits) == (others[user].state, others[user].told, others[user].awaits)
        for name in ("short", "long", "interest"):
            np.testing.assert_allclose(getattr(one, name), getattr(others[user], name), rtol=0, atol=1e-6)


async def test_the_new_store_is_that_of_a_fresh_run(settings, media):
    """Items listed, private and withdrawn, searches and uploads, profiles, rows, facts and positions: all are there."""
    old, new, fresh = settings("old"), settings("new", LARGE), settings("fresh", LARGE)
    await filled(old, media)
    await filled(fresh, media)
    summary = await asyncio.to_thread(reindex, old, new)
    assert (summary.embedded, summary.taken) == (("text",), ("image", "audio"))
    assert (summary.tally.items, summary.tally.profiles, summary.tally.passes) == (15, 2, 1)
    assert not summary.tally.unavailable
    async with running(new) as found, running(fresh) as expected:
        await compare(found, expected)
        assert not (await found.items())["gone"].item.listed
        assert {row.item_id: row.count async for row in found.parts.rows.all()} == {"film-1": 1}
        assert await found.parts.graph.count() == 1
        assert [await found.position(content, topic) for topic in ("items", "posts")] == [13, 2]
        assert await found.position(interest, "clicks") == 3
        assert {user: one.version for user, one in (await found.profiles()).items()} == {"ada": 6, "bea": 3}
    assert not list(new.data_dir.glob("reindex-*"))


async def test_a_slice_whose_encoder_is_the_same_is_taken_over_bit_for_bit(settings, media):
    """Pictures are not read again: they might be gone by now."""
    old, new = settings("old"), settings("new", LARGE)
    await filled(old, media)
    for file in media.iterdir():
        file.unlink()
    assert not (await asyncio.to_thread(reindex, old, new)).tally.unavailable
    async with running(old) as before, running(new) as after:
        bounds = [run.parts.space.bounds()["image"] for run in (before, after)]
        items = await before.items(), await after.items()
        for colour in ("red", "green"):
            vectors = [items[side][colour].vector[bounds[side]] for side in range(2)]
            assert vectors[0].any()
            np.testing.assert_array_equal(*vectors)


async def test_what_cannot_be_had_again_is_told_and_the_rest_counts(settings, media):
    """Inline pictures and references that have gone: the text is there, and the record, read again, makes all whole."""
    changes = {"encoders": {"image": {"kind": "histogram"}}}
    old, new, fresh = settings("old"), settings("new", **changes), settings("fresh", **changes)
    inline = Item(item_id="inline", title="A red square", media=(Media(kind="image", data=picture("red")),))
    corrupt = Item(item_id="corrupt", title="Never a picture", media=(Media(kind="image", data=b"no picture"),))
    for store in (old, fresh):
        await filled(store, media)
        async with running(store) as run:
            await run.take("items", inline, corrupt, first=13)
    (media / "red.png").unlink()
    summary = await asyncio.to_thread(reindex, old, new)
    assert (summary.embedded, summary.taken) == (("image",), ("text", "audio"))
    assert summary.tally.unavailable == {"image-inline": 1, "image-not-found": 1}
    async with running(new) as found, running(fresh) as expected:
        items = await found.items()
        assert [items[name].item.modalities for name in ("inline", "red", "green")] == [
            ("text",),
            ("text",),
            ("text", "image"),
        ]
        assert items["corrupt"].item.refused == (await expected.items())["corrupt"].item.refused
        await found.take("items", inline, first=13)
        (media / "red.png").write_bytes(picture("red"))
        seen = Item(item_id="red", title="A red thing", media=(Media(kind="image", uri=f"file://{media}/red.png"),))
        await found.take("items", seen, first=9)
        for user in USERS:
            await found.updater.apply({user: []})
        await compare(found, expected)


async def test_what_came_back_is_had_at_the_next_run(settings, media):
    """A reference that leads somewhere again is followed, also where something else is lost for good."""
    changes = {"encoders": {"image": {"kind": "histogram"}}}
    old, new = settings("old"), settings("new", **changes)
    both = (Media(kind="image", uri=f"file://{media}/blue.png"), Media(kind="image", data=picture("red")))
    async with running(old) as run:
        await run.take("items", Item(item_id="both", title="Two", media=both))
    (media / "blue.png").rename(media / "hidden.png")
    assert (await asyncio.to_thread(reindex, old, new)).tally.unavailable == {"image-inline": 1, "image-not-found": 1}
    (media / "hidden.png").rename(media / "blue.png")
    assert (await asyncio.to_thread(reindex, old, new)).tally.unavailable == {"image-inline": 1}
    async with running(new) as run:
        assert (await run.items())["both"].item.modalities == ("text", "image")


KILLED = """
import os, signal, sys
from pathlib import Path
from penchant.reindex import reindex
from penchant.reindex.items import is_better, is_news
from penchant.settings import load_settings

def progress(what, done, total):
    if what == "embedding items":
        os.kill(os.getpid(), signal.SIGKILL)

reindex(*(load_settings(Path(name)) for name in sys.argv[1:]), progress=progress)
"""


async def test_half_a_store_is_refused_and_the_next_run_goes_on(settings, media, tmp_path):
    """A run that is killed in the middle leaves nothing that a worker would take, and nothing is embedded twice."""
    old, new, fresh = settings("old"), settings("new", LARGE), settings("fresh", LARGE)
    await filled(old, media)
    await filled(fresh, media)

    names = [tmp_path / f"{name}.toml" for name in ("old", "new")]
    for file, side in zip(names, (old, new), strict=True):
        file.write_text(
            f'namespace = "shop"\ndata_dir = "{side.data_dir}"\n[encoders]\nmedia_roots = ["{media}"]\n'
            f'[encoders.text]\nkind = "hashing"\ndimension = {side.encoders.text.dimension}\n'
        )
    command = [sys.executable, "-c", KILLED, *map(str, names)]
    killed = await asyncio.to_thread(subprocess.run, command, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(new.data_dir.glob("reindex-*"))
    with pytest.raises(HalfMade, match="half made"):
        await build_parts(new).open()
    summary = await asyncio.to_thread(reindex, old, new)
    assert (summary.tally.items, summary.tally.profiles) == (0, 2)
    assert not list(new.data_dir.glob("reindex-*"))
    async with running(new) as found, running(fresh) as expected:
        await compare(found, expected)


async def test_another_run_brings_a_store_up_to_date_that_nobody_has_used(settings, media):
    """Only what has changed since is embedded, and the new store covers as much of the log as the old one."""
    old, new, fresh = settings("old"), settings("new", LARGE), settings("fresh", LARGE)
    await filled(old, media)
    await filled(fresh, media)
    await asyncio.to_thread(reindex, old, new)
    for store in (old, fresh):
        async with running(store) as run:
            await run.take("items", Item(item_id="film-1", title="Film 1, as it was meant"), first=13)
            await run.take("items", Item(item_id="not-there-yet", title="There"), first=14)
            await run.like("ada", "film-1", 6)
    summary = await asyncio.to_thread(reindex, old, new)
    assert summary.tally.items == 2
    async with running(new) as found, running(fresh) as expected:
        for user in USERS:  # an edit reaches a profile when it is written next, and here both are
            await expected.updater.apply({user: []})
        await compare(found, expected)
        assert await found.position(content, "items") == 15
        assert await found.position(interest, "clicks") == 7


async def test_a_store_that_was_used_is_left_alone(settings, media):
    """Whoever has worked on it has gone further; and one that was filled by itself is nobody's copy."""
    old, new = settings("old"), settings("new", LARGE)
    await filled(old, media)
    await asyncio.to_thread(reindex, old, new)
    async with running(new) as run:
        await run.like("ada", "film-5", 6)
        before = await run.profiles()
    with pytest.raises(InUse):
        await asyncio.to_thread(reindex, old, new)
    async with running(new) as run:
        assert {user: one.token for user, one in (await run.profiles()).items()} == {
            user: one.token for user, one in before.items()
        }
    other = settings("other", LARGE)
    await filled(other, media)
    with pytest.raises(InUse):
        await asyncio.to_thread(reindex, old, other)


async def test_a_store_that_a_worker_has_opened_is_left_alone(settings, media):
    """Also where it has done nothing yet: what it takes in next would be written over. Nor is it called half made."""
    old, new, early = settings("old"), settings("new", LARGE), settings("early", LARGE)
    await filled(old, media)
    await asyncio.to_thread(reindex, old, new)
    for store in (new, early):
        async with running(store):
            pass
        with pytest.raises(InUse):
            await asyncio.to_thread(reindex, old, store)
        async with running(store):
            pass


async def test_a_run_that_cannot_begin_changes_nothing(settings, media):
    """Where the old store is gone, the new one stays what it was."""
    old, new = settings("old"), settings("new", LARGE)
    await filled(old, media)
    await asyncio.to_thread(reindex, old, new)
    old.data_dir.rename(old.data_dir.with_name("elsewhere"))
    with pytest.raises(ConfigurationError):
        await asyncio.to_thread(reindex, old, new)
    async with running(new) as run:
        assert await run.profiles()


def test_a_newer_version_is_news_however_near_it_stands():
    """Two records of one millisecond stand side by side in the log; and another try replaces what found less."""
    first = StoredItem(item_id="a", version=(5, 5, 5), listed=True, text="one", modalities=("text", "image"))
    second = msgspec.structs.replace(first, version=(5, 5, 6), text="two")
    known = Stored(item=first, vector=None, token=1)
    assert is_news(second, known)
    assert not is_news(first, known)
    assert is_better(msgspec.structs.replace(second, version=first.version, modalities=("text",)), known)
    again = msgspec.structs.replace(first, modalities=("text",))
    assert not is_better(again, known)
    assert is_better(first, Stored(item=again, vector=None, token=1))


async def test_a_catalogue_that_is_large_enough_is_calibrated(settings, media):
    """The first list of the new worker is as good as the last of the old one."""
    sections = {"recommend": {"calibrate_at": 10}}
    old, new = (
        settings("old", {"kind": "hashing", "dimension": 16}),
        settings("new", {"kind": "hashing", "dimension": 17}),
    )
    old, new = (
        one.model_copy(update={"recommend": one.recommend.model_copy(update=sections["recommend"])})
        for one in (old, new)
    )
    async with running(old) as run:
        films = [
            Item(item_id=f"film-{number}", title=f"Film {number} of {number % 7} and {number % 5}")
            for number in range(50)
        ]
        await run.take("items", *films)
    summary = await asyncio.to_thread(reindex, old, new)
    async with running(new) as run:
        known = await run.parts.calibrations.known()
    assert summary.calibration == known.fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The new store is the old one"),
        ({"data_dir": "new", "namespace": "else"}, "namespace"),
        ({"data_dir": "new", "id_key": "another"}, "id_key"),
        ({"data_dir": "new", "profile": {"seen_bits": 64}}, "seen_bits"),
    ],
)
def test_what_cannot_be_made_of_the_other_is_refused(changes, said):
    """Before anything is read or written."""
    with pytest.raises(ConfigurationError, match=said):
        sides_of(load_settings(data_dir="old"), load_settings(**{"data_dir": "old", **changes}))


def test_generations_on_one_server_share_what_no_encoder_fills():
    """Another server, or another port of it, is another store, with copies of its own."""
    url = {"url": "http://qdrant:6333"}
    old = load_settings(store=url)
    assert sides_of(old, load_settings(store={"url": "http://qdrant:6333/", "generation": "v2"})).shared
    assert not sides_of(old, load_settings(store={**url, "grpc_port": 7334})).shared
    assert not sides_of(load_settings(), old).shared
    with pytest.raises(ConfigurationError, match="generation"):
        sides_of(old, load_settings(store=url, data_dir="other"))


async def test_settings_that_are_not_those_of_the_old_store_are_refused(settings, media):
    """Vectors must not be taken for those of other encoders."""
    await filled(settings("old"), media)
    with pytest.raises(ConfigurationError, match="--from does not describe"):
        await asyncio.to_thread(reindex, settings("old", LARGE), settings("new", LARGE))


@pytest.fixture
def engine(tmp_path):
    """The engine behind Qdrant's protocol, in a process of its own."""
    with Engine(tmp_path / "engine") as started:
        yield started


async def test_a_new_generation_on_the_same_server(settings, media, engine):
    """The old one serves on beside it; rows and facts are the same collections, and stay as they are."""
    server = {"url": engine.url, "grpc_port": engine.port}
    old, new = settings("old", store=server), settings("new", LARGE, store={**server, "generation": "v2"})
    fresh = settings("fresh", LARGE)
    await filled(fresh, media)
    await filled(old, media)
    async with running(old) as before:
        summary = await asyncio.to_thread(reindex, old, new)
        assert (summary.tally.items, summary.tally.profiles) == (15, 2)
        await before.like("ada", "film-7", 6)
        again = await asyncio.to_thread(reindex, old, new)
        assert (again.tally.items, again.tally.profiles) == (0, 1)
        async with running(new) as found, running(fresh) as expected:
            await expected.like("ada", "film-7", 6)
            await compare(found, expected)
            assert {row.item_id: row.count async for row in found.parts.rows.all()} == {"film-1": 1}
    with pytest.raises(LayoutMismatch, match="penchant reindex"):
        await build_parts(settings("old", LARGE, store=server)).open()


async def test_from_the_embedded_store_to_a_server(settings, media, engine):
    """Everything moves: rows and facts are copied, too."""
    old = settings("old")
    new = settings("new", LARGE, store={"url": engine.url, "grpc_port": engine.port})
    fresh = settings("fresh", LARGE)
    await filled(old, media)
    await filled(fresh, media)
    await asyncio.to_thread(reindex, old, new)
    async with running(new) as found, running(fresh) as expected:
        await compare(found, expected)
        assert {row.item_id: row.count async for row in found.parts.rows.all()} == {"film-1": 1}
        assert await found.parts.graph.count() == 1
