"""Training learns what facts have in common, gives the same for the same seed, and is kept without pickles."""

import numpy as np
import pytest

from penchant.errors import ConfigurationError
from penchant.graph.facts import Facts, split
from penchant.graph.folder import (
    TRAINING,
    VECTORS,
    load_embedding,
    load_training,
    model_fingerprint,
    save,
    training_of,
)
from penchant.graph.publish import graph_model
from penchant.graph.train import RECIPES, train, with_changes
from penchant.profile.entities import Facing, translated

MODELS = sorted(RECIPES)
SMALL = {"complex": (16, 12), "transe": (16, 8), "rotate": (8, 10)}


@pytest.fixture(scope="module")
def facts():
    """Two families of eight, all of whom know two of their own."""
    return split(
        [
            (f"{family}{number}", "knows", f"{family}{(number + step) % 8}")
            for family in "ab"
            for number in range(8)
            for step in (1, 2, 4)
        ],
        source="families",
        seed=0,
    )


@pytest.fixture(scope="module")
def trained(facts):
    """Each model, trained for a moment."""
    found = {}
    for name in MODELS:
        dimension, epochs = SMALL[name]
        found[name] = train(facts, name, recipe=with_changes(RECIPES[name], dimension=dimension, epochs=epochs))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_entity_and_relation_has_finite_numbers(facts, trained, name):
    """Rows by name, complex numbers side by side, ranks within their bounds."""
    found = trained[name]
    width = SMALL[name][0] * (1 if name == "transe" else 2)
    assert found.embedding.entities == facts.entities
    assert found.embedding.vectors.shape == (16, width)
    assert found.embedding.forward.shape == found.embedding.backward.shape == (1, width)
    assert np.isfinite(found.embedding.vectors).all()
    assert 0 < found.test.mrr <= 1
    assert found.test.hits_at_1 <= found.test.hits_at_3 <= found.test.hits_at_10
    assert 0 < found.best_epoch <= found.epochs <= SMALL[name][1]


@pytest.mark.parametrize("name", ["rotate", "transe"])
def test_backward_undoes_forward(trained, name):
    """What leads from head to tail leads back."""
    model = graph_model(trained[name].embedding, 4)
    row = trained[name].embedding.vectors[0]
    there = translated(model, row, Facing("knows", "a0", forward=True))
    back = translated(model, there, Facing("knows", "a0", forward=False))
    np.testing.assert_allclose(back, row, atol=1e-4)


def test_the_same_seed_gives_the_same_vectors(facts, trained):
    """And another one others."""
    recipe = with_changes(RECIPES["complex"], dimension=16, epochs=12)
    again, other = (train(facts, "complex", recipe=recipe, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.embedding.vectors, trained["complex"].embedding.vectors)
    assert model_fingerprint(again.embedding) == model_fingerprint(trained["complex"].embedding)
    assert model_fingerprint(other.embedding) != model_fingerprint(again.embedding)


def test_one_epoch_is_a_training_too(facts):
    """However short, the model is looked at, ranks, and can be kept."""
    found = train(facts, "complex", recipe=with_changes(RECIPES["complex"], dimension=8, epochs=1))
    assert found.best_epoch == found.epochs == 1


def test_what_hangs_together_lies_together(trained):
    """Trained ComplEx tells the two families apart."""
    embedding = trained["complex"].embedding
    centred = embedding.vectors - embedding.vectors.mean(axis=0)
    cosines = centred @ centred.T / np.linalg.norm(centred, axis=1)[:, None] / np.linalg.norm(centred, axis=1)
    family = np.array([name[0] for name in embedding.entities])
    same = family[:, None] == family
    np.fill_diagonal(same, val=False)
    apart = family[:, None] != family
    assert cosines[same].mean() > cosines[apart].mean()


def test_a_folder_gives_back_what_was_saved(facts, trained, tmp_path):
    """Names, numbers and how they came about; training again replaces them."""
    found = trained["rotate"]
    for _ in range(2):
        save(tmp_path / "graph", found.embedding, training_of(found, facts, recipe=RECIPES["rotate"], seed=0))
    assert {path.name for path in (tmp_path / "graph").iterdir()} == {VECTORS, TRAINING}
    loaded = load_embedding(tmp_path / "graph")
    assert (loaded.model, loaded.entities, loaded.relations) == ("rotate", facts.entities, facts.relations)
    for name in ("vectors", "forward", "backward"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(found.embedding, name))
    training = load_training(tmp_path / "graph")
    assert training.fingerprint == model_fingerprint(loaded)
    assert training.test == found.test
    assert training.facts["train"] == len(facts.train)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_trained_graph_is_refused(tmp_path, content):
    """An error that says what to do, and nothing is run that a file says."""
    if content is not None:
        (tmp_path / VECTORS).write_bytes(content)
    with pytest.raises(ConfigurationError, match="no trained graph"):
        load_embedding(tmp_path)


def test_a_graph_too_small_to_hold_facts_back_is_refused():
    """Without held-out facts nothing says when to stop."""
    facts = Facts(source="x", train=(("a", "r", "b"),), valid=(), test=())
    with pytest.raises(ConfigurationError, match="too small"):
        train(facts, "complex")
