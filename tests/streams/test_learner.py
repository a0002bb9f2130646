"""The learner: each example once, in the order of the log, whatever is read again, and by one learner for all."""

import asyncio
import contextlib
import time

import msgspec
import numpy as np
import pytest
from confluent_kafka import KafkaException

from penchant.errors import ConfigurationError
from penchant.parts import worker_space
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.weights import Learner
from penchant.streams.codec import decode, encode
from penchant.streams.connection import open_admin
from penchant.streams.dead_letters import REASON
from penchant.streams.events import Example, LearnedWeights, Reset
from penchant.streams.examples import Seen, lesson_in
from penchant.streams.lane import Batch
from penchant.streams.learner import LANE, LearnerHandler, all_readable
from penchant.streams.publish import Courier
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic, create_topics, describe_topics
from penchant.streams.weights import last_learned, learned_of, told
from tests.stage import Stage

FEATURES = (*content_names(["text", "image"]), *BEHAVIOUR)
NOW = 1_750_000_000_000


def example(seed, names=FEATURES, telling="text_long"):
    """Candidates of which the one with most of a feature was liked, after a while."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((len(names), 12)).astype("<f4")
    row = features[names.index(telling)]
    best = int(row.argmax())
    features[:, [0, best]] = features[:, [best, 0]]
    away = int(rng.integers(0, 10**8))
    return Example(names=names, candidates=12, features=features.tobytes(), absence_ms=away)


def batch(values, first=0, assignment=1, settled=0):
    """Records of the topic from an offset on."""
    records = [
        Record(
            topic="examples",
            partition=0,
            offset=first + number,
            timestamp=NOW + first + number,
            key=None,
            value=value if isinstance(value, bytes) else encode(value),
        )
        for number, value in enumerate(values)
    ]
    return Batch(topic="examples", records=records, assignments={0: assignment}, settled={0: settled})


def one_pass(values, names=FEATURES, **pins):
    """What a learner that nothing happens to learns of the same."""
    learner = Learner(prior_weights(names), **pins)
    for value in values:
        lesson = lesson_in(batch([value]).records[0], names)
        if isinstance(lesson, Seen):
            learner.learn(lesson.features, lesson.absence_ms)
        else:
            learner = Learner(prior_weights(names), **pins)
    return learner.learned


def same(one, other):
    """Whether two have learned the same, to the last bit."""
    return (
        one.weights.names == other.weights.names
        and one.examples == other.examples
        and (one.weights.base == other.weights.base).all()
        and (one.weights.returning == other.weights.returning).all()
        and (one.squares == other.squares).all()
    )


def known(handled):
    """The weights that a batch comes to."""
    [found] = [
        decode(LearnedWeights, output.value) for _, output in handled.outputs if output.topic.endswith("weights")
    ]
    return found


@pytest.fixture
async def publish(settings):
    """Publishes what a batch comes to, as a lane does once it is handled."""
    courier = Courier(settings, delivery_timeout_ms=20_000)

    async def send(handled):
        await courier.send([output for _, output in handled.outputs])

    yield send
    courier.close()


@pytest.fixture
def handler(settings):
    """Makes handlers, each with nothing in memory; the topic has just been created, and a lane would try again."""
    admin = open_admin(settings)
    while True:
        with contextlib.suppress(KafkaException):
            all_readable(admin, settings.prefixed(Topic.WEIGHTS))
            break
        time.sleep(0.02)
    return lambda **recommend: LearnerHandler(
        settings.model_copy(update={"recommend": settings.recommend.model_copy(update=recommend)}), FEATURES
    )


async def test_weights_are_those_of_one_pass_however_it_was_broken(handler, publish):
    """Batches of any size, some handled again from earlier on, by learners that start with nothing in memory."""
    values = [example(seed) for seed in range(60)]
    values[20] = Reset()
    for assignment, (first, last) in enumerate([(0, 7), (3, 18), (0, 30), (30, 31), (10, 60)]):
        learning = handler()
        middle = (first + last) // 2
        for start, end in ((first, middle), (middle, last)):
            handled = await learning.handle(batch(values[start:end], start, assignment, min(start, 30)))
            await learning.release()  # which happens at any time, and forgets nothing that is still to be published
        await publish(handled)
    found = known(handled)
    assert (found.next_offset, found.examples, found.as_of) == (60, 39, NOW + 59)
    assert same(learned_of(found), one_pass(values))
    assert (await handler().refresh([])) == []


async def test_what_was_not_published_is_learned_again(handler, publish):
    """Under another assignment somebody else may have gone on: memory does not count, the topic does."""
    values = [example(seed) for seed in range(30)]
    mine, other = handler(), handler()
    await publish(await mine.handle(batch(values[:10])))
    await mine.handle(batch(values[10:20], 10))  # its partition is gone before this is published
    await publish(await other.handle(batch(values[10:15], 10, settled=10)))
    handled = await mine.handle(batch(values[15:30], 15, assignment=2, settled=15))
    assert same(learned_of(known(handled)), one_pass(values))


async def test_what_is_no_example_is_a_dead_letter(handler):
    """With a reason; its neighbours count, and it is passed over with them."""
    spoilt = msgspec.structs.replace(example(1), features=b"\0\0\0\0")
    nan = msgspec.structs.replace(example(1), features=np.full(12 * len(FEATURES), np.nan, "<f4").tobytes())
    values = [example(0), b"\x81", spoilt, nan, b"", example(2)]
    handled = await handler().handle(batch(values))
    letters = [output.headers[REASON] for _, output in handled.outputs if output.topic.endswith("dead-letters")]
    assert letters == [b"malformed", b"invalid", b"invalid", b"empty"]
    assert same(learned_of(known(handled)), one_pass([example(0), example(2)]))
    assert known(handled).next_offset == 6


async def test_what_is_pinned_stays_and_the_others_are_learned_beside_it(handler, publish):
    """Either of a feature's weights, from the first example on and when learning goes on."""
    values = [example(seed) for seed in range(40)]
    pins = {"weights": {"text_long": -0.5}, "returning": {"age": 0.25}}
    await publish(await handler(**pins).handle(batch(values[:20])))
    found = learned_of(known(await handler(**pins).handle(batch(values[20:], 20)))).weights
    free = one_pass(values).weights
    at = FEATURES.index
    assert found.base[at("text_long")] == -0.5
    assert found.returning[at("age")] == 0.25
    assert found.returning[at("text_long")] != prior_weights(FEATURES).returning[at("text_long")]
    assert found.base[at("age")] not in {prior_weights(FEATURES).base[at("age")], free.base[at("age")]}


