"""Ways of fusing: each by its definition, one item at a time, and its score as a sum over what was liked."""

import numpy as np
import pytest

from penchant.profile.modes import REMEMBERED, unit_rows
from penchant.profile.ranking.fused import MODES, Liked, mode_of
from penchant.profile.ranking.whitening import Calibration, calibrate

SHARES = {"text": 0.5, "image": 0.3, "audio": 0.2, "graph": 0.4}
ITEMS = 80


@pytest.fixture(scope="module")
def slices():
    """Unit vectors of eighty items, of which some have no image, some no graph, one nothing but the graph."""
    random = np.random.default_rng(1)
    sizes = {"text": 8, "image": 5, "graph": 4}
    found = {name: unit_rows(random.normal(size=(ITEMS, size)) + 0.5) for name, size in sizes.items()}
    found["image"][::3] = 0
    found["graph"][::4] = 0
    found["text"][7] = found["image"][7] = 0
    return found


@pytest.fixture(scope="module")
def calibration(slices):
    """Of the first two slices."""
    made = calibrate(slices)
    assert made.slices.keys() == {"text", "image"}
    return made


@pytest.fixture(params=[0, 1, 2, 5, REMEMBERED + 6])
def liked(request):
    """So many likes, some of an item liked before."""
    random = np.random.default_rng(request.param)
    return Liked(rows=random.integers(ITEMS, size=request.param), ages_ms=np.arange(request.param) * 1_000)


def direction(vector):
    """Of length one, or zero."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-12 else vector * 0


def side_by_side(parts):
    """Vectors and their squared lengths, of which those there are count: one unit vector."""
    total = sum(square for vector, square in parts if vector.any())
    return np.concatenate([vector * np.sqrt(square / total) if total else vector for vector, square in parts])


def item_vectors(mode, one):
    """An item's vector in a mode that sums, from its whitened slices."""
    preset = side_by_side([(one["text"], 0.5), (one["image"], 0.3)])
    if mode == "concat":
        return side_by_side([(one[name], 1.0) for name in ("text", "image", "graph")])
    if mode == "weighted":
        return side_by_side([(side_by_side([(one["text"], 0.5), (one["image"], 0.3)]), 0.6), (one["graph"], 0.4)])
    if mode in {"F", "U"}:
        return preset
    if mode == "R":
        return direction(np.concatenate([0.6 * preset, 0.4 * one["graph"]]))
    if mode == "UR-concat":
        return direction(np.concatenate([preset, 0.6 * preset, 0.4 * one["graph"]]))
    return direction(np.concatenate([(preset + 0.6 * preset) / 2, 0.4 * one["graph"] / 2]))


def summed(vectors, dimension):
    """All that is remembered, alike."""
    return sum(vectors[:REMEMBERED], np.zeros(dimension))


def moved(vectors, dimension):
    """U by one step after the other, from the oldest of what is remembered on."""
    user = np.zeros(dimension)
    for vector in vectors[:REMEMBERED][::-1]:
        user = 0.6 * user + 0.4 * vector
    return user


@pytest.mark.parametrize("mode", ["concat", "weighted", "F", "U", "R", "UR-concat", "UR-average"])
def test_a_score_is_the_cosine_of_the_user_with_the_item(mode, slices, calibration, liked):
    """By the formula as it stands, item after item and like after like."""
    whitened = {name: calibration.apply(name, vectors).astype(float) for name, vectors in slices.items()}
    items = [item_vectors(mode, {name: vectors[item] for name, vectors in whitened.items()}) for item in range(ITEMS)]
    user = (summed if mode == "F" else moved)([items[row] for row in liked.rows], len(items[0]))
    made = mode_of(mode, calibration, SHARES)
    fused = made.fused(slices)
    assert made.scores(liked, fused, fused) == pytest.approx([direction(user) @ item for item in items], abs=1e-5)


def common_of(slices, calibration):
    """The four loudest components of each slice, found from the whitened vectors' map."""
    found = {"graph": slices["graph"].astype(float)}
    for name in ("text", "image"):
        whitened, columns = calibration.apply(name, slices[name]), calibration.slices[name].map
        order = sorted(range(columns.shape[1]), key=lambda column: float(np.linalg.norm(columns[:, column])))
        found[name] = np.array([direction(row) for row in whitened[:, order[:4]].astype(float)])
    return found


