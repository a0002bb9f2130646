"""The list for whoever is not known yet: what trends and what is new, on the topic like anybody's.

It stands under `ANYONE`, a key that no user can have, and is what the ranking makes of a profile that holds nothing.
One worker among all makes it, the one to whom that key's partition belongs, and publishes it when its items have
changed. It belongs to no batch, so it is sent outside of their transactions: a list sent twice is the same list.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from penchant.errors import Unavailable
from penchant.profile.profiles import Profiles
from penchant.profile.ranking.recommend import Ranker
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, encode
from penchant.streams.events import ANYONE, Recommendations
from penchant.streams.interest import now_ms, recommendations
from penchant.streams.records import Output

__all__ = ["Anyone", "list_for_anyone"]

log = structlog.get_logger()

HOUR_MS = 3_600_000


async def list_for_anyone(profiles: Profiles, ranker: Ranker, now: int) -> Recommendations:
    """What to show to somebody of whom nothing is known.

    As of the full hour, in which ages are told as well: the mere passing of time changes it once an hour.

    Args:
        profiles: tell what an empty one is.
        ranker: makes lists.
        now: epoch milliseconds.
    """
    nobody = profiles.empty(ANYONE)
    [ranked] = await ranker.rank([nobody], [now - now % HOUR_MS])
    return recommendations(nobody, ranked.items, None, now)


class Anyone:
    """Publishes the list at intervals, where it has changed and as long as it is this worker's turn.

    Args:
        profiles: tell what an empty one is.
        ranker: makes lists.
        send: sends records and waits until they are delivered.
        my_turn: whether this worker publishes it, among all.
        topic: of recommendations, as the broker knows it.
        interval_s: between two looks.
    """

    def __init__(
        self,
        profiles: Profiles,
        ranker: Ranker,
        send: Callable[[Sequence[Output]], Awaitable[None]],
        my_turn: Callable[[], bool],
        *,
        topic: str,
        interval_s: float,
    ) -> None:
        self._profiles = profiles
        self._ranker = ranker
        self._send = send
        self._my_turn = my_turn
        self._topic = topic
        self._interval_s = interval_s
        self._published: list[str] = []  # before the first there was nothing to show, and nothing need be said of that

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            if not self._my_turn():
                self._published = []  # somebody else's may be on the topic by the time it is this one's turn again
                continue
            try:
                await self._look()
            except Unavailable as error:
                log.warning("list for anyone not published; will try again", error=str(error))

    async def _look(self) -> None:
        made = await list_for_anyone(self._profiles, self._ranker, now_ms())
        items = [item.item_id for item in made.items]
        if items != self._published:
            headers = {CONTENT_TYPE: MSGPACK}
            await self._send([Output(topic=self._topic, key=ANYONE.encode(), value=encode(made), headers=headers)])
            self._published = items