async def test_features_come_and_go(handler, publish, settings):
    """One that is new starts at its prior; one that is gone is forgotten; the others go on."""
    other = ("text_long", "age", "gone")
    before = one_pass([example(seed, other) for seed in range(9)], other)
    [topic_id] = {known(await handler().handle(batch([]))).topic_id}
    topic = settings.prefixed(Topic.WEIGHTS)
    output = told(before, as_of=5, topic_id=topic_id, next_offset=9, topic=topic)
    handled = await handler().handle(batch([example(9)], 9))
    await publish(type(handled)(outputs=[(0, output)]))
    found = learned_of(known(await handler().handle(batch([], 9))))
    assert found.weights.names == FEATURES
    assert found.examples == 9
    assert found.weights.base[0] == before.weights.base[0] > prior_weights(FEATURES).base[0]
    assert found.weights.base[1] == prior_weights(FEATURES).base[1]


def recreate(settings):
    """Deletes the topic of examples, and creates it anew."""
    admin, name = open_admin(settings), settings.prefixed(Topic.EXAMPLES)
    admin.delete_topics([name])[name].result(10)
    while describe_topics(admin, [name]):
        time.sleep(0.02)
    create_topics(settings)


async def test_another_log_is_read_from_its_beginning(handler, publish, settings):
    """Weights that were learned from a topic that is gone stay, and its offsets say nothing of the new one."""
    await publish(await handler().handle(batch([example(0)], 500)))
    await asyncio.to_thread(recreate, settings)
    found = known(await handler().handle(batch([example(1)])))
    assert (found.next_offset, found.examples) == (1, 2)
    assert same(learned_of(found), one_pass([example(0), example(1)]))


async def test_more_than_one_partition_is_refused(handler):
    """Each would have a learner of its own."""
    wrong = msgspec.structs.replace(batch([example(0)]), assignments={1: 1})
    with pytest.raises(ConfigurationError, match="more than one partition"):
        await handler().handle(wrong)


