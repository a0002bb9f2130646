"""The wire contract as AsyncAPI 3.0, generated from the structs and the settings: it cannot fall behind them."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args

import msgspec

from penchant import __version__
from penchant.settings import Settings
from penchant.streams.codec import CONTENT_TYPE, JSON, MSGPACK
from penchant.streams.dead_letters import DETAIL, OFFSET, PARTITION, REASON, TIMESTAMP, TOPIC
from penchant.streams.events import (
    Click,
    EntityVector,
    GraphModel,
    Item,
    ItemReady,
    LearnedWeights,
    Lesson,
    MediaUpload,
    Post,
    Recommendations,
    Transition,
    Triple,
)
from penchant.streams.topics import Topic, TopicSpec, topic_specs

__all__ = ["contract"]

REFERENCE = "#/components/schemas/{name}"

PAYLOADS: Mapping[Topic, type[msgspec.Struct] | UnionType] = {
    Topic.CLICKS: Click,
    Topic.POSTS: Post,
    Topic.MEDIA_UPLOADS: MediaUpload,
    Topic.ITEMS: Item,
    Topic.TRIPLES: Triple,
    Topic.ENTITY_VECTORS: EntityVector,
    Topic.GRAPH_MODEL: GraphModel,
    Topic.ITEM_READY: ItemReady,
    Topic.TRANSITIONS: Transition,
    Topic.EXAMPLES: Lesson,
    Topic.WEIGHTS: LearnedWeights,
    Topic.RECOMMENDATIONS: Recommendations,
}
# What penchant sends and what it receives; what it tells only itself is both.
SENT = frozenset(
    {
        Topic.RECOMMENDATIONS,
        Topic.DEAD_LETTERS,
        Topic.ITEM_READY,
        Topic.TRANSITIONS,
        Topic.EXAMPLES,
        Topic.WEIGHTS,
        Topic.ENTITY_VECTORS,
        Topic.GRAPH_MODEL,
    }
)
RECEIVED = frozenset(PAYLOADS) - {Topic.RECOMMENDATIONS}
NULLABLE = frozenset({Topic.ITEMS, Topic.TRIPLES, Topic.ENTITY_VECTORS, Topic.GRAPH_MODEL, Topic.RECOMMENDATIONS})
KEYS: Mapping[Topic, str] = {
    Topic.ITEMS: "the item's id",
    Topic.TRANSITIONS: "the item's id",
    Topic.TRIPLES: 'the triple as a JSON array: ["head", "relation", "tail"]',
    Topic.ENTITY_VECTORS: "the entity",
    Topic.GRAPH_MODEL: "always `model`: the last record is in force",
    Topic.EXAMPLES: "none: examples name nobody",
    Topic.WEIGHTS: "always `weights`: the last record is in force",
    Topic.DEAD_LETTERS: "the original record's key",
}
USER_KEY = "the user's id"

CONTENT_TYPE_HEADER = {
    "type": "object",
    "properties": {
        CONTENT_TYPE: {
            "enum": [MSGPACK.decode(), JSON.decode()],
            "description": "Without it a value that begins with a brace or white space is JSON, any other msgpack.",
        }
    },
}
DEAD_LETTER_HEADERS = {
    "type": "object",
    "properties": {
        TOPIC: {"type": "string", "description": "where the original came from"},
        PARTITION: {"type": "string", "pattern": "^[0-9]+$"},
        OFFSET: {"type": "string", "pattern": "^[0-9]+$"},
        TIMESTAMP: {"type": "string", "description": "of the original record, epoch milliseconds"},
        REASON: {"type": "string", "description": "a short word for counting and filtering"},
        DETAIL: {"type": "string", "description": "what is wrong; names fields and bounds, never values"},
    },
    "required": [TOPIC, PARTITION, OFFSET, TIMESTAMP, REASON, DETAIL],
}


def contract(settings: Settings) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of this namespace, ready to be written as JSON (which is YAML, too)."""
    references, schemas = msgspec.json.schema_components(PAYLOADS.values(), ref_template=REFERENCE)
    for struct in PAYLOADS.values():
        if isinstance(struct, UnionType):
            continue
        schema = schemas[struct.__name__]
        # The codec takes values without the type tag where a topic carries one type.
        schema["required"] = [name for name in schema["required"] if name != "type"]
    payloads = dict(zip(PAYLOADS, references, strict=True))
    specs = topic_specs(settings)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "penchant",
            "version": __version__,
            "description": "Events in, recommendations out. Unknown fields are ignored. Times are epoch "
            "milliseconds or RFC 3339 with an offset; absent, the record's timestamp counts.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": MSGPACK.decode(),
        "channels": {spec.topic.value: channel(spec) for spec in specs},
        "operations": dict(operation for spec in specs for operation in operations(spec.topic)),
        "components": {
            "schemas": schemas,
            "messages": {spec.topic.value: message(spec.topic, payloads) for spec in specs},
        },
    }


def channel(spec: TopicSpec) -> dict[str, Any]:
    """A topic, and how the broker keeps it."""
    topic = spec.topic.value
    return {
        "address": spec.name,
        "messages": {topic: {"$ref": f"#/components/messages/{topic}"}},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "replicas": spec.replication_factor,
                "topicConfiguration": {
                    "cleanup.policy": [spec.cleanup],
                    "max.message.bytes": spec.max_message_bytes,
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    """What penchant does with a topic."""
    actions = [action for action, topics in (("receive", RECEIVED), ("send", SENT)) if topic in topics]
    return [
        (f"{action}-{topic.value}", {"action": action, "channel": {"$ref": f"#/channels/{topic.value}"}})
        for action in actions
    ]


def message(topic: Topic, payloads: Mapping[Topic, dict[str, Any]]) -> dict[str, Any]:
    """What a record of the topic looks like."""
    described: dict[str, Any] = {
        "name": topic.value,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": KEYS.get(topic, USER_KEY)},
                "bindingVersion": "0.5.0",
            }
        },
    }
    if topic is Topic.DEAD_LETTERS:
        return described | {
            "summary": "The original bytes of what could not be used, with its own headers and these.",
            "contentType": "application/octet-stream",
            "headers": DEAD_LETTER_HEADERS,
        }
    payload: dict[str, Any] = payloads[topic]
    if topic in NULLABLE:
        payload = {"oneOf": [payload, {"type": "null", "description": "deletes what the key names"}]}
    return described | {"summary": summary(PAYLOADS[topic]), "headers": CONTENT_TYPE_HEADER, "payload": payload}


def summary(kind: type[msgspec.Struct] | UnionType) -> str:
    """What a topic's values say, in a sentence for each type."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return " ".join((one.__doc__ or "").partition("\n")[0] for one in kinds)
