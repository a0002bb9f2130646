"""From settings to Kafka clients: what penchant always asks of librdkafka, and what its errors mean.

Options come in three layers: what penchant prefers, then `kafka.options` from the settings, then what its
promises rest on and no setting may change: offsets are committed by the lanes alone, a missing offset is an
error and never a guess, records of aborted transactions are not read, and a key lands in the same partition
whatever language its producer is written in.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from penchant.errors import ConfigurationError, PenchantError, Unavailable
from penchant.settings import Settings

__all__ = [
    "MAX_RECORD_BYTES",
    "TRANSACTION_TIMEOUT_MS",
    "BrokerUnavailable",
    "Fenced",
    "RecordTooLarge",
    "broker_error",
    "common_options",
    "consumer_options",
    "manages_transactions",
    "murmur2",
    "open_admin",
    "open_consumer",
    "open_producer",
    "open_transactional_producer",
    "partition_of",
    "producer_options",
    "transactional_options",
]

Options = dict[str, Any]
Client = TypeVar("Client", AdminClient, Consumer, Producer)

log = logging.getLogger("penchant.kafka")

# The largest record that any of penchant's topics takes; `topics` sets the same bound on the broker's side.
MAX_RECORD_BYTES = 13 * 2**20

# What a consumer may hold before it is taken: its queue, and the answers on their way to it.
QUEUED_KIB = 64 * 1024
FETCH_BYTES = 32 * 2**20
PARTITION_FETCH_BYTES = 4 * 2**20

# A transaction spans one batch. An abandoned one holds back readers of committed records for this long.
TRANSACTION_TIMEOUT_MS = 30_000

REQUEST_TIMEOUT_S = 10.0
TANSU_CLUSTER = "tansu_cluster"


class BrokerUnavailable(Unavailable):
    """The broker did not answer, or refused for now. What was asked may or may not have been done."""


class Fenced(ConfigurationError):
    """Another worker has taken this one's name: nothing that this one still does would count."""


class RecordTooLarge(PenchantError):
    """A record is larger than its topic takes. Sending it again would not help."""


def open_admin(settings: Settings) -> AdminClient:
    """A client that creates and describes topics."""
    return opened(AdminClient, common_options(settings))


def open_consumer(settings: Settings, group: str) -> Consumer:
    """A consumer in the group `group` of this namespace, which commits and stores no offset by itself."""
    return opened(Consumer, consumer_options(settings, group))


def open_producer(settings: Settings, *, delivery_timeout_ms: int) -> Producer:
    """An idempotent producer: within its life no record is lost, doubled or reordered.

    Args:
        settings: of this process.
        delivery_timeout_ms: after which a record that was not acknowledged is reported as failed; 0: never,
            for a publisher that may not commit its inputs before its outputs stand.
    """
    return opened(Producer, producer_options(settings, delivery_timeout_ms=delivery_timeout_ms))


def open_transactional_producer(settings: Settings, lane: str) -> Producer:
    """A producer for the transactions of this worker's `lane`; call `init_transactions` before anything else."""
    return opened(Producer, transactional_options(settings, lane))


def opened(client: Callable[..., Client], options: Options) -> Client:
    """A client with options, which may be wrong.

    Raises:
        ConfigurationError: they are.
    """
    try:
        return client(options, logger=log)
    except KafkaException as error:
        raise broker_error(error) from error


def manages_transactions(settings: Settings) -> bool:
    """Whether the broker keeps what transactions promise. Tansu answers all calls, and loses the offsets in them.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigurationError: the broker refuses.
    """
    try:
        return open_admin(settings).list_topics(timeout=REQUEST_TIMEOUT_S).cluster_id != TANSU_CLUSTER
    except KafkaException as error:
        raise broker_error(error) from error


def common_options(settings: Settings) -> Options:
    """What every client is given."""
    return {
        "client.id": "penchant",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        "socket.keepalive.enable": True,
        **settings.kafka.options,
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "error_cb": on_error,
    }


def consumer_options(settings: Settings, group: str) -> Options:
    """Options of a lane's consumer.

    Partitions are assigned by range, so that one worker holds the same partition of every topic keyed by user. A
    worker is a static member: one that comes back within its session resumes its partitions. By the consumer
    protocol (KIP-848) one that crashed is refused by a fatal error until its session is over: the lane waits.
    """
    preferred: Options = {
        "fetch.max.bytes": FETCH_BYTES,
        "max.partition.fetch.bytes": PARTITION_FETCH_BYTES,
        "queued.max.messages.kbytes": QUEUED_KIB,
        "fetch.queue.backoff.ms": 50,  # a full queue is looked at again after this, not after a second
        "fetch.error.backoff.ms": 100,
    }
    required: Options = {
        "group.id": settings.prefixed(group),
        "group.protocol": settings.kafka.group_protocol,
        "group.instance.id": settings.instance_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
    }
    if settings.kafka.group_protocol == "classic":
        required |= {
            "session.timeout.ms": settings.kafka.session_timeout_ms,
            "partition.assignment.strategy": "range",
        }
    else:
        required |= {"group.remote.assignor": "range"}
    return {**preferred, **common_options(settings), **required}


