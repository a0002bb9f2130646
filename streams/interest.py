"""The interest lane: who did what to which item, and when. It alone writes profiles, and it never embeds anything.

A signal on an item that has no vectors yet is in the set all the same, and counts as soon as they are there. No
such signal is forgotten, whoever comes first:

- The lane reads the items before it writes the profile. If an item is there by then, it counts at once.
- If it is not, the profile notes that it waits for it. The content lane announces a post or an upload to its author
  on `item-ready` *after* writing the item, in the author's own partition; this lane handles its topics one batch at
  a time, so the announcement is handled either after that profile was written, and finds it, or before the signal
  is handled, and then the item is there when the signal comes.
- Nobody announces a catalogue item to those who clicked it early, and an announcement may be older than a store that
  was set back. So a sweep looks, again and again, at all profiles that wait, and announces to them what has come.
  It only sends `item-ready`: a profile is written by the owner of its partition and by no one else.

A positive signal also says what its item came after. Of each such event the lane tells once, on `transitions`, in the
transaction that commits the record which was the first to tell of it. And it may say which of the candidates of a list
was the one to choose: of that the lane tells on `examples`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from penchant.profile.affinity import Liking, Positive, is_positive, weighted
from penchant.profile.cache import ItemVectors
from penchant.profile.profiles import Profile
from penchant.profile.ranking.recommend import TURN_S, RankedItem, Ranker
from penchant.profile.signals import Signal
from penchant.profile.told import telling_of
from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings
from penchant.streams import events, metrics
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, Unusable, encode
from penchant.streams.dead_letters import dead_letter
from penchant.streams.events import Because, Recommendations, Recommended, SourcePosition, Timings
from penchant.streams.examples import example_of
from penchant.streams.interpret import Reader
from penchant.streams.lane import Batch
from penchant.streams.ledger import Due, Handled, Touch
from penchant.streams.quality import Judged, Quality
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic

__all__ = ["GROUP", "LANE", "TOPICS", "InterestHandler", "recommendations"]

LANE = "interest"
GROUP = "penchant-interest"
HEADERS = {CONTENT_TYPE: MSGPACK}
BREATH = 512  # records after which others get a turn: some milliseconds
REST_S = 5 * TURN_S  # behind each turn of lists where events wait: of what is short, lists get a sixth
TOPICS = (Topic.CLICKS, Topic.POSTS, Topic.MEDIA_UPLOADS, Topic.ITEM_READY)


class InterestHandler:
    """Merges signals into profiles and makes the lists of those who are due.

    Args:
        settings: names of topics.
        reader: reads records.
        updater: writes profiles.
        vectors: of items; told of items that have changed.
        ranker: makes lists.

    Attributes:
        behind: whether more events wait than can be handled at once; to be set.
    """

    def __init__(
        self, settings: Settings, reader: Reader, updater: ProfileUpdater, vectors: ItemVectors, ranker: Ranker
    ) -> None:
        self._topics = {settings.prefixed(topic): topic for topic in TOPICS}
        self._recommendations = settings.prefixed(Topic.RECOMMENDATIONS)
        self._transitions = settings.prefixed(Topic.TRANSITIONS)
        self._examples = settings.prefixed(Topic.EXAMPLES)
        self._learn = settings.recommend.learn
        self._dead_letters = settings.prefixed(Topic.DEAD_LETTERS)
        self._reader = reader
        self._updater = updater
        self._vectors = vectors
        self._ranker = ranker
        self.behind: Callable[[], bool] = lambda: False
        self._quality = Quality(settings.profile.cached_profiles)
        # One batch at a time, whatever its topic: one write in flight per user, and the order argued for above.
        self._one_at_a_time = asyncio.Lock()

    async def handle(self, batch: Batch) -> Handled:
        """Merges what a batch says into the profiles."""
        topic = self._topics[batch.topic]
        signals: dict[str, list[Signal]] = {}
        tellings: dict[str, list[Positive]] = {}
        newest: dict[str, Record] = {}
        outputs: list[tuple[int, Output]] = []
        async with self._one_at_a_time:
            started = time.monotonic()
            read: Callable[[Record], tuple[str, Signal | None]] = (
                self._reader.click if topic is Topic.CLICKS else partial(self._read, topic)
            )
            for number, record in enumerate(batch.records):
                if number % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
                try:
                    user, signal = read(record)
                except Unusable as error:
                    if topic in {Topic.CLICKS, Topic.ITEM_READY}:  # of the others the content lane takes care
                        metrics.DEAD_LETTERS.labels(LANE, error.reason).inc()
                        outputs.append((record.partition, dead_letter(record, error, topic=self._dead_letters)))
                    continue
                mine = signals.setdefault(user, [])
                newest[user] = record
                if signal is None:
                    continue
                mine.append(signal)
                if is_positive(signal):
                    telling = telling_of(signal, (record.topic, record.partition), record.offset)
                    tellings.setdefault(user, []).append(Positive(signal, telling))
            settled = {(batch.topic, partition): offset for partition, offset in batch.settled.items()}
            judged = self._quality.judge(signals)
            decoded = time.monotonic()
            metrics.STAGE_SECONDS.labels(LANE, metrics.DECODE).observe(decoded - started)
            applied = await self._updater.apply(signals, tellings, settled)
            self._quality.settle(signals, judged)
            self._ranker.arms.liked(one.item_id for one in judged if one.place)
            metrics.CONFLICTS.labels(LANE).inc(applied.refused)
            metrics.STAGE_SECONDS.labels(LANE, metrics.APPLY).observe(time.monotonic() - decoded)
        outputs += applied.told(lambda liking: (liking.origin[1], self._transition(liking)))
        outputs += [(newest[one.user].partition, output) for one in judged for output in self._example(one)]
        stored = now_ms()
        touched = {
            user: Touch(
                positions={(record.topic, record.partition): record.offset}, recorded=record.timestamp, stored=stored
            )
            for user, record in newest.items()
        }
        return Handled(outputs=outputs, touched=touched)

    async def refresh(self, due: Sequence[Due]) -> list[Output]:
        """The lists of users that are due."""
        profiles = await self._updater.read([one.user for one in due])
        touches = {one.user: one.touch for one in due}
        known = list(profiles.values())
        # As of the record, not of the wall clock: the same log gives the same lists.
        moments = [touches[profile.user].recorded for profile in known]
        lists = await self._ranker.rank(known, moments, rest_s=self._rest_s)
        ranked_at = now_ms()
        for profile, ranked in zip(known, lists, strict=True):
            offered = ranked.offered if self._learn else None
            listed = self._quality.give(profile, [item.item_id for item in ranked.items], offered)
            self._ranker.arms.listed(listed)
        await asyncio.sleep(self._rest_s())  # behind the last turn as well: the next lists may follow at once
        return [
            Output(
                topic=self._recommendations,
                key=profile.user.encode(),
                value=encode(recommendations(profile, ranked.items, touches[profile.user], ranked_at)),
                headers={CONTENT_TYPE: MSGPACK},
            )
            for profile, ranked in zip(known, lists, strict=True)
        ]

    async def release(self) -> None:
        """Forgets the profiles and lists in memory."""
        async with self._one_at_a_time:
            self._updater.forget_all()
            self._ranker.forget_all()
            self._quality.forget_all()

    def _rest_s(self) -> float:
        """For how long lists wait for events, seconds."""
        return REST_S if self.behind() else 0

    def _transition(self, liking: Liking) -> Output:
        """A transition as it is published."""
        topic, partition = liking.origin
        told = events.Transition(
            item_id=liking.item_id,
            at=liking.at,
            previous=weighted(liking.previous),
            origin=SourcePosition(topic=topic, partition=partition, offset=liking.offset),
        )
        return Output(
            topic=self._transitions,
            key=liking.item_id.encode(),
            value=encode(told),
            headers=HEADERS,
        )

    def _example(self, judged: Judged) -> list[Output]:
        """What a like teaches, as it is published; nothing where it teaches nothing."""
        if judged.choice is None:
            return []
        example = example_of(judged.choice, self._ranker.features, judged.absence_ms)
        return [Output(topic=self._examples, key=None, value=encode(example), headers={CONTENT_TYPE: MSGPACK})]

    def _read(self, topic: Topic, record: Record) -> tuple[str, Signal | None]:
        """The user of a record, and its signal; no signal where an item of the user's has changed."""
        if topic is Topic.POSTS:
            return self._reader.post(record)[:2]
        if topic is Topic.MEDIA_UPLOADS:
            return self._reader.upload(record)[:2]
        ready = self._reader.item_ready(record)
        self._vectors.drop(ready.item_id)
        return ready.user_id, None


def recommendations(profile: Profile, items: Sequence[RankedItem], touch: Touch | None, ranked: int) -> Recommendations:
    """A list as it is published.

    Args:
        profile: of the user.
        items: best first.
        touch: what led to it; None where someone asked.
        ranked: when the list was made, epoch milliseconds.
    """
    return Recommendations(
        user_id=profile.user,
        profile_version=profile.version,
        as_of=profile.state.as_of,
        items=tuple(
            Recommended(
                item_id=item.item_id,
                score=item.score,
                parts=item.parts,
                because=tuple(
                    Because(
                        event_id=reason.signal.event_id,
                        item_id=reason.signal.item_id,
                        action=reason.signal.action,
                        part=reason.part,
                    )
                    for reason in item.reasons
                ),
                explored=item.explored,
            )
            for item in items
        ),
        inputs=tuple(
            SourcePosition(topic=topic, partition=partition, offset=offset)
            for (topic, partition), offset in (touch.positions.items() if touch else ())
        ),
        timings=Timings(recorded=touch.recorded, stored=touch.stored, ranked=ranked) if touch else None,
    )


def now_ms() -> int:
    """The wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
