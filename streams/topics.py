"""The topics: their names, how each is keyed, cleaned and bounded, and whether the broker's agree.

Topics keyed by user have one partition count, so that a user's records of all kinds share a partition number
and, with range assignment, a worker. The count is fixed for the life of a topic: raising it would send users
elsewhere than their past. So is that of the transitions, which are keyed by item: an item's must stay in order. And
what weights are learned from, and the weights, have one partition each: one partition is one learner.
"""

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]  # not in its __all__
from msgspec import Struct

from penchant.settings import Settings
from penchant.streams.connection import MAX_RECORD_BYTES, BrokerUnavailable, broker_error, open_admin

__all__ = [
    "Finding",
    "Topic",
    "TopicIdentity",
    "TopicSpec",
    "check_topics",
    "create_topics",
    "describe_topics",
    "topic_specs",
]

Cleanup = Literal["delete", "compact"]

REQUEST_TIMEOUT_S = 10.0

# Kafka's own default, of the batch as it is stored.
DEFAULT_MESSAGE_BYTES = 2**20 + 12
# A picture or sound of 8 MiB inline, as JSON (base64 adds a third), with the text around it.
MEDIA_MESSAGE_BYTES = 12 * 2**20
# Any record that was accepted fits with the headers that say where it came from and why it is here.
DEAD_LETTER_BYTES = MAX_RECORD_BYTES

# With this many replicas one may be lost while the others still acknowledge, and no acknowledged record with it.
REPLICAS_FOR_QUORUM = 3


class Topic(StrEnum):
    """What topics are called before the namespace is put before their names."""

    CLICKS = "clicks"
    POSTS = "posts"
    MEDIA_UPLOADS = "media-uploads"
    ITEMS = "items"
    TRIPLES = "triples"
    ENTITY_VECTORS = "entity-vectors"
    GRAPH_MODEL = "graph-model"
    ITEM_READY = "item-ready"
    TRANSITIONS = "transitions"
    EXAMPLES = "examples"
    WEIGHTS = "weights"
    RECOMMENDATIONS = "recommendations"
    DEAD_LETTERS = "dead-letters"


USER_KEYED = frozenset({Topic.CLICKS, Topic.POSTS, Topic.MEDIA_UPLOADS, Topic.ITEM_READY, Topic.RECOMMENDATIONS})
COMPACTED = frozenset(
    {Topic.ITEMS, Topic.TRIPLES, Topic.ENTITY_VECTORS, Topic.GRAPH_MODEL, Topic.WEIGHTS, Topic.RECOMMENDATIONS}
)
OWN_PARTITIONS = {Topic.EXAMPLES: 1, Topic.WEIGHTS: 1}  # whatever the settings say of the others
MESSAGE_BYTES = {
    Topic.POSTS: MEDIA_MESSAGE_BYTES,
    Topic.MEDIA_UPLOADS: MEDIA_MESSAGE_BYTES,
    Topic.ITEMS: MEDIA_MESSAGE_BYTES,
    Topic.GRAPH_MODEL: MEDIA_MESSAGE_BYTES,
    Topic.DEAD_LETTERS: DEAD_LETTER_BYTES,
}


class TopicSpec(Struct, frozen=True, kw_only=True):
    """What a topic should be.

    Attributes:
        topic: which of penchant's topics it is.
        name: as the broker knows it, with the namespace.
        partitions: how many a new one gets.
        replication_factor: likewise.
        cleanup: whether old records go by age, or by a newer one of their key.
        max_message_bytes: the largest batch that must be accepted.
    """

    topic: Topic
    name: str
    partitions: int
    replication_factor: int
    cleanup: Cleanup
    max_message_bytes: int

    @property
    def keyed_by_user(self) -> bool:
        """Whether the topic shares its partition count with the others that users' events are on."""
        return self.topic in USER_KEYED

    @property
    def fixed(self) -> bool:
        """Whether the topic must have as many partitions as it should be created with."""
        return self.keyed_by_user or self.topic is Topic.TRANSITIONS or self.topic in OWN_PARTITIONS

    @property
    def config(self) -> dict[str, str]:
        """What a new topic is configured with."""
        config = {"cleanup.policy": self.cleanup, "max.message.bytes": str(self.max_message_bytes)}
        if self.replication_factor >= REPLICAS_FOR_QUORUM:
            config["min.insync.replicas"] = str(self.replication_factor - 1)
        return config


class TopicIdentity(Struct, frozen=True):
    """Which topic stands behind a name: a topic that is deleted and created anew has another id."""

    id: str
    partitions: int


