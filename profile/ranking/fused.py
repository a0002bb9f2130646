"""Ranking by fused content alone: one score, by one way of fusing, in place of the learned sum of features.

What a mode makes of items depends on each item alone, and of a user it knows what they liked last. Live ranking and
evaluation call the same functions: the one with a request's candidates, the other with a whole catalogue made once.

The articles' formulas are presets. An item stands in each for a user who liked it and nothing else, and a score is the
cosine of the user with the item:

- F = 0.5 x_t + 0.3 x_i + 0.2 x_a fuses the item, side by side and renormalised over what it has; the user is the mean
  of what they liked;
- U <- 0.6 U + 0.4 F is the user by what they liked last, and so in all that follow;
- R = 0.6 U + 0.4 g adds what the graph says, beside U: a graph's vectors are not in the space of a text's;
- U and R concatenated are [U; R], averaged (U + R) / 2;
- M = F * U * R, over the slices' common dimension, is no cosine: its components are summed.

With a, b the squared lengths that U and g have in a formula, its vector is their `concat` by the shares a and b.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.fusion import GRAPH
from penchant.profile.modes import (
    REMEMBERED,
    attention,
    average,
    concat,
    even,
    moving,
    projected,
    told,
    unit_rows,
)
from penchant.profile.ranking.whitening import Calibration

__all__ = ["FORMULAS", "MODES", "Liked", "Mode", "mode_of"]

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Slices = Mapping[str, Vectors]
Fuse = Callable[[Slices], Vectors]

PRESET_SHARES: Mapping[str, float] = {"text": 0.5, "image": 0.3, "audio": 0.2}  # F = 0.5 x_t + 0.3 x_i + 0.2 x_a
OF_USER, OF_GRAPH = 0.6, 0.4  # R = 0.6 U + 0.4 g
CONTENT = "content"  # what an item has besides its place in the graph
CANCELLED = 1e-12


class Liked(Struct, frozen=True, kw_only=True, eq=False):
    """What a user liked, newest first; k items, of which `REMEMBERED` count.

    Attributes:
        rows: which of the known items: shape (k,).
        ages_ms: how long before the moment of the list: shape (k,).
    """

    rows: NDArray[np.int64]
    ages_ms: NDArray[np.int64]


class Mode(Protocol):
    """A way to fuse content, and to score by it."""

    def fused(self, slices: Slices, /) -> Any:
        """Items as the mode compares them.

        Args:
            slices: by name, unit vectors of n items as encoders and graph give them, shape (n, d); zeros where one
                lacks it.
        """

    def scores(self, liked: Liked, known: Any, targets: Any, /) -> Vectors:
        """Of n items for one user: shape (n,).

        Args:
            liked: by the user, among the known items.
            known: items, `fused`.
            targets: the items to score, likewise.
        """

    def terms(self, liked: Liked, known: Any, targets: Any, /) -> Floats | None:
        """What each of the liked items adds to the scores, shape (k, n); None where a score is no such sum."""


class Summed:
    """Cosines with a weighted sum of what was liked.

    Args:
        fuse: slices to unit rows.
        shares: what each of so many liked items counts.
    """

    def __init__(self, fuse: Fuse, shares: Callable[[int], Floats]) -> None:
        self._fuse, self._shares = fuse, shares

    def fused(self, slices: Slices) -> Vectors:
        """See `Mode`: unit rows, shape (n, d)."""
        return self._fuse(slices)

    def scores(self, liked: Liked, known: Vectors, targets: Vectors) -> Vectors:
        """See `Mode`."""
        rows = liked.rows[:REMEMBERED]
        found: Vectors = targets @ unit_rows((self._shares(len(rows)) @ known[rows])[None])[0]
        return found

    def terms(self, liked: Liked, known: Vectors, targets: Vectors) -> Floats:
        """See `Mode`."""
        found = np.zeros((len(liked.rows), len(targets)))
        rows = liked.rows[:REMEMBERED]
        found[: len(rows)] = per_length(self._shares(len(rows)), known[rows])[:, None] * (known[rows] @ targets.T)
        return found


class Sliced(Struct, frozen=True, eq=False):
    """Items by slice: unit vectors of shape (n, d) each, and which slices each item has, shape (n, s)."""

    slices: tuple[Vectors, ...]
    present: NDArray[np.bool_]


class Attended:
    """Cosines by slice, weighted for the user by what each slice has told, and for the candidate by what it has.

    Args:
        calibration: whitens.
    """

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def fused(self, slices: Slices) -> Sliced:
        """See `Mode`: slices are kept apart."""
        found = tuple(whitened(slices, self._calibration).values())
        return Sliced(found, np.stack([vectors.any(axis=1) for vectors in found], axis=1))

    def scores(self, liked: Liked, known: Sliced, targets: Sliced) -> Vectors:
        """See `Mode`."""
        rows = liked.rows[:REMEMBERED]
        users = [unit_rows((moving(len(rows)) @ vectors[rows])[None])[0] for vectors in known.slices]
        cosines = np.stack([vectors @ user for vectors, user in zip(targets.slices, users, strict=True)], axis=1)
        found: Vectors = (weights_of(rows, known, targets) * cosines).sum(axis=1).astype(np.float32)
        return found

    def terms(self, liked: Liked, known: Sliced, targets: Sliced) -> Floats:
        """See `Mode`. What was liked also moves the weights: they are taken as they are."""
        rows = liked.rows[:REMEMBERED]
        found = np.zeros((len(liked.rows), len(targets.present)))
        weights = weights_of(rows, known, targets).T
        for mine, others, of_slice in zip(known.slices, targets.slices, weights, strict=True):
            shares = per_length(moving(len(rows)), mine[rows])
            found[: len(rows)] += shares[:, None] * (mine[rows] @ others.T) * of_slice
        return found


class Product:
    """The articles' M = F * U * R over the common dimension, summed over its components.

    Args:
        calibration: whitens, and says which components are loudest.
    """

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def fused(self, slices: Slices) -> Vectors:
        """See `Mode`: of each item F, then g: shape (2, n, c)."""
        common = in_common(slices, self._calibration)
        content = average(without_graph(common), PRESET_SHARES)
        return np.stack([content, common.get(GRAPH, np.zeros_like(content))])

    def scores(self, liked: Liked, known: Vectors, targets: Vectors) -> Vectors:
        """See `Mode`."""
        rows = liked.rows[:REMEMBERED]
        user, graph = moving(len(rows)) @ known[:, rows]
        found: Vectors = (targets[0] @ (user * (OF_USER * user + OF_GRAPH * graph))).astype(np.float32)
        return found

    def terms(self, liked: Liked, known: Vectors, targets: Vectors) -> None:
        """See `Mode`: what was liked is multiplied with itself, and belongs to no one signal."""


def whitened(slices: Slices, calibration: Calibration) -> dict[str, Vectors]:
    """Slices as ranking compares them."""
    return {name: calibration.apply(name, vectors) for name, vectors in slices.items()}


def in_common(slices: Slices, calibration: Calibration) -> dict[str, Vectors]:
    """Slices whitened and projected to their common dimension."""
    found = whitened(slices, calibration)
    return projected(found, {name: calibration.loudest(name, one.shape[1]) for name, one in found.items()})


def without_graph(slices: Slices) -> dict[str, Vectors]:
    """What items have besides their place in the graph."""
    return {name: vectors for name, vectors in slices.items() if name != GRAPH}


def beside_graph(slices: Slices, shares: Mapping[str, float], *, of_content: float, of_graph: float) -> Vectors:
    """Content fused by shares, and the graph's slice beside it: unit rows.

    Args:
        slices: whitened.
        shares: of the slices that are not the graph's.
        of_content: share of all those together; and
        of_graph: of the graph's, of what an item has.
    """
    content = {CONTENT: concat(without_graph(slices), shares)}
    graph = {GRAPH: slices[GRAPH]} if GRAPH in slices else {}
    return concat(content | graph, {CONTENT: of_content, GRAPH: of_graph})


def weights_of(rows: NDArray[np.int64], known: Sliced, targets: Sliced) -> Floats:
    """Attention to each slice of each target, by what was liked: shape (n, s)."""
    return attention(np.array([told(vectors[rows]) for vectors in known.slices]), targets.present)


def per_length(shares: Floats, vectors: Vectors) -> Floats:
    """What vectors count in the direction of their sum by shares: shape (k,); zeros where they cancel."""
    length = np.linalg.norm(shares @ vectors)
    return shares / length if length > CANCELLED else np.zeros_like(shares)


# By formula, the squares of how much of U and of g is in it. [U; R] has U and 0.6 U, and their mean 0.8 U and 0.2 g.
FORMULAS: Mapping[str, tuple[float, float]] = {
    "F": (1.0, 0.0),
    "U": (1.0, 0.0),
    "R": (OF_USER**2, OF_GRAPH**2),
    "UR-concat": (1 + OF_USER**2, OF_GRAPH**2),
    "UR-average": (((1 + OF_USER) / 2) ** 2, (OF_GRAPH / 2) ** 2),
}
# All that are functions of content alone; deep fusion is one more, and comes with a model.
MODES = ("concat", "average", "weighted", "attention", *FORMULAS, "M")


def mode_of(name: str, calibration: Calibration, shares: Mapping[str, float]) -> Mode:
    """A mode.

    Args:
        name: one of `MODES`.
        calibration: of the slices.
        shares: of the slices, by their names, as the settings have them.
    """
    if name == "attention":
        return Attended(calibration)
    if name == "M":
        return Product(calibration)
    if name == "average":
        return Summed(lambda slices: average(in_common(slices, calibration)), moving)
    if name == "concat":
        return Summed(lambda slices: concat(whitened(slices, calibration)), moving)
    if name == "weighted":
        of_content, of_graph = 1 - shares[GRAPH], shares[GRAPH]
    else:
        shares, (of_content, of_graph) = PRESET_SHARES, FORMULAS[name]
    return Summed(
        lambda slices: beside_graph(whitened(slices, calibration), shares, of_content=of_content, of_graph=of_graph),
        even if name == "F" else moving,
    )