def outputs(stage, values):
    """Examples to send."""
    topic = stage.topic(Topic.EXAMPLES)
    return [Output(topic=topic, key=None, value=encode(value)) for value in values]


def lessons(stage):
    """What is on the topic, by offset."""
    return {record.offset: record.value for record in stage.read(Topic.EXAMPLES)}


def features_of(stage):
    """Names of the features that a worker ranks by."""
    return (*content_names(part.name for part in worker_space(stage.settings).slices), *BEHAVIOUR)


def settled(stage, worker, values):
    """Waits until the examples are learned from and committed; gives the weights."""
    worker.await_that(lambda: stage.committed(LANE).get((stage.topic(Topic.EXAMPLES), 0), 0) >= values, "learned")
    return last_learned(stage.settings)


def test_a_learner_that_is_killed_again_and_again_learns_each_example_once(make_stage, kafka):
    """Every set of weights that a reader ever sees is that of one pass over the examples before it, bit for bit."""
    with make_stage(kafka, worker={"batch_records": 20}) as stage:
        names = features_of(stage)
        values = [example(seed, names) for seed in range(4_000)]
        values[900] = Reset()
        for part in range(4):
            stage.send(outputs(stage, values[1_000 * part : 1_000 * (part + 1)]))
            with stage.worker(LANE) as worker:
                if part < 3:
                    worker.await_that(lambda worker=worker: worker.metric("penchant_examples_total") >= 100, "learning")
                    worker.kill()
                else:
                    found = settled(stage, worker, 4_000)
                    assert worker.stop() == 0
        assert list(lessons(stage).values()) == [encode(value) for value in values]
        assert same(learned_of(found), one_pass(values, names))
        seen = [decode(LearnedWeights, record.value) for record in stage.read(Topic.WEIGHTS)]
        behind = [one.next_offset for one in seen]
        assert behind == sorted(behind)
        assert len(seen) > 20
        for one in seen[:: len(seen) // 10]:
            assert same(learned_of(one), one_pass(values[: one.next_offset], names))


def test_two_workers_have_one_learner_and_another_goes_on_where_it_was_killed(make_stage, kafka):
    """Only one of them learns; when it is killed the other takes over, though its store has never heard of it."""
    with make_stage(kafka) as stage:
        names = features_of(stage)
        values = [example(seed, names) for seed in range(300)]
        there = Stage(
            stage.settings.model_copy(update={"data_dir": stage.settings.data_dir / "other"}),
            stage.log_file.parent / "other",
        )
        with stage.worker(LANE) as one, there.worker(LANE) as other:
            for worker in (one, other):
                worker.await_ready()
            stage.send(outputs(stage, values[:200]))
            settled(stage, one, 200)
            counts = {worker: worker.metric("penchant_examples_total") for worker in (one, other)}
            assert sorted(counts.values()) == [0, 200]
            learner = max(counts, key=lambda worker: counts[worker])
            learner.kill()
            stage.send(outputs(stage, values[200:]))
            found = settled(stage, other if learner is one else one, 300)
        assert same(learned_of(found), one_pass(values, names))


def test_a_worker_goes_on_where_the_topic_of_examples_was_created_anew(make_stage, kafka):
    """As `penchant topics check` may ask for: what was learned stays, and the new log is read from its beginning."""
    with make_stage(kafka) as stage:
        names = features_of(stage)
        values = [example(seed, names) for seed in range(40)]
        for part in (values[:20], values[20:]):
            with stage.worker(LANE) as worker:
                worker.await_ready()
                stage.send(outputs(stage, part))
                found = settled(stage, worker, 20)
                assert worker.stop() == 0
            recreate(stage.settings)
        assert (found.examples, found.next_offset) == (40, 20)
        assert same(learned_of(found), one_pass(values, names))


async def test_without_transactions_nothing_counts_twice(handler, settings, publish):
    """What a crash between publishing and commit leaves is known by the weights that were published."""
    plain = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"transactions": False})})
    values = [example(seed) for seed in range(20)]
    await publish(await LearnerHandler(plain, FEATURES).handle(batch(values[:10])))
    again = known(await LearnerHandler(plain, FEATURES).handle(batch(values)))
    assert same(learned_of(again), one_pass(values))
