"""Topics as they are created on a real broker, and what a check of them finds."""

import asyncio
import secrets
import time

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # not in its __all__

from penchant.errors import ConfigurationError, Unavailable
from penchant.settings import Settings, load_settings
from penchant.streams import topics
from penchant.streams.connection import (
    MAX_RECORD_BYTES,
    Fenced,
    RecordTooLarge,
    broker_error,
    consumer_options,
    murmur2,
    open_admin,
    open_consumer,
    open_producer,
    open_transactional_producer,
    partition_of,
)
from penchant.streams.topics import Topic, check_topics, create_topics, describe_topics, topic_specs


def other(settings: Settings, **kafka: object) -> Settings:
    """The same settings with other values about Kafka."""
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=kafka)})


def test_creating_twice_creates_once(settings: Settings):
    """`create_topics` creates what is missing, leaves the rest, and what it creates passes the check."""
    fresh = settings.model_copy(update={"namespace": f"t{secrets.token_hex(4)}"})
    assert create_topics(fresh) == [spec.name for spec in topic_specs(fresh)]
    assert create_topics(fresh) == []
    assert check_topics(fresh) == []


def test_missing_topics_are_found(settings: Settings):
    """A namespace without topics has one finding a topic, each with its remedy."""
    fresh = settings.model_copy(update={"namespace": f"t{secrets.token_hex(4)}"})
    findings = check_topics(fresh)
    assert [finding.topic for finding in findings] == [fresh.prefixed(topic) for topic in Topic]
    assert all("penchant topics create" in finding.remedy for finding in findings)


def test_a_topic_out_of_step_is_found(settings: Settings):
    """A wrong partition count, cleanup or record size is a finding each, at the topic that has it."""
    fresh = settings.model_copy(update={"namespace": f"t{secrets.token_hex(4)}"})
    name = fresh.prefixed(Topic.POSTS)
    made = NewTopic(name, 2, 1, config={"cleanup.policy": "compact", "max.message.bytes": "1000"})
    admin = open_admin(fresh)
    admin.create_topics([made])[name].result(10)
    create_topics(fresh)
    problems = {finding.problem.split()[0] for finding in check_topics(fresh) if finding.topic == name}
    assert problems == {"has", "is", "accepts"}
    assert {finding.topic for finding in check_topics(fresh)} == {name}


def test_only_some_topics_must_share_a_count(settings: Settings):
    """With another partition count in the settings the check names the topics keyed by user, and the transitions'."""
    found = {finding.topic for finding in check_topics(other(settings, partitions=5))}
    own = {settings.prefixed(topic) for topic in (Topic.EXAMPLES, Topic.WEIGHTS)}
    assert found == {spec.name for spec in topic_specs(settings) if spec.fixed} - own
    assert {settings.prefixed(Topic.CLICKS), settings.prefixed(Topic.TRANSITIONS)} <= found


def test_one_partition_is_one_learner(settings: Settings):
    """Whatever the settings say of the others, examples and weights have one, and more are found."""
    specs = {spec.topic: spec for spec in topic_specs(settings)}
    assert {specs[topic].partitions for topic in (Topic.EXAMPLES, Topic.WEIGHTS)} == {1}
    assert (specs[Topic.EXAMPLES].cleanup, specs[Topic.WEIGHTS].cleanup) == ("delete", "compact")
    fresh = settings.model_copy(update={"namespace": f"t{secrets.token_hex(4)}"})
    name = fresh.prefixed(Topic.EXAMPLES)
    admin = open_admin(fresh)
    admin.create_topics([NewTopic(name, 3, 1)])[name].result(10)
    create_topics(fresh)
    [finding] = check_topics(fresh)
    assert (finding.topic, finding.problem) == (name, "has 3 partitions where it must have 1")


def test_a_recreated_topic_has_another_identity(settings: Settings):
    """The same name after deletion and creation is seen to be another topic; an absent one is left out."""
    admin, name = open_admin(settings), settings.prefixed(Topic.CLICKS)
    before = describe_topics(admin, [name])[name]
    assert before.partitions == 3
    assert describe_topics(admin, [name])[name] == before
    admin.delete_topics([name])[name].result(10)
    while describe_topics(admin, [name]):
        time.sleep(0.02)
    create_topics(settings)
    assert describe_topics(admin, [name])[name].id != before.id


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_the_java_clients(key: bytes, hashed: int):
    """The hash gives the figures that Kafka's own tests give for its Java client."""
    assert murmur2(key) == hashed


def test_a_producer_puts_keys_where_we_say(settings: Settings):
    """`partition_of` names the partition that a real producer chose, for keys of every length modulo four."""
    keys = [bytes(f"user-{'x' * (n % 7)}{n}", "utf-8") for n in range(200)]
    put: dict[bytes, int] = {}
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    for key in keys:
        producer.produce(
            settings.prefixed(Topic.CLICKS),
            key=key,
            value=b"",
            on_delivery=lambda _error, record: put.update({record.key(): record.partition()}),
        )
    assert producer.flush(10) == 0
    assert put == {key: partition_of(key, 3) for key in keys}
    assert set(put.values()) == {0, 1, 2}


