"""The sweep: no signal waits for an item that is there. See `interest` for why it is needed and why it is enough."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import structlog

from penchant.errors import Unavailable
from penchant.profile.items import Items
from penchant.profile.profiles import Profiles, Waiting
from penchant.streams.events import ItemReady

__all__ = ["Sweeper", "arrivals"]

log = structlog.get_logger()

PAGE = 256
REST = 10


async def arrivals(profiles: Profiles, items: Items) -> AsyncIterator[ItemReady]:
    """Sweeps the profiles that wait: one announcement for each user of whose awaited items one has come."""
    page: list[Waiting] = []
    async for waiting in profiles.waiting():
        page.append(waiting)
        if len(page) == PAGE:
            async for ready in arrived(page, items):
                yield ready
            page = []
    async for ready in arrived(page, items):
        yield ready


async def arrived(page: Sequence[Waiting], items: Items) -> AsyncIterator[ItemReady]:
    """Of the users of a page, those of whose awaited items one is there."""
    present = await items.present({item_id for waiting in page for item_id in waiting.awaits})
    for waiting in page:
        here = waiting.awaits & present
        if here:
            yield ItemReady(user_id=waiting.user, item_id=min(here))


class Sweeper:
    """Sweeps at intervals, as long as it is this worker's turn.

    Args:
        sweep: finds the users to tell.
        announce: sends announcements and waits until they are delivered.
        my_turn: whether this worker sweeps, among all.
        interval_s: between sweeps, at least; a sweep that takes long makes for longer intervals.
    """

    def __init__(
        self,
        sweep: Callable[[], AsyncIterator[ItemReady]],
        announce: Callable[[Sequence[ItemReady]], Awaitable[None]],
        my_turn: Callable[[], bool],
        *,
        interval_s: float,
    ) -> None:
        self._sweep = sweep
        self._announce = announce
        self._my_turn = my_turn
        self._interval_s = interval_s

    async def run(self) -> None:
        """Sweeps until cancelled."""
        pause = self._interval_s
        while True:
            await asyncio.sleep(pause)
            if not self._my_turn():
                continue
            started = time.monotonic()
            try:
                found = [ready async for ready in self._sweep()]
                if found:
                    await self._announce(found)
                    log.info("items have come that users waited for", users=len(found))
            except Unavailable as error:
                log.warning("sweep failed; will try again", error=str(error))
            # Users who wait for what never comes cost a tenth of the time at most.
            pause = max(self._interval_s, REST * (time.monotonic() - started))
