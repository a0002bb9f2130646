"""A trained graph is handed over whole: its vectors, its model, and nothing left of the one before."""

import numpy as np
import pytest

from penchant.errors import ConfigurationError
from penchant.graph.folder import Training, model_fingerprint, save
from penchant.graph.publish import Published, publish
from penchant.graph.train import RECIPES, Embedding, Ranks
from penchant.streams.entities import model_in, vector_in
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic


def write(folder, *entities, width=6, relations=("r",)):
    """A folder as training leaves it."""
    generator = np.random.default_rng(len(entities))
    vectors, forward = (
        generator.normal(size=(len(names), width)).astype(np.float32) for names in (entities, relations)
    )
    embedding = Embedding(
        model="transe", entities=entities, vectors=vectors, relations=relations, forward=forward, backward=-forward
    )
    ranks = Ranks(mrr=1.0, hits_at_1=1.0, hits_at_3=1.0, hits_at_10=1.0)
    training = Training(
        model="transe",
        fingerprint=model_fingerprint(embedding),
        source="made up",
        facts={"train": 1, "valid": 1, "test": 0},
        entities=len(entities),
        relations=len(relations),
        seed=0,
        recipe=RECIPES["transe"],
        best_epoch=1,
        epochs=1,
        seconds=0.0,
        valid=ranks,
        test=None,
    )
    save(folder, embedding, training)
    return embedding


def on(settings, topic):
    """The last record of each key."""
    with TopicReader(settings, topic, from_beginning=True) as reader:
        return {record.key: record for record in reader.to_end()}


def test_what_is_published_replaces_what_was(settings, tmp_path):
    """Vectors by entity, the model last; an entity that the new model does not know is taken back."""
    write(tmp_path / "one", "ada", "bob", "eve")
    embedding = write(tmp_path / "two", "ada", "bob")
    first = publish(tmp_path / "one", settings)
    assert (first.entities, first.taken_back) == (3, 0)
    second = publish(tmp_path / "two", settings)
    assert (second.entities, second.taken_back) == (2, 1)
    assert publish(tmp_path / "two", settings) == Published(
        model=second.model, entities=2, taken_back=0, kept_variance=second.kept_variance
    )
    vectors = on(settings, Topic.ENTITY_VECTORS)
    assert vectors[b"eve"].value is None
    for name, row in zip(embedding.entities, embedding.vectors, strict=True):
        found = vector_in(vectors[name.encode()])
        assert found.model == second.model
        np.testing.assert_array_equal(found.vector, row)
    [record] = on(settings, Topic.GRAPH_MODEL).values()
    model = model_in(record, settings.fusion.graph_dimension)
    assert (model.fingerprint, model.operation) == (second.model, "add")
    np.testing.assert_array_equal(model.backward["r"], -embedding.forward[0])


def test_what_no_record_can_hold_is_refused_before_anything_is_sent(settings, tmp_path):
    """Vectors that are too long: an error that says what to do, and the topics stay empty."""
    write(tmp_path / "wide", "ada", "bob", width=9_000)
    with pytest.raises(ConfigurationError, match="--dimension"):
        publish(tmp_path / "wide", settings)
    assert on(settings, Topic.ENTITY_VECTORS) == {}
