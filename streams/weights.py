"""The ranking's weights on their way: from the learner to all who rank, through the topic `weights`.

The learner's last record is in force. Of two of one log that one is the newer which has taken in more of it, so that a
learner that was overtaken, where no transaction holds it off, sets nobody back. Whoever ranks puts the weights that the
settings pin over those learned. What cannot be read changes nothing: the weights before it stay.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from penchant.errors import PenchantError
from penchant.profile.ranking.priors import pinned_weights, prior_weights
from penchant.profile.ranking.weights import Learned, Weights
from penchant.settings import Settings
from penchant.streams import metrics
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, Unusable, decode, encode
from penchant.streams.events import LearnedWeights, Reset
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic

__all__ = [
    "FeatureView",
    "Standing",
    "Weighed",
    "WeightsView",
    "follow",
    "last_learned",
    "learned_of",
    "reset_request",
    "told",
]

log = structlog.get_logger()

Floats = NDArray[np.float64]

KEY = b"weights"
TAIL = 100  # offsets, among which the last record is looked for first: compaction may be far behind
SLICE_S = 0.5
RETRY_S = 1.0


class Weighed(Struct, frozen=True, kw_only=True):
    """A weight: where it started, what was learned of it, and what it counts here; `pinned`: as the settings say."""

    prior: float
    learned: float | None
    in_force: float
    pinned: bool


class FeatureView(Struct, frozen=True, kw_only=True):
    """A feature's weights: the one that always counts, and the one that counts by how long a user was away."""

    feature: str
    base: Weighed
    returning: Weighed


class WeightsView(Struct, frozen=True, kw_only=True):
    """All weights, as people are shown them.

    Attributes:
        learning: whether learned weights are in force here.
        examples: that they were learned from.
        as_of: the timestamp of the newest of them, epoch milliseconds; None: there is none.
    """

    learning: bool
    examples: int
    as_of: int | None
    features: tuple[FeatureView, ...]


class Standing:
    """The weights in force in this process.

    Args:
        settings: what they pin, and whether weights are learned.
        features: names of the F features that are ranked by.
        weigh: told of the weights whenever others come.

    Attributes:
        learning: whether learned weights are in force here: content alone ranks without any.
    """

    def __init__(
        self, settings: Settings, features: Iterable[str], weigh: Callable[[Weights], None] = lambda _: None
    ) -> None:
        self.learning = settings.recommend.learn and settings.fusion.mode == "learned"
        self._recommend = settings.recommend
        self._prior = prior_weights(features)
        self._weigh = weigh
        self._learned: LearnedWeights | None = None

    def take(self, found: LearnedWeights) -> None:
        """Puts what was learned in force."""
        self._learned = found
        self._weigh(self._in_force())
        metrics.WEIGHTS_AS_OF.set(found.as_of / 1_000)

    def view(self) -> WeightsView:
        """As they are now."""
        found, recommend = self._learned, self._recommend
        learned = None if found is None else self._among(found)
        in_force = self._in_force()

        def weighed(prior: Floats, mine: Floats | None, now: Floats, pins: Mapping[str, float]) -> list[Weighed]:
            taught = [None] * len(prior) if mine is None else mine.tolist()
            rows = zip(self._prior.names, prior.tolist(), taught, now.tolist(), strict=True)
            return [
                Weighed(prior=first, learned=later, in_force=counted, pinned=name in pins)
                for name, first, later, counted in rows
            ]

        base = weighed(self._prior.base, None if learned is None else learned.base, in_force.base, recommend.weights)
        returning = weighed(
            self._prior.returning,
            None if learned is None else learned.returning,
            in_force.returning,
            recommend.returning,
        )
        return WeightsView(
            learning=self.learning,
            examples=0 if found is None else found.examples,
            as_of=found.as_of if found is not None and found.as_of else None,
            features=tuple(
                FeatureView(feature=name, base=always, returning=away)
                for name, always, away in zip(self._prior.names, base, returning, strict=True)
            ),
        )

    def _among(self, found: LearnedWeights) -> Weights:
        return learned_of(found).among(self._prior).weights

    def _in_force(self) -> Weights:
        found = self._learned if self.learning else None
        weights = self._prior if found is None else self._among(found)
        return pinned_weights(weights, self._recommend.weights, self._recommend.returning)


