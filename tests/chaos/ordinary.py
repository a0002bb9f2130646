"""The ordinary agent: what a stream of clicks is usually handled with, for comparison with penchant.

A Faust agent that, for each click, reads the user's point, appends the event, moves the vector to the item's side
(`u = 0.6 u + 0.4 x`), writes the point back, and publishes. Faust acknowledges what the agent has done with, commits
every few seconds (its default) and stops in order on SIGTERM. Nothing in it is wrong where nothing fails: one process,
one event at a time, a store that loses nothing that it has acknowledged. It only knows no event again, and its store
and its offsets are not written together.

    python -m tests.chaos.ordinary --bootstrap HOST:PORT --topic CLICKS --data FOLDER

`tally` says afterwards what became of what was sent.
"""

import argparse
import asyncio
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import faust
import numpy as np
from msgspec import Struct

from penchant.profile.store.base import CollectionLayout, Point, SearchFilter, Vector
from penchant.profile.store.edge import EdgeStore
from penchant.streams.codec import decode
from penchant.streams.events import Click
from tests.chaos.child import Child

__all__ = ["Ordinary", "Tally", "compare", "group_of", "interests_of", "stored_events", "tally"]

ROOT = Path(__file__).resolve().parents[2]
DIMENSION = 16
KEPT = 0.6  # of the vector, at each event
LAYOUT = CollectionLayout(name="users", vectors={"interest": DIMENSION}, indexes={}, fingerprint="ordinary")
WEIGHTS = {
    "view": 0.5, "skip": -0.3, "like": 2.0, "share": 3.0, "save": 2.0, "purchase": 4.0, "dislike": -2.0, "hide": -3.0,
}  # fmt: skip


class Tally(Struct, frozen=True, kw_only=True):
    """What became of events.

    Attributes:
        events: that were sent; one sent twice is one.
        lost: of them, those that count nowhere.
        double: of them, those that count more than once.
    """

    events: int
    lost: int
    double: int


class Ordinary(Child):
    """The agent's process, as its harness sees it: started, killed and started again on the same folder.

    Args:
        bootstrap: of the broker, host:port.
        topic: of the clicks.
        folder: of its store and its log.
    """

    def __init__(self, bootstrap: str, topic: str, folder: Path) -> None:
        super().__init__(folder)
        self.bootstrap = bootstrap
        self.topic = topic

    @property
    def log_file(self) -> Path:
        """Where it complains."""
        return self.folder / "ordinary.log"

    def start(self) -> None:
        """Starts it, and does not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = [f"--bootstrap={self.bootstrap}", f"--topic={self.topic}", f"--data={self.folder}"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.ordinary", *told],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def tally(folder: Path, sent: Mapping[str, Collection[str]]) -> Tally:
    """Compares what an agent that has ended left in its folder with what was sent.

    Args:
        folder: the agent's.
        sent: ids of the events by user.
    """
    return compare(asyncio.run(stored_events(folder)), sent)


def compare(stored: Mapping[str, Iterable[str]], sent: Mapping[str, Collection[str]]) -> Tally:
    """Counts what is missing and what is there too often.

    Args:
        stored: ids of the events by user, as often as they count.
        sent: ids of the events by user.
    """
    counts = {user: Counter(events) for user, events in stored.items()}
    times = [counts.get(user, Counter())[event] for user, events in sent.items() for event in set(events)]
    return Tally(events=len(times), lost=times.count(0), double=sum(number > 1 for number in times))


async def stored_events(folder: Path) -> dict[str, list[str]]:
    """The ids of the events that count, by user, as often as they do; only while no agent runs."""
    store = EdgeStore(folder / "store")
    await store.open([LAYOUT])
    try:
        return {
            point.payload["user"]: [event for event, _ in point.payload["events"]]
            async for point in store.scroll(LAYOUT.name, SearchFilter())
        }
    finally:
        await store.close()


def group_of(topic: str) -> str:
    """The agent's consumer group."""
    return f"{topic}-ordinary"


def interests_of(topic: str) -> str:
    """The topic that the agent publishes to, of one partition."""
    return f"{group_of(topic)}-interests"


class Users:
    """The users' points.

    Args:
        store: opened with `LAYOUT`.
    """

    def __init__(self, store: EdgeStore) -> None:
        self._store = store

    async def update(self, click: Click) -> Vector:
        """Reads the user's point, changes it and writes it back; gives the new vector, shape (16,)."""
        name = point_of(click.user_id)
        found = await self._store.retrieve(LAYOUT.name, [name], vectors=("interest",))
        events: list[Any] = found[name].payload["events"] if name in found else []
        interest = found[name].vectors["interest"] if name in found else np.zeros(DIMENSION, np.float32)
        events.append([click.event_id, WEIGHTS.get(click.action, 1.0)])
        interest = (KEPT * interest + (1 - KEPT) * item_vector(click.item_id)).astype(np.float32)
        payload = {"user": click.user_id, "events": events}
        await self._store.put(LAYOUT.name, [Point(id=name, payload=payload, vectors={"interest": interest})])
        return interest


def point_of(user: str) -> UUID:
    """The id of a user's point."""
    return uuid5(NAMESPACE_OID, user)


def item_vector(item: str) -> Vector:
    """Stands for what an encoder says of an item: shape (16,), of unit length."""
    vector = np.random.default_rng(zlib.crc32(item.encode())).normal(size=DIMENSION)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def build_app(bootstrap: str, topic: str, folder: Path, store: EdgeStore) -> Any:
    """The Faust application with its one agent."""
    app = faust.App(
        group_of(topic),
        broker=f"kafka://{bootstrap}",
        datadir=str(folder / "faust"),
        autodiscover=False,
        broker_session_timeout=6.0,  # a crash is noticed after this, not after the default's minute
        broker_heartbeat_interval=2.0,
        topic_disable_leader=True,
        web_enabled=False,
    )
    clicks = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    interests = app.topic(interests_of(topic), key_type=str, value_serializer="json", partitions=1, internal=True)
    users = Users(store)

    @app.agent(clicks, name="ordinary")  # type: ignore[untyped-decorator]  # faust ships no types
    async def follow(stream: Any) -> None:
        await store.open([LAYOUT])
        await interests.maybe_declare()
        async for value in stream:
            click = decode(Click, value)
            interest = await users.update(click)
            await interests.send(
                key=click.user_id,
                value={"user_id": click.user_id, "interest": interest.tolist(), "because": click.event_id},
            )

    return app


def run(bootstrap: str, topic: str, folder: Path) -> None:
    """Runs the agent until SIGTERM or SIGINT."""
    store = EdgeStore(folder / "store")
    app = build_app(bootstrap, topic, folder, store)
    try:
        faust.Worker(app, loglevel="WARN", redirect_stdouts=False).execute_from_commandline()
    finally:
        asyncio.run(store.close())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follows clicks as an ordinary Faust agent does.")
    parser.add_argument("--bootstrap", required=True, help="host:port of the broker")
    parser.add_argument("--topic", required=True, help="of the clicks")
    parser.add_argument("--data", type=Path, required=True, help="folder")
    arguments = parser.parse_args()
    run(arguments.bootstrap, arguments.topic, arguments.data)
