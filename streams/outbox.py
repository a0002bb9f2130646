"""What a lane owes, on its way: lists are made and published, with the offsets of the records that led to them.

    ledger ─► lists ─► publish and commit

A publication's lists are made while the one before is on its way: for several milliseconds that one waits for the
broker alone. They are published in order, and where one fails, what was made behind it is made again, for its offsets
count on those before.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from penchant.errors import Unavailable
from penchant.streams import metrics
from penchant.streams.backoff import Backoff
from penchant.streams.held import Held
from penchant.streams.ledger import Due, Ledger, Publication
from penchant.streams.member import Member
from penchant.streams.publish import Publisher, Refused, Revoked
from penchant.streams.records import Output

__all__ = ["Lists", "Outbox"]

log = structlog.get_logger()

IDLE_S = 0.5


class Lists(Protocol):
    """Makes lists."""

    async def refresh(self, due: Sequence[Due]) -> Sequence[Output]:
        """The lists of users that are due. May raise `Unavailable`, and is then called again."""


class Outbox:
    """One lane's debts on their way.

    Args:
        lane: its name.
        ledger: of the lane.
        lists: makes lists.
        publisher: publishes and commits.
        held: the lane's partitions.
        check: raises where those are not what they were when they were assigned.
        member: of the group, at the moment.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        lane: str,
        *,
        ledger: Ledger,
        lists: Lists,
        publisher: Publisher,
        held: Held,
        check: Callable[[], Awaitable[None]],
        member: Callable[[], Member],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane = lane
        self._ledger = ledger
        self._lists = lists
        self._publisher = publisher
        self._held = held
        self._check = check
        self._member = member
        self._clock = clock
        self._wake = asyncio.Event()
        self._draining = False
        self._over = False
        self._backoff = Backoff()

    def wake(self) -> None:
        """Has it looked whether anything is due."""
        self._wake.set()

    def drain(self) -> None:
        """Has what is owed published at once; `run` returns behind that, or as soon as the broker refuses it."""
        self._draining = True
        self._wake.set()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Publishes what is due, until drained; raises what cannot be healed by waiting.

        Args:
            tasks: in which publications are sent: it raises what ends them.
        """
        sending: asyncio.Task[bool] | None = None
        while True:
            await self._until_due()
            if sending is not None and sending.done():
                sending.result()  # raises what nothing is sent on top of
                sending = None
            if self._over:
                return
            publication = self._ledger.next(self._clock(), at_once=self._draining)
            if not publication:
                if self._draining and sending is None:
                    return
                continue
            revocations, started = self._held.revocations, self._clock()
            lists = await self._made(publication)
            if sending is not None and not await sending:
                continue  # this one was undone with that
            if lists is None:
                await asyncio.sleep(self._backoff.pause())
                self._undo()
                continue
            sending = tasks.create_task(self._send(publication, lists, revocations, started))
            self._wake.set()  # there may be more

    async def _until_due(self) -> None:
        wait = self._ledger.next_due() - self._clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(wait, 0), IDLE_S)):  # `wait_for` of 3.11 may swallow being cancelled
                await self._wake.wait()
        self._wake.clear()

    async def _made(self, publication: Publication) -> Sequence[Output] | None:
        """A publication's lists; None where that failed."""
        started = self._clock()
        try:
            lists = await self._lists.refresh(publication.due)
        except Unavailable as error:
            self._warn(error)
            return None
        metrics.STAGE_SECONDS.labels(self._lane, metrics.RANK).observe(self._clock() - started)
        return lists

    async def _send(self, publication: Publication, lists: Sequence[Output], revocations: int, started: float) -> bool:
        """Publishes and commits; says whether that stands.

        Args:
            publication: what the ledger gave.
            lists: of its users.
            revocations: how often partitions had been taken away when it was given.
            started: when that was.
        """
        made, draining = self._clock(), self._draining
        try:
            await self._check()
            await self._publisher.publish(
                [*publication.outputs, *lists],
                publication.offsets,
                self._member(),
                fence=dict(list(self._held.committed.items())[:1]),
                current=lambda: revocations == self._held.revocations,
            )
        except Unavailable as error:
            refused = isinstance(error, Refused)
            if refused:
                metrics.FENCED.labels(self._lane).inc()
            self._warn(error)
            if refused and draining:
                self._over = True  # nobody polls any more: what is left is for whoever has the partitions next
            else:
                await asyncio.sleep(self._backoff.pause())
            self._undo()
            return False
        self._backoff.reset()
        self._ledger.done(self._clock())
        self._held.settle(publication.offsets)
        metrics.LISTS.labels(self._lane).inc(len(publication.due))
        metrics.STAGE_SECONDS.labels(self._lane, metrics.PUBLISH).observe(self._clock() - made)
        metrics.REFRESH_SECONDS.labels(self._lane).observe(self._clock() - started)
        self._wake.set()  # whoever drains waits for this
        return True

    def _warn(self, error: Unavailable) -> None:
        metrics.RETRIES.labels(self._lane, "publish").inc()
        if not isinstance(error, Revoked):
            log.warning("publishing failed; will try again", lane=self._lane, error=str(error))

    def _undo(self) -> None:
        """Has what is in flight owed again."""
        self._ledger.undo()
        self._wake.set()