def test_an_average_is_compared_over_the_common_dimension(slices, calibration, liked):
    """The mean of the projections that an item has."""
    common = common_of(slices, calibration)
    items = [direction(sum(common[name][item] for name in common)) for item in range(ITEMS)]
    user = direction(moved([items[row] for row in liked.rows], 4))
    made = mode_of("average", calibration, SHARES)
    fused = made.fused(slices)
    assert made.scores(liked, fused, fused) == pytest.approx([user @ item for item in items], abs=1e-5)


def test_m_is_the_product_over_the_common_dimension(slices, calibration, liked):
    """Of F of the item, U and R of the user, summed."""
    common = common_of(slices, calibration)
    items = [direction(0.5 * common["text"][item] + 0.3 * common["image"][item]) for item in range(ITEMS)]
    user = moved([items[row] for row in liked.rows], 4)
    graph = moved([common["graph"][row] for row in liked.rows], 4)
    ranked = 0.6 * user + 0.4 * graph
    made = mode_of("M", calibration, SHARES)
    fused = made.fused(slices)
    expected = [float((item * user * ranked).sum()) for item in items]
    assert made.scores(liked, fused, fused) == pytest.approx(expected, abs=1e-5)
    assert made.terms(liked, fused, fused) is None


def test_attention_weighs_slices_by_what_they_have_told(slices, calibration, liked):
    """Event after event: each slice's evidence moves by its cosine with the item liked, and then its memory does."""
    whitened = {name: calibration.apply(name, vectors).astype(float) for name, vectors in slices.items()}
    users = {name: np.zeros(vectors.shape[1]) for name, vectors in whitened.items()}
    evidence = dict.fromkeys(whitened, 0.0)
    for row in liked.rows[:REMEMBERED][::-1]:
        for name, vectors in whitened.items():
            evidence[name] = 0.8 * evidence[name] + 0.2 * float(direction(users[name]) @ vectors[row])
            users[name] = 0.6 * users[name] + 0.4 * vectors[row]
    expected = []
    for item in range(ITEMS):
        has = [name for name, vectors in whitened.items() if vectors[item].any()]
        powers = {name: np.exp(evidence[name] / 0.1) for name in has}
        cosines = {name: float(direction(users[name]) @ whitened[name][item]) for name in has}
        expected.append(sum(powers[name] * cosines[name] for name in has) / sum(powers.values()))
    made = mode_of("attention", calibration, SHARES)
    fused = made.fused(slices)
    assert made.scores(liked, fused, fused) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "M"])
def test_what_was_liked_accounts_for_the_score(mode, slices, calibration, liked):
    """Summed over likes; those beyond what is remembered account for nothing."""
    made = mode_of(mode, calibration, SHARES)
    known, targets = made.fused(slices), made.fused({name: vectors[:31] for name, vectors in slices.items()})
    terms = made.terms(liked, known, targets)
    assert terms.shape == (len(liked.rows), 31)
    assert terms.sum(axis=0) == pytest.approx(made.scores(liked, known, targets), abs=1e-5)
    assert not terms[REMEMBERED:].any()


@pytest.mark.parametrize("mode", MODES)
def test_an_item_is_fused_by_itself(mode, slices, calibration, liked):
    """So that a score does not depend on what it is compared with: a request's candidates as a whole catalogue."""
    made = mode_of(mode, calibration, SHARES)
    whole = made.fused(slices)
    rows, places = np.unique(liked.rows, return_inverse=True)
    known = made.fused({name: vectors[rows] for name, vectors in slices.items()})
    targets = made.fused({name: vectors[40:] for name, vectors in slices.items()})
    of_request = made.scores(Liked(rows=places, ages_ms=liked.ages_ms), known, targets)
    assert of_request == pytest.approx(made.scores(liked, whole, whole)[40:], abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_catalogue_of_texts_alone_is_fused_too(mode, slices):
    """Without a graph, without pictures, and before it is calibrated."""
    made = mode_of(mode, Calibration(), SHARES)
    fused = made.fused({"text": slices["text"]})
    scores = made.scores(Liked(rows=np.array([3, 4]), ages_ms=np.array([0, 5])), fused, fused)
    assert scores.shape == (ITEMS,)
    assert np.isfinite(scores).all()
    assert np.unique(scores).size > ITEMS // 2
