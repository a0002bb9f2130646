"""The learner: takes examples, one after the other, and says what weights they teach. It is one for all.

Examples have one partition, which one worker holds. The learner goes on from its own last record on `weights`, which
says how far in the log of examples it has taken them in: what is read again, after a crash or because a store was set
back, changes nothing. Its next record goes into the transaction that commits the examples behind it. So each example
counts once, in the order of the log, and the weights are those of one uninterrupted pass. Without transactions a
learner that was overtaken may still publish: examples may then be left out, and none counts twice.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # not in its __all__
from msgspec import Struct

from penchant.errors import ConfigurationError, Unavailable
from penchant.profile.ranking.priors import pinned_weights, prior_weights
from penchant.profile.ranking.weights import Learned, Learner
from penchant.settings import Settings
from penchant.streams import metrics
from penchant.streams.codec import Unusable
from penchant.streams.connection import broker_error, open_admin
from penchant.streams.dead_letters import dead_letter
from penchant.streams.events import LearnedWeights, Reset
from penchant.streams.examples import Seen, lesson_in
from penchant.streams.lane import Batch
from penchant.streams.ledger import Due, Handled
from penchant.streams.records import Output
from penchant.streams.topics import Topic, describe_topics
from penchant.streams.weights import last_learned, learned_of, told

__all__ = ["GROUP", "LANE", "TOPICS", "LearnerHandler"]

log = structlog.get_logger()

LANE = "learner"
GROUP = "penchant-learner"
TOPICS = (Topic.EXAMPLES,)
REQUEST_TIMEOUT_S = 10.0
AT_ONCE = 64  # examples, some milliseconds: others work in this loop


class Course(Struct):
    """How far the learner is.

    Attributes:
        assignment: of the partition, that this belongs to: under another one somebody else may have gone on.
        learner: has taken in all before `next_offset`.
        as_of: the timestamp of the newest example, epoch milliseconds; 0: none.
        topic_id: of the examples.
    """

    assignment: int
    learner: Learner
    as_of: int
    topic_id: str
    next_offset: int


class LearnerHandler:
    """Learns from examples.

    What the settings pin stays as it is, and the others are learned beside it.

    Args:
        settings: names of topics, and pins.
        features: names of the F features that are ranked by.
    """

    def __init__(self, settings: Settings, features: Sequence[str]) -> None:
        self._settings = settings
        self._examples = settings.prefixed(Topic.EXAMPLES)
        self._weights = settings.prefixed(Topic.WEIGHTS)
        self._dead_letters = settings.prefixed(Topic.DEAD_LETTERS)
        self._features = tuple(features)
        pins = (settings.recommend.weights, settings.recommend.returning)
        self._moves = np.array([[name not in pinned for name in self._features] for pinned in pins])
        self._course: Course | None = None

    async def handle(self, batch: Batch) -> Handled:
        """Learns from the examples of a batch, those that it has not taken in yet."""
        if set(batch.assignments) != {0}:
            raise ConfigurationError(
                f"{self._examples} has more than one partition: each would have a learner of its own",
                hint="`penchant topics check` tells more.",
            )
        course = self._course
        if course is None or course.assignment != batch.assignments[0]:
            course = self._course = await self._resumed(batch)
        outputs: list[tuple[int, Output]] = []
        for number, record in enumerate(batch.records, 1):
            if record.offset < course.next_offset:
                continue
            try:
                self._learn(course, lesson_in(record, self._features), record.timestamp)
            except Unusable as error:
                metrics.DEAD_LETTERS.labels(LANE, error.reason).inc()
                outputs.append((0, dead_letter(record, error, topic=self._dead_letters)))
            course.next_offset = record.offset + 1
            if not number % AT_ONCE:
                await asyncio.sleep(0)
        known = told(
            course.learner.learned,
            as_of=course.as_of,
            topic_id=course.topic_id,
            next_offset=course.next_offset,
            topic=self._weights,
        )
        return Handled(outputs=[*outputs, (0, known)])

    async def refresh(self, due: Sequence[Due]) -> list[Output]:  # noqa: ARG002  nobody is ever due
        """No lists."""
        return []

    async def release(self) -> None:
        """Nothing to forget: what is remembered knows which assignment it belongs to.

        To read it again while the partition stays would leave out what is learned and not published yet.
        """

    def _learn(self, course: Course, lesson: Seen | Reset, timestamp: int) -> None:
        if isinstance(lesson, Reset):
            log.info("the weights begin anew", examples=course.learner.examples)
            course.learner, course.as_of = self._learner(None), 0
            return
        surprise = course.learner.learn(lesson.features, lesson.absence_ms)
        course.as_of = max(course.as_of, timestamp)
        metrics.EXAMPLES.inc()
        metrics.EXAMPLE_SURPRISES.inc(surprise)

    async def _resumed(self, batch: Batch) -> Course:
        """Where the last learner stopped.

        Raises:
            Unavailable: the broker does not say yet.
        """
        topic_id, found = await asyncio.to_thread(self._ask)
        known = found is not None and found.topic_id == topic_id
        course = Course(
            assignment=batch.assignments[0],
            learner=self._learner(found),
            as_of=0 if found is None else found.as_of,
            topic_id=topic_id,
            next_offset=found.next_offset if known and found is not None else 0,
        )
        committed = batch.settled.get(0, 0)
        log.info("learning goes on", examples=course.learner.examples, offset=course.next_offset)
        if course.next_offset < committed:
            log.warning(
                "examples were learned from, and the weights that they taught are gone",
                since=course.next_offset, until=committed,
            )  # fmt: skip
        return course

    def _ask(self) -> tuple[str, LearnedWeights | None]:
        """The id of the examples' topic, and what was learned last, once no transaction may still add to it."""
        admin = open_admin(self._settings)
        try:
            topic_id = describe_topics(admin, [self._examples])[self._examples].id
            # Committed offsets are told before the records that were committed with them can be read.
            if self._settings.kafka.transactions and not all_readable(admin, self._weights):
                raise Unavailable("the weights that were published last cannot be read yet")
        except KafkaException as error:
            raise broker_error(error) from error
        except KeyError:
            raise Unavailable(f"the topic {self._examples} cannot be described yet") from None
        return topic_id, last_learned(self._settings)

    def _learner(self, found: LearnedWeights | None) -> Learner:
        prior = prior_weights(self._features)
        before = Learned.nothing(prior) if found is None else learned_of(found).among(prior)
        pins = self._settings.recommend
        held = pinned_weights(before.weights, pins.weights, pins.returning)
        return Learner(Learned(weights=held, squares=before.squares, examples=before.examples), learned=self._moves)


def all_readable(admin: AdminClient, topic: str) -> bool:
    """Whether readers of committed records can read partition 0 of a topic to its end: no transaction is open on it.

    Raises:
        KafkaException: the broker does not say.
    """
    partition = TopicPartition(topic, 0)
    ends = [
        admin.list_offsets(
            {partition: OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=level,
            request_timeout=REQUEST_TIMEOUT_S,
        )[partition]
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    ]
    committed, written = (end.result().offset for end in ends)
    return bool(committed == written)
