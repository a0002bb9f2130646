"""A worker that fills a store from a real log and is verified on the way, and what a test does to a copy of that."""

import asyncio
import contextlib
import os
import random
import threading
import time

import msgspec
from typer.testing import CliRunner

from penchant.cli import app
from penchant.parts import build_parts
from penchant.profile.positions import Positions
from penchant.profile.store.edge_shard import copy_shards
from penchant.streams import interest
from penchant.streams.codec import Unusable, decode, encode
from penchant.streams.events import Click, Item, Post
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from penchant.verify import Kind, take_snapshot, verify

STRONG, WEAK = 12, 8
USERS, ITEMS, CLICKS, POSTS = 12, 20, 2_000, 24
HOUR_MS = 3_600_000


def items(stage):
    """A catalogue."""
    for number in range(ITEMS):
        item = Item(item_id=f"i{number}", title=f"thing number {number} of kind {number % 5}")
        yield Output(topic=stage.topic(Topic.ITEMS), key=item.item_id.encode(), value=encode(item))


def deeds(stage, count, chance, *, first=0):
    """Clicks of all kinds, out of order; some twice, some with an id used before, some on items that do not exist."""
    topic = stage.topic(Topic.CLICKS)
    now = time.time_ns() // 1_000_000
    for number in range(first, first + count):
        action = chance.choice(["view", "click", "skip", "like", "rate", "dislike", "purchase"])
        click = Click(
            event_id=f"e{chance.choice([number, number, number, chance.randint(first, number)])}",
            user_id=f"u{chance.randrange(USERS)}",
            item_id=f"i{chance.randrange(ITEMS + 2)}",
            action=action,
            value=chance.randint(1, 10) / 2 if action == "rate" else None,
            dwell_ms=chance.randrange(60_000) if action == "view" else None,
            at=now - chance.randrange(HOUR_MS),
        )
        for _ in range(chance.choice([1, 1, 1, 2])):
            yield Output(topic=topic, key=click.user_id.encode(), value=encode(click))
        if not number % 100:
            yield Output(topic=topic, key=b"u1", value=b"no click")


def posts(stage):
    """Posts, some of them searches."""
    for number in range(POSTS):
        user = f"u{number % USERS}"
        post = Post(event_id=f"p{number}", user_id=user, text=f"about {number}", recommendable=bool(number % 2))
        yield Output(topic=stage.topic(Topic.POSTS), key=user.encode(), value=encode(post))


def clicks(stage):
    """The clicks that the log has."""
    found = []
    for record in stage.read(Topic.CLICKS):
        with contextlib.suppress(Unusable):
            found.append(decode(Click, record.value, record.headers))
    return found


def beside(worker):
    """The settings of a command beside a running worker."""
    port = worker.settings.worker.model_copy(update={"http_port": worker.port})
    return worker.settings.model_copy(update={"worker": port})


class Played:
    """What a worker has left behind.

    Attributes:
        live: reports made while it worked and more was sent.
        settled: the report when it had read everything, and still ran.
        snapshot: a copy of its store, taken while it worked.
    """

    def __init__(self, stage, folder):
        self.stage = stage
        self.snapshot = folder / "store"
        chance = random.Random(5)
        moment = time.time_ns() // 1_000_000 - HOUR_MS
        stage.send(items(stage), timestamps=iter(lambda: moment, None))
        stage.send(posts(stage))
        stage.send(deeds(stage, CLICKS, chance))
        with stage.worker() as worker:
            worker.await_ready()
            settings = beside(worker)
            stage.await_settled(worker)
            sending = threading.Thread(target=self.trickle, args=(chance,))
            sending.start()
            take_snapshot(settings, self.snapshot)
            self.live = [verify(settings), verify(settings)]
            sending.join()
            stage.await_settled(worker)
            self.settled = verify(settings)
            assert worker.stop() == 0

    def trickle(self, chance):
        """Sends more, little by little."""
        for part in range(30):
            self.stage.send(deeds(self.stage, 100, chance, first=CLICKS + 100 * part))
            time.sleep(0.1)

    def copied(self, folder, source=None):
        """Settings for a copy of the store, or of the snapshot, that a test may spoil."""
        data = folder / "data"
        copy_shards(source or self.stage.settings.data_dir / "store", data / "store")
        return self.stage.settings.model_copy(update={"data_dir": data})


def files(folder):
    """The files of a folder: when each was last written, and how long it is."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@contextlib.asynccontextmanager
async def opened(settings):
    """The parts of a worker on a store, while the block lasts."""
    parts = build_parts(settings)
    await parts.open()
    try:
        yield parts
    finally:
        await parts.store.close()


def positions_in(parts, settings):
    """The positions that the profiles cover."""
    return Positions(parts.store, parts.profiles.layout.name, settings.prefixed(interest.GROUP))


def spoil(settings, user, change):
    """Writes a profile as `change` makes it of the one that stands; gives that one."""

    async def write():
        async with opened(settings) as parts:
            profile = (await parts.profiles.load([user]))[user]
            assert await parts.profiles.write([change(profile)])
            return profile

    return asyncio.run(write())


def with_strong(change):
    """Alters the strong signals of a profile, and leaves its vectors."""
    replace = msgspec.structs.replace
    return lambda profile: replace(profile, state=replace(profile.state, strong=tuple(change(profile.state.strong))))


def only(report):
    """The findings of the only user with whom something is wrong."""
    assert not report.exact
    (one,) = report.findings
    return one


def kinds(report):
    """Signals that are wrong, by kind."""
    return {kind.value: getattr(report, kind.value) for kind in Kind if getattr(report, kind.value)}


def run(settings, *words):
    """Runs a command in this process; of the environment it knows only the limits that the worker was told."""
    kafka = ["--bootstrap-servers", settings.kafka.bootstrap_servers]
    flags = ["--namespace", settings.namespace, "--data-dir", str(settings.data_dir), *kafka]
    told = {"PENCHANT_PROFILE__STRONG_LIMIT": str(STRONG), "PENCHANT_PROFILE__WEAK_LIMIT": str(WEAK)}
    environment = dict.fromkeys(name for name in os.environ if name.startswith("PENCHANT_")) | told
    return CliRunner().invoke(app, [*flags, *map(str, words)], env=environment)