def learned_of(found: LearnedWeights) -> Learned:
    """What was learned, back from the wire."""
    return Learned(
        weights=Weights(names=found.names, base=np.array(found.base), returning=np.array(found.returning)),
        squares=np.array([found.base_squares, found.returning_squares]),
        examples=found.examples,
    )


def told(learned: Learned, *, as_of: int, topic_id: str, next_offset: int, topic: str) -> Output:
    """What was learned, as it is published on `topic`; the other arguments are as in `LearnedWeights`."""
    value = LearnedWeights(
        names=learned.weights.names,
        base=tuple(learned.weights.base.tolist()),
        returning=tuple(learned.weights.returning.tolist()),
        base_squares=tuple(learned.squares[0].tolist()),
        returning_squares=tuple(learned.squares[1].tolist()),
        examples=learned.examples,
        as_of=as_of,
        topic_id=topic_id,
        next_offset=next_offset,
    )
    return Output(topic=topic, key=KEY, value=encode(value), headers={CONTENT_TYPE: MSGPACK})


def reset_request(settings: Settings) -> Output:
    """What asks the learner to begin anew."""
    return Output(
        topic=settings.prefixed(Topic.EXAMPLES), key=None, value=encode(Reset()), headers={CONTENT_TYPE: MSGPACK}
    )


def learned_in(record: Record) -> LearnedWeights:
    """The weights of a record of the topic `weights`.

    Raises:
        Unusable: the record cannot be used.
    """
    found = decode(LearnedWeights, record.value, record.headers)
    if len(set(found.names)) != len(found.names):
        raise Unusable("`names` names a feature twice", reason="invalid")
    parts = (found.base, found.returning, found.base_squares, found.returning_squares)
    if any(len(part) != len(found.names) for part in parts):
        raise Unusable("there is not one weight and one sum of squares of each kind for each feature", reason="invalid")
    return found


def newest(records: Iterable[Record], before: LearnedWeights | None = None) -> LearnedWeights | None:
    """The weights in force after some records: those of the last one that can be read."""
    for record in records:
        try:
            found = learned_in(record)
        except Unusable as error:
            log.warning("weights cannot be read: those before stay", offset=record.offset, error=str(error))
            continue
        if before is None or before.topic_id != found.topic_id or before.next_offset <= found.next_offset:
            before = found
    return before


def last_learned(settings: Settings) -> LearnedWeights | None:
    """The weights in force now; None where nothing was learned yet. Blocks for some round trips to the broker.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigurationError: the broker refuses, or the topic is missing.
    """
    for reader in (
        TopicReader(settings, Topic.WEIGHTS, last=TAIL),
        TopicReader(settings, Topic.WEIGHTS, from_beginning=True),
    ):
        found: LearnedWeights | None = None
        with reader:
            while not reader.caught_up:
                found = newest(reader.read(SLICE_S), found)
        if found is not None:
            return found
    return None


async def follow(settings: Settings, take: Callable[[LearnedWeights], None]) -> None:
    """Tells of the weights in force, now and whenever others come, until cancelled; outlives the broker's absence."""
    loop = asyncio.get_running_loop()
    stopping = threading.Event()

    def tell(found: LearnedWeights) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(take, found)

    thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
    try:
        await loop.run_in_executor(thread, listen, settings, tell, stopping)
    finally:
        stopping.set()
        thread.shutdown(wait=False)


def listen(settings: Settings, tell: Callable[[LearnedWeights], None], stopping: threading.Event) -> None:
    """Reads the topic until it is to stop. A worker ranks by the weights that it has, whatever becomes of this."""
    known: LearnedWeights | None = None
    while not stopping.is_set():
        try:
            if known is None and (known := last_learned(settings)) is not None:
                tell(known)
            with TopicReader(settings, Topic.WEIGHTS, last=TAIL) as reader:
                while not stopping.is_set():
                    found = newest(reader.read(SLICE_S), known)
                    if found is not None and found is not known:
                        known = found
                        tell(known)
        except PenchantError as error:
            log.warning("weights cannot be followed now; will try again", error=str(error))
            stopping.wait(RETRY_S)
