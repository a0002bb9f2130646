"""Places in the graph's slice: a fixed projection, and closed forms for where an unknown entity should be."""

import numpy as np
import pytest

from penchant.profile.entities import Facing, GraphModel, neighbours_mean, place, principal, translated

WIDTH, DIMENSION = 8, 3


def as_complex(vector):
    """Real parts, then imaginary ones."""
    return vector[: WIDTH // 2] + 1j * vector[WIDTH // 2 :]


def as_real(vector):
    """And back."""
    return np.concatenate([vector.real, vector.imag]).astype(np.float32)


@pytest.fixture
def rows():
    """Vectors of twenty entities."""
    return np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)


def model(operation, rows, **operators):
    """A model with one relation, `r`."""
    mean, components = principal(rows, DIMENSION)
    return GraphModel(
        fingerprint="0" * 16,
        operation=operation,
        mean=mean,
        components=components,
        forward={"r": operators["forward"]},
        backward={"r": operators["backward"]},
    )


def test_a_translation_is_added_and_taken_off(rows):
    """TransE: a tail is at h + r, a head at t - r."""
    relation = np.arange(WIDTH, dtype=np.float32)
    transe = model("add", rows, forward=relation, backward=-relation)
    np.testing.assert_allclose(translated(transe, rows[0], Facing("r", "h", forward=True)), rows[0] + relation)
    np.testing.assert_allclose(translated(transe, rows[0], Facing("r", "t", forward=False)), rows[0] - relation)


def test_a_rotation_turns_and_turns_back(rows):
    """RotatE: a tail is at h * r, a head at t * conj(r), and one undoes the other."""
    phases = np.exp(1j * np.linspace(0, 3, WIDTH // 2))
    rotate = model("multiply", rows, forward=as_real(phases), backward=as_real(phases.conj()))
    there = translated(rotate, rows[0], Facing("r", "h", forward=True))
    np.testing.assert_allclose(as_complex(there), as_complex(rows[0]) * phases, rtol=1e-5)
    back = translated(rotate, there, Facing("r", "t", forward=False))
    np.testing.assert_allclose(back, rows[0], rtol=1e-4, atol=1e-6)


def test_a_factor_leads_where_the_score_is_largest(rows):
    """ComplEx: no vector as long scores a fact higher than the one that is the product of its other end."""
    factor = as_complex(np.random.default_rng(2).normal(size=WIDTH).astype(np.float32))
    complex_model = model("multiply", rows, forward=as_real(factor), backward=as_real(factor.conj()))
    tail = translated(complex_model, rows[0], Facing("r", "h", forward=True))
    assert np.linalg.norm(tail) == pytest.approx(np.linalg.norm(rows[0]), rel=1e-5)

    def score(vector):
        return (as_complex(rows[0]) * factor * as_complex(vector).conj()).real.sum()

    for other in np.random.default_rng(3).normal(size=(50, WIDTH)).astype(np.float32):
        assert score(other / np.linalg.norm(other) * np.linalg.norm(tail)) <= score(tail) + 1e-4


def test_a_new_entity_is_where_its_neighbours_say_on_average(rows):
    """The mean of the translations, whatever the order; of an unknown relation nothing follows."""
    relation = np.ones(WIDTH, np.float32)
    transe = model("add", rows, forward=relation, backward=-relation)
    facts = [
        (Facing("r", "a", forward=True), rows[0]),
        (Facing("r", "b", forward=False), rows[1]),
        (Facing("unheard of", "c", forward=True), rows[2]),
    ]
    expected = ((rows[0] + relation) + (rows[1] - relation)) / 2
    np.testing.assert_allclose(neighbours_mean(transe, facts), expected, rtol=1e-5)
    np.testing.assert_allclose(neighbours_mean(transe, facts[::-1]), expected, rtol=1e-5)
    assert neighbours_mean(transe, facts[2:]) is None
    assert neighbours_mean(transe, []) is None


def test_places_are_unit_vectors_in_the_strongest_components(rows):
    """What the slice keeps of distances is as much as any slice of its width can keep."""
    stretched = rows * np.array([9, 7, 5, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    mean, components = principal(stretched, DIMENSION)
    np.testing.assert_allclose(components @ components.T, np.eye(DIMENSION), atol=1e-5)
    centred = stretched - stretched.mean(axis=0)
    assert np.square(centred @ components.T).sum() > 0.99 * np.square(centred).sum()
    published = GraphModel(
        fingerprint="0" * 16, operation="add", mean=mean, components=components, forward={}, backward={}
    )
    for row in stretched:
        assert np.linalg.norm(place(published, row)) == pytest.approx(1, abs=1e-5)
    assert not place(published, mean).any()


@pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
@pytest.mark.parametrize("component", [np.finfo(np.float32).max, -np.finfo(np.float32).max, np.nan])
def test_a_vector_too_long_to_be_measured_has_no_place(rows, component):
    """What a forged vector overflows to is nothing, and never what is no number."""
    published = model("add", rows, forward=rows[0], backward=-rows[0])
    forged = np.full(WIDTH, component, np.float32)
    assert not place(published, forged).any()
    assert not place(published, translated(published, forged, Facing("r", "e", forward=True))).any()


def test_a_slice_wider_than_the_vectors_is_filled_with_zeros():
    """Two entities differ in one direction: the other components of the slice say nothing."""
    mean, components = principal(np.array([[1, 0], [0, 1]], np.float32), 4)
    assert components.shape == (4, 2)
    np.testing.assert_allclose(mean, [0.5, 0.5])
    assert [bool(row.any()) for row in components] == [True, False, False, False]