def producer_options(settings: Settings, *, delivery_timeout_ms: int) -> Options:
    """Options of an idempotent producer; see `open_producer`."""
    preferred: Options = {"compression.type": "lz4", "linger.ms": 5}
    required: Options = {
        "enable.idempotence": True,  # and with it acks=all and unlimited retries
        "partitioner": "murmur2_random",  # the Java client's; librdkafka's own default places keys elsewhere
        "message.max.bytes": MAX_RECORD_BYTES,
        "message.timeout.ms": delivery_timeout_ms,
    }
    return {**preferred, **common_options(settings), **required}


def transactional_options(settings: Settings, lane: str) -> Options:
    """Options of a transactional producer; a successor of the same name fences what this one left open."""
    return {
        **producer_options(settings, delivery_timeout_ms=TRANSACTION_TIMEOUT_MS),
        "transactional.id": settings.prefixed(f"{lane}-{settings.instance_id}"),
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
    }


def on_error(error: KafkaError) -> None:
    """Logs what librdkafka reports beside any call. All but fatal errors it retries by itself."""
    log.log(logging.ERROR if error.fatal() else logging.WARNING, "%s: %s", error.name(), error.str())


REFUSED_HINT = "Check the credentials in kafka.options, and what the broker allows them to do."
OUTDATED_HINT = (
    "The broker does not know this request. Apache Kafka 4 knows all that penchant asks for; "
    "elsewhere try kafka.transactions = false and kafka.group_protocol = 'classic'."
)
CONFIGURATION_HINTS: Mapping[str, str] = {
    "_AUTHENTICATION": REFUSED_HINT,
    "_SSL": "Check the certificates named in kafka.options.",
    "SASL_AUTHENTICATION_FAILED": REFUSED_HINT,
    "UNSUPPORTED_SASL_MECHANISM": REFUSED_HINT,
    "ILLEGAL_SASL_STATE": REFUSED_HINT,
    "SECURITY_DISABLED": REFUSED_HINT,
    "TOPIC_AUTHORIZATION_FAILED": REFUSED_HINT,
    "GROUP_AUTHORIZATION_FAILED": REFUSED_HINT,
    "CLUSTER_AUTHORIZATION_FAILED": REFUSED_HINT,
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": REFUSED_HINT,
    "UNSUPPORTED_VERSION": OUTDATED_HINT,
    "_UNSUPPORTED_FEATURE": OUTDATED_HINT,
    "_INVALID_ARG": "Check kafka.options and kafka.bootstrap_servers.",
    "UNKNOWN_TOPIC_OR_PART": "`penchant topics create` creates what is missing.",
    "_UNKNOWN_TOPIC": "`penchant topics create` creates what is missing.",
    "_UNKNOWN_PARTITION": "`penchant topics check` compares the topics with the settings.",
    "INVALID_REPLICATION_FACTOR": "Set kafka.replication_factor to at most the number of brokers.",
    "INVALID_SESSION_TIMEOUT": "Set kafka.session_timeout_ms within what the broker allows.",
}
FENCED = frozenset(
    {
        "_FENCED",
        "FENCED_INSTANCE_ID",
        "INVALID_PRODUCER_EPOCH",
        "PRODUCER_FENCED",
    }
)
TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})


def broker_error(error: KafkaException | KafkaError) -> PenchantError:
    """What a Kafka error means to penchant; raise it `from` the original.

    Returns:
        `Fenced`, `RecordTooLarge` or `ConfigurationError` where waiting heals nothing, else `BrokerUnavailable`.
    """
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(cause, KafkaError):
        return ConfigurationError(f"Kafka's client refuses to start: {cause}", hint="Check kafka.options.")
    said = f"{cause.name()}: {cause.str()}"
    if cause.name() in FENCED:
        return Fenced(
            f"Another worker has this worker's name ({said})",
            hint="Each worker needs a data_dir or a worker.instance_id of its own.",
        )
    if cause.name() in TOO_LARGE:
        return RecordTooLarge(
            f"A record is too large for its topic ({said})", hint="Send large media by reference, or make it smaller."
        )
    if (hint := CONFIGURATION_HINTS.get(cause.name())) is not None:
        return ConfigurationError(f"Kafka refuses ({said})", hint=hint)
    return BrokerUnavailable(
        f"The broker does not answer ({said})",
        hint="Is kafka.bootstrap_servers right, and the broker running? `penchant broker` starts a local one.",
    )


WORD = 0xFFFF_FFFF
SIGN = 0x8000_0000


def murmur2(key: bytes) -> int:
    """The 32-bit MurmurHash2 of `key`, signed, with the seed of Kafka's Java client (A. Appleby, 2008)."""
    multiplier = 0x5BD1_E995
    whole = len(key) - len(key) % 4
    mixed = (0x9747_B28C ^ len(key)) & WORD
    for start in range(0, whole, 4):
        block = int.from_bytes(key[start : start + 4], "little") * multiplier & WORD
        block = (block ^ block >> 24) * multiplier & WORD
        mixed = mixed * multiplier & WORD ^ block
    if rest := key[whole:]:
        mixed = (mixed ^ int.from_bytes(rest, "little")) * multiplier & WORD
    mixed = (mixed ^ mixed >> 13) * multiplier & WORD
    mixed ^= mixed >> 15
    return mixed - 2 * SIGN if mixed & SIGN else mixed


def partition_of(key: bytes, count: int) -> int:
    """The partition among `count` in which a producer with the `murmur2_random` partitioner puts `key`."""
    return (murmur2(key) & ~SIGN & WORD) % count