@pytest.mark.parametrize("group_protocol", ["classic", "consumer"])
def test_a_consumer_takes_what_a_transaction_committed(settings: Settings, group_protocol: str):
    """A group member reads committed records alone, from where it is told, and offsets of the transaction stand."""
    settings = other(settings, group_protocol=group_protocol)
    name = settings.prefixed(Topic.CLICKS)
    producer = open_transactional_producer(settings, "interest")
    producer.init_transactions(10)
    consumer = open_consumer(settings, "penchant-interest")

    def start_at_zero(_consumer: object, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            partition.offset = 0
        if group_protocol == "classic":
            consumer.assign(partitions)
        else:
            consumer.incremental_assign(partitions)

    consumer.subscribe([name], on_assign=start_at_zero)
    for value, commits in ((b"aborted", False), (b"committed", True)):
        producer.begin_transaction()
        producer.produce(name, key=b"user", value=value)
        producer.flush(10)
        if commits:
            producer.commit_transaction(10)
        else:
            producer.abort_transaction(10)
    taken = []
    while not taken:
        taken = consumer.consume(10, 1.0)
    assert [record.value() for record in taken] == [b"committed"]

    read = TopicPartition(name, taken[0].partition(), taken[0].offset() + 1)
    producer.begin_transaction()
    producer.send_offsets_to_transaction([read], consumer.consumer_group_metadata(), 10)
    producer.commit_transaction(10)
    assert consumer.committed([read], timeout=10)[0].offset == read.offset
    consumer.close()


def test_a_second_producer_of_one_name_fences_the_first(settings: Settings):
    """A worker whose name another has taken cannot commit, and the error says that waiting is no use."""
    first, second = (open_transactional_producer(settings, "interest") for _ in range(2))
    first.init_transactions(10)
    first.begin_transaction()
    second.init_transactions(10)
    first.produce(settings.prefixed(Topic.CLICKS), key=b"user", value=b"stale")
    with pytest.raises(Exception, match="fenced") as caught:
        first.commit_transaction(10)
    assert isinstance(broker_error(caught.value), Fenced)


def test_a_record_with_inline_media_fits(settings: Settings):
    """Twelve mebibytes, which eight of media are as JSON, pass; what no topic takes is refused as too large."""
    producer = open_producer(settings, delivery_timeout_ms=30_000)
    outcomes = []
    for topic in (Topic.POSTS, Topic.MEDIA_UPLOADS, Topic.ITEMS):
        producer.produce(
            settings.prefixed(topic),
            key=b"user",
            value=bytes(12 * 2**20 - 1024),
            on_delivery=lambda error, _record: outcomes.append(error),
        )
    assert producer.flush(30) == 0
    assert outcomes == [None, None, None]
    with pytest.raises(Exception, match="too large") as caught:
        producer.produce(settings.prefixed(Topic.POSTS), value=bytes(MAX_RECORD_BYTES + 1))
    assert isinstance(broker_error(caught.value), RecordTooLarge)


def test_a_silent_broker_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    """Where nothing listens the error is one that waiting may heal, and names what to look at."""
    monkeypatch.setattr(topics, "REQUEST_TIMEOUT_S", 0.5)
    nowhere = load_settings(kafka={"bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(Unavailable, match="bootstrap_servers"):
        create_topics(nowhere)


def test_an_unknown_option_is_a_configuration_error():
    """A misspelt librdkafka option is refused with its name."""
    wrong = load_settings(kafka={"options": {"fetch.max.byte": 1}})
    with pytest.raises(ConfigurationError, match=r"fetch\.max\.byte"):
        open_consumer(wrong, "penchant-interest")


def test_options_do_not_override_promises():
    """A setting may tune a consumer, but not make it commit by itself or guess an offset."""
    wishful = {"enable.auto.commit": True, "auto.offset.reset": "earliest", "fetch.max.bytes": 1_000_000}
    options = consumer_options(load_settings(kafka={"options": wishful}), "penchant-interest")
    assert options["enable.auto.commit"] is False
    assert options["auto.offset.reset"] == "error"
    assert options["fetch.max.bytes"] == 1_000_000


async def test_a_missing_offset_is_an_error(settings: Settings):
    """A consumer told to start beyond the log says so and does not begin elsewhere."""
    name = settings.prefixed(Topic.CLICKS)
    consumer = open_consumer(settings, "penchant-interest")
    consumer.assign([TopicPartition(name, 0, 1_000)])
    record = None
    while record is None:
        record = await asyncio.to_thread(consumer.poll, 1.0)
    assert record.error() is not None
    assert record.error().name() == "_AUTO_OFFSET_RESET"
    consumer.close()


def test_replicated_topics_ask_for_a_quorum():
    """With three replicas a write stands on two; with one it stands on that one."""
    configs = [topic_specs(load_settings(kafka={"replication_factor": count}))[0].config for count in (1, 3)]
    assert [config.get("min.insync.replicas") for config in configs] == [None, "2"]
