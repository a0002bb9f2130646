"""One space for all modalities: unit lengths, renormalised shares, and scores that split by slice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.fusion import Slice, Space, space_of

SPACE = Space((Slice("text", 4, 0.5, "t1"), Slice("image", 3, 0.3, "i1"), Slice("audio", 2, 0.2, "a1")))
SHARES = {"text": 0.5, "image": 0.3, "audio": 0.2}
NAMES = st.sets(st.sampled_from(sorted(SHARES)), min_size=1)
SEEDS = st.integers(0, 2**32 - 1)


def modalities(names, seed):
    """Random unit vectors of some modalities."""
    generator = np.random.default_rng(seed)
    made = {}
    for part in SPACE.slices:
        if part.name in names:
            vector = generator.normal(size=part.dimension)
            made[part.name] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return made


@given(NAMES, SEEDS)
def test_every_item_has_unit_length(names, seed):
    """Whatever modalities an item lacks, their shares go to those it has."""
    content = SPACE.fuse(modalities(names, seed))
    assert np.linalg.norm(content) == pytest.approx(1, abs=1e-6)
    total = sum(SHARES[name] for name in names)
    lengths = SPACE.norms(content[None, :])[0]
    for part, length in zip(SPACE.slices, lengths, strict=True):
        expected = SHARES[part.name] / total if part.name in names else 0
        assert length**2 == pytest.approx(expected, abs=1e-6)


@given(NAMES, SEEDS, NAMES, SEEDS)
def test_a_dot_product_is_the_share_weighted_sum_of_cosines(mine, one, yours, other):
    """Two items compare by the cosines of what both have, weighted by the geometric mean of their shares."""
    left, right = modalities(mine, one), modalities(yours, other)
    expected = sum(
        float(left[name] @ right[name])
        * SHARES[name]
        / np.sqrt(sum(SHARES[part] for part in mine) * sum(SHARES[part] for part in yours))
        for name in mine & yours
    )
    assert float(SPACE.fuse(left) @ SPACE.fuse(right)) == pytest.approx(expected, abs=1e-6)


@given(st.lists(NAMES, min_size=1, max_size=5), SEEDS)
def test_a_score_is_the_sum_of_its_parts(items, seed):
    """Parts by slice sum to the dot product, for any query."""
    contents = np.stack([SPACE.fuse(modalities(names, seed + row)) for row, names in enumerate(items)])
    query = np.random.default_rng(seed).normal(size=SPACE.dimension).astype(np.float32)
    parts = SPACE.parts(query, contents)
    assert parts.shape == (len(items), 3)
    np.testing.assert_allclose(parts.sum(axis=1), contents @ query, atol=1e-5)


def test_an_all_zero_slice_counts_as_absent():
    """A silent sound has no direction: its share goes to what the item has beside it."""
    text = modalities({"text"}, 1)["text"]
    content = SPACE.fuse({"text": text, "audio": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(content, SPACE.fuse({"text": text}))


WITH_GRAPH = Space((*SPACE.slices, Slice("graph", 5, 0.4, "published", apart=True)))


@given(NAMES, SEEDS)
def test_the_graph_stands_against_all_else_together(names, seed):
    """Whatever an item says of itself, the graph has its part of the whole, and the rest shares as without it."""
    graph = np.array([0, 3, 0, 4, 0], np.float32) / 5
    own = modalities(names, seed)
    content = WITH_GRAPH.fuse({**own, "graph": graph})
    assert np.linalg.norm(content) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(content[-5:], graph * np.sqrt(0.4), atol=1e-6)
    np.testing.assert_allclose(content[:-5], SPACE.fuse(own) * np.sqrt(0.6), atol=1e-6)
    np.testing.assert_array_equal(WITH_GRAPH.fuse(own)[:-5], SPACE.fuse(own))
    np.testing.assert_allclose(WITH_GRAPH.fuse({"graph": graph})[-5:], graph, atol=1e-6)


@given(NAMES, SEEDS, st.booleans())
def test_a_content_vector_gives_its_slices_back(names, seed, placed):
    """What was fused can be taken apart again, and fused with more or less, without embedding anything."""
    own = modalities(names, seed) | ({"graph": np.array([1, 0, 0, 0, 0], np.float32)} if placed else {})
    found = WITH_GRAPH.split(WITH_GRAPH.fuse(own))
    assert found.keys() == own.keys()
    for name, vector in own.items():
        np.testing.assert_allclose(found[name], vector, atol=1e-6)


@pytest.mark.parametrize("vectors", [{}, {"image": np.zeros(3, np.float32)}])
def test_an_item_without_content_has_no_vector(vectors):
    """Nothing is not a direction."""
    assert SPACE.fuse(vectors) is None


def test_a_modality_without_a_share_does_not_count():
    """Where the settings give a modality nothing, an item of it alone is void."""
    space = space_of({"text": 2, "image": 2}, {"text": "t", "image": "i"}, {"text": 1.0, "image": 0.0})
    ones = np.array([1, 0], np.float32)
    assert space.fuse({"image": ones}) is None
    np.testing.assert_array_equal(space.fuse({"text": ones, "image": ones}), [1, 0, 0, 0])


@pytest.mark.parametrize(
    "changed",
    [
        (Slice("text", 4, 0.5, "t2"), *SPACE.slices[1:]),
        (Slice("text", 5, 0.5, "t1"), *SPACE.slices[1:]),
        (Slice("text", 4, 0.6, "t1"), *SPACE.slices[1:]),
        SPACE.slices[::-1],
        SPACE.slices[:2],
        (*SPACE.slices[:2], Slice("audio", 2, 0.2, "a1", apart=True)),
    ],
)
def test_spaces_that_must_not_be_mixed_have_different_fingerprints(changed):
    """Encoder, dimension, share and order of slices all tell spaces apart."""
    assert Space(changed).fingerprint != SPACE.fingerprint
