"""Subscribers: the recommendations as they are published, typed; synchronous and asynchronous.

with Subscriber(users=["ada"]) as lists:
for recommended in lists:
print([item.item_id for item in recommended.items])
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import structlog

from penchant.settings import Settings
from penchant.streams.client import SLICE_S, resolve
from penchant.streams.codec import Unusable, decode
from penchant.streams.events import Recommendations
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Record
from penchant.streams.topics import Topic

__all__ = ["AsyncSubscriber", "Subscriber"]

log = structlog.get_logger("penchant.client")


class Lists:
    """What both subscribers are: a reader of recommendations, and which users' to give.

    Args:
        settings: of penchant; by default from `penchant.toml` and `PENCHANT_*`.
        bootstrap_servers: overrides the settings' brokers.
        namespace: overrides the settings' namespace.
        users: whose lists to give; empty: everybody's. `ANYONE` has the list for whoever is not known yet.
        from_beginning: first give what the topic holds: every user's newest list, and older ones that have
            not been compacted away yet. Of one user the last one given is in force.
        group: share the lists with other members of this consumer group, and go on after a restart where the
            group left off; a list is done when the next one is asked for. "": an onlooker, who sees all.
        timeout_s: end the iteration when no list has come for so long; None: never.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap_servers: str | None = None,
        namespace: str | None = None,
        users: Collection[str] = (),
        from_beginning: bool = False,
        group: str = "",
        timeout_s: float | None = None,
    ) -> None:
        self.reader = TopicReader(
            resolve(settings, bootstrap_servers, namespace),
            Topic.RECOMMENDATIONS,
            group=group,
            from_beginning=from_beginning,
        )
        self.keys = frozenset(user.encode() for user in users)
        self.group = group
        self.timeout_s = timeout_s
        self.records: deque[Record] = deque()
        self.current: Record | None = None
        self.stopping = threading.Event()

    def stop(self) -> None:
        """Ends the iteration soon; may be called from any thread."""
        self.stopping.set()

    @property
    def caught_up(self) -> bool:
        """Whether everything that the topic held has been read (without a group)."""
        return self.reader.caught_up and not self.records

    def pop(self) -> Recommendations | None:
        """The next list among the records at hand."""
        if self.current is not None and self.group:
            self.reader.done(self.current)
            self.current = None  # marked once: a mark may not meet a read under way
        while self.records:
            self.current = self.records.popleft()
            if (found := self.parse(self.current)) is not None:
                return found
        return None

    def parse(self, record: Record) -> Recommendations | None:
        """A record's list, if it is one and of a user asked for."""
        if record.value is None or (self.keys and record.key not in self.keys):
            return None
        try:
            return decode(Recommendations, record.value, record.headers)
        except Unusable as error:
            log.warning("list skipped", partition=record.partition, offset=record.offset, reason=error.reason)
            return None

    def deadline(self) -> float:
        """When the iteration ends if no list comes, on the monotonic clock."""
        return float("inf") if self.timeout_s is None else time.monotonic() + self.timeout_s

    def ended(self, deadline: float) -> bool:
        """Whether the iteration should end now."""
        return self.stopping.is_set() or time.monotonic() >= deadline


class Subscriber(Lists):
    """Yields recommendations as they are published; a context manager and an iterator."""

    def __enter__(self) -> Self:
        """Connects; lists published from here on are seen.

        Raises:
            BrokerUnavailable: the broker does not answer.
            ConfigurationError: the broker refuses, or the topic is missing.
        """
        self.reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnects."""
        self.reader.__exit__(kind, error, traceback)

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> Recommendations:
        """The next list; ends after `timeout_s` without one, or after `stop`."""
        deadline = self.deadline()
        while (found := self.pop()) is None:
            if self.ended(deadline):
                raise StopIteration
            self.records.extend(self.reader.read(SLICE_S))
        return found


class AsyncSubscriber(Lists):
    """Yields recommendations as they are published; an asynchronous context manager and iterator.

    Waiting for the next list may be cancelled, by `asyncio.wait_for` for instance, without losing one.
    """

    async def __aenter__(self) -> Self:
        """Connects; raises as `Subscriber` does."""
        # One thread: a consumer must not be closed while it reads.
        self.thread = ThreadPoolExecutor(1, "penchant-subscriber")
        self.pending: Future[list[Record]] | None = None
        try:
            await asyncio.wrap_future(self.thread.submit(self.reader.__enter__))
        except BaseException:
            self.thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnects."""
        await asyncio.wrap_future(self.thread.submit(self.reader.__exit__, kind, error, traceback))
        self.thread.shutdown(wait=False)

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> Recommendations:
        """The next list; ends after `timeout_s` without one, or after `stop`."""
        deadline = self.deadline()
        while (found := self.pop()) is None:
            if self.ended(deadline):
                raise StopAsyncIteration
            # A read that outlives its cancelled caller is the next caller's.
            self.pending = self.pending or self.thread.submit(self.reader.read, SLICE_S)
            records = await asyncio.shield(asyncio.wrap_future(self.pending))
            self.pending = None
            self.records.extend(records)
        return found
