"""Hands a trained graph to the workers: its entities' vectors, then the model that puts them in force.

Publishing is idempotent: broken off, it is begun anew. Until the model has arrived, what was published before stays in
force, less the entities whose vectors were replaced already.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.graph.folder import load_embedding, model_fingerprint
from penchant.graph.train import Embedding
from penchant.profile.entities import GraphModel, principal
from penchant.settings import Settings
from penchant.streams.client import Publisher
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, Unusable, decode, encode
from penchant.streams.entities import MODEL_KEY, model_event, vector_event
from penchant.streams.events import EntityVector
from penchant.streams.events import GraphModel as PublishedModel
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Output
from penchant.streams.topics import Topic

__all__ = ["Published", "graph_model", "publish"]


class Published(Struct, frozen=True, kw_only=True):
    """What was handed over.

    Attributes:
        model: its fingerprint.
        entities: vectors published.
        taken_back: vectors of entities that an earlier model knew and this one does not.
        kept_variance: the part of the vectors' variance that the slice keeps.
    """

    model: str
    entities: int
    taken_back: int
    kept_variance: float


def publish(folder: Path, settings: Settings, *, progress: Callable[[int, int], None] | None = None) -> Published:
    """Publishes the graph that a folder holds.

    Args:
        folder: that `penchant graph train` has written.
        settings: where the topics are, and how wide the graph's slice is.
        progress: told how many of how many vectors are on their way.

    Raises:
        ConfigurationError: the folder holds no trained graph, or the graph is beyond what a record may hold.
        Unavailable: the broker does not answer.
    """
    embedding = load_embedding(folder)
    model = graph_model(embedding, settings.fusion.graph_dimension)
    last = checked(model_event(model), PublishedModel)
    vectors = settings.prefixed(Topic.ENTITY_VECTORS)
    leftovers = known_entities(settings) - set(embedding.entities)
    with Publisher(settings) as publisher:
        for done, (name, row) in enumerate(zip(embedding.entities, embedding.vectors, strict=True), 1):
            value = checked(vector_event(name, model.fingerprint, row), EntityVector)
            publisher.publish(output(vectors, name.encode(), value), name)
            if progress is not None:
                progress(done, len(embedding.entities))
        publisher.flush()
        publisher.publish(output(settings.prefixed(Topic.GRAPH_MODEL), MODEL_KEY, last), model.fingerprint)
        for name in sorted(leftovers):
            publisher.publish(output(vectors, name.encode(), None), name)
    return Published(
        model=model.fingerprint,
        entities=len(embedding.entities),
        taken_back=len(leftovers),
        kept_variance=kept_variance(embedding, model),
    )


def graph_model(embedding: Embedding, dimension: int) -> GraphModel:
    """The model of an embedding, projected to its strongest `dimension` components.

    The projection is part of the fingerprint: another machine may turn components of like strength otherwise.
    """
    mean, components = principal(embedding.vectors, dimension)
    digest = hashlib.blake2b(model_fingerprint(embedding).encode() + components.tobytes(), digest_size=8)
    return GraphModel(
        fingerprint=digest.hexdigest(),
        operation="add" if embedding.model == "transe" else "multiply",
        mean=mean,
        components=components,
        forward=dict(zip(embedding.relations, embedding.forward, strict=True)),
        backward=dict(zip(embedding.relations, embedding.backward, strict=True)),
    )


def kept_variance(embedding: Embedding, model: GraphModel) -> float:
    """The part of the vectors' variance that the projection keeps."""
    centred = embedding.vectors - model.mean
    total = float((centred**2).sum())
    return float(((centred @ model.components.T) ** 2).sum()) / total if total else 0.0


def known_entities(settings: Settings) -> set[str]:
    """The entities that the topic has vectors of now."""
    found: set[str] = set()
    with TopicReader(settings, Topic.ENTITY_VECTORS, from_beginning=True) as reader:
        for record in reader.to_end():
            name = (record.key or b"").decode(errors="replace")
            (found.discard if record.value is None else found.add)(name)
    return found


def checked(event: msgspec.Struct, kind: type[msgspec.Struct]) -> bytes:
    """An event's bytes, if a worker would take them.

    Raises:
        ConfigurationError: the graph is beyond the contract's bounds.
    """
    value = encode(event)
    try:
        decode(kind, value)
    except Unusable as error:
        raise ConfigurationError(
            f"The graph is beyond what can be published: {error.args[0]}",
            hint="Train it with a smaller --dimension, or with fewer relations.",
        ) from None
    return value


def output(topic: str, key: bytes, value: bytes | None) -> Output:
    """A record to publish."""
    return Output(topic=topic, key=key, value=value, headers={CONTENT_TYPE: MSGPACK})
