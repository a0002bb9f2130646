"""penchant as it serves: profiles, rows, candidates and lists by the very parts of a worker, on a store of its own.

The other lines of the table rank the whole catalogue. Here an item is only found where a list of `recommend.count`
names it, so ranks beyond that, and whatever is computed from them, say nothing. Two lists are judged:

- *as published*: made when the user's event before was taken in, as of that moment, as it stands on the topic;
- *as asked for*: made when the probe's event is about to happen, as a worker answers who asks, which knows how long
  the user has been away.

Weights are those that ranking starts from, and what settings pin.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event
from penchant.evaluation.stream import UNKNOWN_TIME, Stream
from penchant.parts import build_parts
from penchant.profile.affinity import Positive, Transition, is_positive
from penchant.profile.fusion import GRAPH, Space, space_of
from penchant.profile.items import Item
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.signals import Action, Signal
from penchant.profile.told import telling_of
from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings, StoreSettings

__all__ = ["AS_ASKED", "AS_PUBLISHED", "Served"]

AS_PUBLISHED, AS_ASKED = "penchant as published", "penchant as asked for"
ORIGIN = ("stream", 0)
PUT = 256  # items at a time

Vectors = NDArray[np.float32]


class Served:
    """A worker's parts, played a stream.

    Args:
        stream: that will be played; for its names and its catalogue.
        slices: by name, the items' unit vectors as encoders and graph give them, shape (m, d); zeros where absent.
        calibration: of them; none is used while the catalogue is smaller than the settings want it to be.
        settings: of penchant.
        probes: which events will be ranked: of each, the event before it of its user is when a list is published.
    """

    names = (AS_PUBLISHED, AS_ASKED)

    def __init__(
        self,
        stream: Stream,
        slices: Mapping[str, Vectors],
        calibration: Calibration,
        settings: Settings,
        probes: NDArray[np.int64],
    ) -> None:
        self._stream = stream
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="penchant-")
        beside = settings.model_copy(update={"store": StoreSettings(), "data_dir": Path(self._folder.name)})
        self._parts = build_parts(beside, space_for(slices, settings), clock=lambda: self._now)
        self._updater = ProfileUpdater(
            self._parts.profiles,
            self._parts.vectors,
            self._parts.horizons,
            self._parts.limits,
            capacity=settings.profile.cached_profiles,
        )
        if stream.listed.sum() >= settings.recommend.calibrate_at:
            self._parts.ranker.calibrate(calibration)
        self._published_at = before_each(stream, probes)
        self._published: dict[int, list[str]] = {}
        self._pending: list[Event] = []
        self._now = 0.0  # of the stream, seconds
        self._slices = slices
        self._times = came_up(stream)
        self._coming = np.argsort(self._times, kind="stable")  # codes of those that are not in the store yet
        self._loop.run_until_complete(self._parts.open())

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> Vectors:
        """By how far up an item is on the list: its places counted from below; 0 where it is not there."""
        self._take_in()
        lists = (self._published.get(event.user, []), self._list(event.user, event.time))
        found = np.zeros((len(lists), len(unseen)), np.float32)
        for row, items in zip(found, lists, strict=True):
            places = {item: len(items) - place for place, item in enumerate(items)}
            row[:] = [places.get(self._stream.items[code], 0) for code in unseen]
        return found

    def learn(self, event: Event) -> None:
        """Takes the event in, at the latest when a list is next made."""
        if event.index not in self._published_at:
            self._pending.append(event)
            return
        self._take_in()
        # The list goes out with the transition that the event makes, so it cannot know of it yet.
        transitions = self._loop.run_until_complete(self._apply([event]))
        self._published[event.user] = self._list(event.user, event.time)
        self._loop.run_until_complete(self._count(transitions))

    def close(self) -> None:
        """Lets go of the store, and removes it."""
        self._loop.run_until_complete(self._parts.store.close())
        self._loop.close()
        self._folder.cleanup()

    async def _put(self, until_ms: float) -> None:
        """Puts what has come up by a moment into the store, as the content lane would have."""
        count = int(np.searchsorted(self._times[self._coming], until_ms, "right"))
        due, self._coming = self._coming[:count], self._coming[count:]
        for start in range(0, len(due), PUT):
            contents = [self._content(int(code)) for code in due[start : start + PUT]]
            await self._parts.items.put(contents)

    def _content(self, code: int) -> tuple[Item, Vectors | None]:
        """An item as it is stored."""
        content = self._parts.space.fuse({name: vectors[code] for name, vectors in self._slices.items()})
        listed = bool(self._stream.listed[code]) and content is not None
        return Item(item_id=self._stream.items[code], version=(int(self._times[code]), 0, 0), listed=listed), content

    def _list(self, user: int, now_ms: int) -> list[str]:
        """What a worker would recommend to a user at a moment: item ids, best first."""
        self._now = now_ms / 1_000
        self._loop.run_until_complete(self._put(now_ms))
        return self._loop.run_until_complete(self._ranked(self._stream.users[user], now_ms))

    async def _ranked(self, user: str, now_ms: int) -> list[str]:
        known = await self._updater.read([user])
        [ranked] = await self._parts.ranker.rank([known.get(user) or self._parts.profiles.empty(user)], [now_ms])
        return [item.item_id for item in ranked.items]

    def _take_in(self) -> None:
        """Applies what has happened since the last time to profiles and rows."""
        events, self._pending = self._pending, []
        transitions = self._loop.run_until_complete(self._apply(events))
        self._loop.run_until_complete(self._count(transitions))

    async def _apply(self, events: Sequence[Event]) -> Sequence[Transition]:
        """Merges events into profiles; gives the transitions that they make."""
        signals: dict[str, list[Signal]] = {}
        tellings: dict[str, list[Positive]] = {}
        for event in events:
            user = self._stream.users[event.user]
            item = self._stream.items[event.item]
            signal = Signal(event.time, f"{event.index:012}", item, Action.RATE, event.weight)
            signals.setdefault(user, []).append(signal)
            if is_positive(signal):
                tellings.setdefault(user, []).append(Positive(signal, telling_of(signal, ORIGIN, event.index)))
        return (await self._updater.apply(signals, tellings)).told(attrgetter("transition"))

    async def _count(self, transitions: Sequence[Transition]) -> None:
        """Adds transitions to their items' rows."""
        by_item: dict[str, list[Transition]] = {}
        for transition in transitions:
            by_item.setdefault(transition.item_id, []).append(transition)
        await self._parts.rows.apply(by_item)


def space_for(slices: Mapping[str, Vectors], settings: Settings) -> Space:
    """The space of a catalogue's slices, with the settings' shares."""
    dimensions = {name: vectors.shape[1] for name, vectors in slices.items()}
    return space_of(
        {name: dimension for name, dimension in dimensions.items() if name != GRAPH},
        dict.fromkeys(slices, "evaluated"),
        settings.fusion.shares,
        graph_dimension=dimensions.get(GRAPH, 0),
    )


def came_up(stream: Stream) -> NDArray[np.int64]:
    """When items came up, epoch milliseconds: with the stream's first event where nobody knows; shape (m,)."""
    begin = int(stream.time[0]) if len(stream) else 0
    if stream.released is None:
        return np.full(len(stream.items), begin)
    return np.where(stream.released == UNKNOWN_TIME, begin, stream.released)


def before_each(stream: Stream, probes: NDArray[np.int64]) -> frozenset[int]:
    """The index of each probe's last event before it of the same user, where there is one."""
    wanted = set(probes.tolist())
    newest: dict[int, int] = {}
    found = set()
    for index, user in enumerate(stream.user.tolist()):
        if index in wanted and user in newest:
            found.add(newest[user])
        newest[user] = index
    return frozenset(found)