class Finding(Struct, frozen=True, kw_only=True):
    """A topic that is not what it should be, and what to do about it."""

    topic: str
    problem: str
    remedy: str


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """What the topics of this namespace should be."""
    return tuple(
        TopicSpec(
            topic=topic,
            name=settings.prefixed(topic),
            partitions=OWN_PARTITIONS.get(topic, settings.kafka.partitions),
            replication_factor=settings.kafka.replication_factor,
            cleanup="compact" if topic in COMPACTED else "delete",
            max_message_bytes=MESSAGE_BYTES.get(topic, DEFAULT_MESSAGE_BYTES),
        )
        for topic in Topic
    )


def create_topics(settings: Settings) -> list[str]:
    """Creates the topics that are missing and leaves the others as they are; returns when all can be used.

    Returns:
        The names of those created, in the order of `Topic`.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigurationError: the broker refuses.
    """
    wanted = [
        NewTopic(spec.name, spec.partitions, spec.replication_factor, config=spec.config)
        for spec in topic_specs(settings)
    ]
    admin = open_admin(settings)  # named: a client that nobody holds is closed, with what it was asked
    pending = admin.create_topics(wanted, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S)
    created = []
    for name, done in pending.items():
        try:
            done.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise broker_error(error) from error
        else:
            created.append(name)
    await_topics(admin, created)
    return created


def await_topics(admin: AdminClient, names: Sequence[str]) -> None:
    """Waits until the broker knows the topics that its controller has just created, which takes it a moment."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while names and len(describe_topics(admin, names)) < len(names):
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"New topics did not appear within {REQUEST_TIMEOUT_S:g} s")
        time.sleep(0.02)


def check_topics(settings: Settings) -> list[Finding]:
    """Compares the broker's topics with what they should be; nothing found is well.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigurationError: the broker refuses.
    """
    admin = open_admin(settings)
    specs = topic_specs(settings)
    known = describe_topics(admin, [spec.name for spec in specs])
    configs = topic_configs(admin, known)
    findings = []
    for spec in specs:
        if spec.name in known:
            findings += compare(spec, known[spec.name], configs[spec.name])
        else:
            findings.append(
                Finding(topic=spec.name, problem="is missing", remedy="`penchant topics create` creates it.")
            )
    return findings


def compare(spec: TopicSpec, known: TopicIdentity, config: dict[str, str]) -> list[Finding]:
    """What is wrong with a topic that exists. Most topics not keyed by user may have any number of partitions."""
    findings = []
    if spec.fixed and known.partitions != spec.partitions:
        findings.append(miscounted(spec, known.partitions))
    cleanup = config.get("cleanup.policy", "delete")
    if set(cleanup.split(",")) != {spec.cleanup}:
        findings.append(
            Finding(
                topic=spec.name,
                problem=f"is cleaned by {cleanup!r} and not by {spec.cleanup!r}",
                remedy=f"Set its cleanup.policy to {spec.cleanup} on the broker.",
            )
        )
    accepted = int(config.get("max.message.bytes", DEFAULT_MESSAGE_BYTES))
    if accepted < spec.max_message_bytes:
        findings.append(
            Finding(
                topic=spec.name,
                problem=f"accepts {accepted} bytes at most where records may have {spec.max_message_bytes}",
                remedy=f"Set its max.message.bytes to {spec.max_message_bytes} on the broker.",
            )
        )
    return findings


def miscounted(spec: TopicSpec, partitions: int) -> Finding:
    """What is wrong with a topic that has another number of partitions than it must have."""
    if spec.topic in OWN_PARTITIONS:
        problem = f"has {partitions} partitions where it must have {spec.partitions}"
        remedy = "Delete it and create it anew with `penchant topics create`, while no worker runs."
    else:
        problem = f"has {partitions} partitions where it and the topics keyed by user should have {spec.partitions}"
        remedy = (
            "Set kafka.partitions to what all of these topics have, or create this one anew; "
            "partitions added later would part users and items from their past."
        )
    return Finding(topic=spec.name, problem=problem, remedy=remedy)


def describe_topics(admin: AdminClient, names: Iterable[str]) -> dict[str, TopicIdentity]:
    """The identities of those topics among `names` that exist. Blocks for a round trip to the broker.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigurationError: the broker refuses.
    """
    known = {}
    pending = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_TIMEOUT_S)
    for name, done in pending.items():
        try:
            found = done.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise broker_error(error) from error
        else:
            known[name] = TopicIdentity(str(found.topic_id), len(found.partitions))
    return known


def topic_configs(admin: AdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The configuration of each topic, as far as the broker tells it."""
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    if not resources:
        return {}
    configs = {}
    for resource, done in admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            entries = done.result()
        except KafkaException as error:
            raise broker_error(error) from error
        configs[resource.name] = {key: entry.value for key, entry in entries.items() if entry.value is not None}
    return configs
