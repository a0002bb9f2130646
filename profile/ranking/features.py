"""Features: what an item has to do with a user, one named number each, from which a list's scores are made.

By slice of content (text, image, audio, graph), with cosines of whitened unit vectors:

- `long`, `short`: to the interest vector of either horizon;
- `last`: to the moving average of the items liked last, in their order and whatever the time between: of each newer
  one 0.3, of what was before it 0.7.

By behaviour: `transitions` to the item from what the user liked before (see `penchant.profile.affinity`) and from the
very last ones alone, the logarithm of its popularity by horizon, and its age.

All of them are taken for many users and many items at once. Where a feature is unknown it is zero; scores compare
features only after they have been standardised among the candidates of one request.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from penchant.profile.affinity import is_positive
from penchant.profile.interest import Horizons
from penchant.profile.signals import Signal

__all__ = [
    "BEHAVIOUR",
    "CONTENT",
    "MOMENT",
    "Past",
    "View",
    "centred",
    "content_features",
    "content_names",
    "inverted",
    "past_of",
    "standardised",
    "view_shares",
    "views_of",
]

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Sparse = Any  # csr_array of float64

CONTENT = ("long", "short", "last")
BEHAVIOUR = ("transitions", "popularity_30d", "popularity_365d", "popularity", "age")
NEWEST = 0.3
LAST = 40  # items: less than a millionth is left of what was before
CANCELLED = 1e-12
LEAST_LEFT = 0.1  # of what was added up
FLAT = 1e-9  # a feature that varies less than this among candidates, or than this part of its mean there,
SAME = 1e-6  # tells them apart by rounding

MOMENT = attrgetter("time", "event_id")  # what orders a user's signals


class Past(Struct, frozen=True, kw_only=True, eq=False):
    """A user's signals on items that have content, newest first; k of them.

    Attributes:
        rows: which row of the content holds the item: shape (k,).
        weights: of the signals: shape (k,).
        ages: how long before the newest, milliseconds: shape (k,).
        positive: which of them are positive: shape (k,).
    """

    rows: NDArray[np.integer]
    weights: Floats
    ages: Floats
    positive: NDArray[np.bool_]


class View(Struct, frozen=True, kw_only=True, eq=False):
    """One slice of a user's past and of n candidates.

    Attributes:
        known: unit vectors of the items of the past, shape (k, d); zeros where an item lacks the slice.
        targets: likewise of the candidates, shape (n, d).
        lengths: of the past's sums in each view, before they were made unit, shape (3,).
        features: cosines of those with the candidates, shape (3, n).
    """

    known: Vectors
    targets: Vectors
    lengths: Floats
    features: Vectors


def past_of(signals: Iterable[Signal], rows: Mapping[str, int]) -> Past:
    """A user's past.

    Args:
        signals: in any order.
        rows: which row of the content holds an item; signals on other items do not count.
    """
    known = sorted((signal for signal in signals if signal.item_id in rows), key=MOMENT, reverse=True)
    times = np.array([signal.time for signal in known], np.int64)
    return Past(
        rows=np.array([rows[signal.item_id] for signal in known], np.int64),
        weights=np.array([signal.weight for signal in known], float),
        ages=(times.max(initial=0) - times).astype(float),
        positive=np.array([is_positive(signal) for signal in known], bool),
    )


def content_names(slices: Iterable[str]) -> tuple[str, ...]:
    """Names of the features that `content_features` gives, in their order."""
    return tuple(f"{name}_{kind}" for name in slices for kind in CONTENT)


def content_features(
    pasts: Sequence[Past], memory: Mapping[str, Vectors], candidates: Mapping[str, Vectors], horizons: Horizons
) -> Vectors:
    """Features of content.

    Args:
        pasts: of u users; their rows are those of `memory`.
        memory: by slice, unit vectors of the items in the pasts, shape (m, d); zeros where an item lacks the slice.
        candidates: by slice, likewise of the n candidates, shape (n, d).
        horizons: half-lives.

    Returns:
        Shape (slices x 3, u, n), in the order of `content_names`.
    """
    by_user = [view_shares(one, horizons) for one in pasts]
    views = vstack([combined(pasts, [one[view] for one in by_user]) for view in range(len(CONTENT))], format="csr")
    found = np.empty((len(candidates), views.shape[0], len(next(iter(candidates.values())))), np.float32)
    for plane, (name, targets) in zip(found, candidates.items(), strict=True):
        np.matmul(directions(views, memory[name]), targets.T, out=plane)
    return found.reshape(-1, len(pasts), found.shape[-1])


def views_of(shares: Floats, known: Vectors, targets: Vectors) -> View:
    """One slice of a user's past and of n candidates: what `content_features` computes, for one user.

    In single precision, as long as no more than a digit is lost by what cancels.

    Args:
        shares: of the past's signals in each view, as `view_shares` gives them, shape (3, k).
        known: unit vectors of their items, shape (k, d).
        targets: of the candidates, shape (n, d).
    """
    if not known.shape[1]:  # a slice that no item has
        nothing = np.zeros((len(shares), len(targets)), np.float32)
        return View(known=known, targets=targets, lengths=np.zeros(len(shares)), features=nothing)
    sums = (shares.astype(np.float32) @ known).astype(np.float64)
    lengths = np.sqrt(np.einsum("vd,vd->v", sums, sums))
    if (lengths < LEAST_LEFT * np.abs(shares).sum(axis=1)).any():
        sums = shares @ known.astype(np.float64)
        lengths = np.sqrt(np.einsum("vd,vd->v", sums, sums))
    unit = np.divide(sums, lengths[:, None], out=np.zeros_like(sums), where=lengths[:, None] > CANCELLED)
    return View(known=known, targets=targets, lengths=lengths, features=unit.astype(np.float32) @ targets.T)


def view_shares(past: Past, horizons: Horizons) -> tuple[Floats, Floats, Floats]:
    """What signals count in the directions of `long`, `short` and `last`: shape (k,) each."""
    return (
        past.weights * np.exp2(-past.ages / horizons.long_ms),
        past.weights * np.exp2(-past.ages / horizons.short_ms),
        averaged(past.positive),
    )


def averaged(chosen: NDArray[np.bool_]) -> Floats:
    """The weights of a moving average over the entries that are chosen, zeros for the others."""
    places = np.cumsum(chosen)
    weights: Floats = np.where(chosen & (places <= LAST), (1 - NEWEST) ** (places - 1.0), 0.0)
    return weights


def combined(pasts: Sequence[Past], coefficients: Sequence[Floats]) -> Sparse:
    """Users' coefficients on their past as one sparse matrix, users by rows of the content."""
    kept = [one.nonzero()[0] for one in coefficients]
    rows = [np.zeros(0, np.int64), *(past.rows[places] for past, places in zip(pasts, kept, strict=True))]
    values = [np.zeros(0), *(one[places] for one, places in zip(coefficients, kept, strict=True))]
    width = max((int(past.rows.max()) + 1 for past in pasts if len(past.rows)), default=0)
    indptr = np.cumsum([0, *map(len, kept)])
    return csr_array((np.concatenate(values), np.concatenate(rows), indptr), shape=(len(pasts), width))


def directions(coefficients: Sparse, known: Vectors) -> Vectors:
    """Unit combinations of known vectors, (rows, d); zeros where they cancel."""
    sums = coefficients @ known[: coefficients.shape[1]].astype(np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: Vectors = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > CANCELLED).astype(np.float32)
    return unit


def standardised(features: Vectors) -> Vectors:
    """Features of one request's candidates less their mean, in standard deviations; a flat one says nothing.

    Never clipped: that would tie the very items that matter.

    Args:
        features: shape (..., n).
    """
    above, spread = centred(features)
    return above * inverted(spread)[..., None]


def inverted(spread: Vectors) -> Vectors:
    """One over each deviation; 0 of what is flat."""
    inverse: Vectors = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    return inverse


def centred(features: Vectors) -> tuple[Vectors, Vectors]:
    """Features less their mean, and their deviations, 0 where one is flat."""
    means = features.mean(axis=-1)
    above = features - means[..., None]
    spread = np.sqrt(np.einsum("...n,...n->...", above, above) / features.shape[-1])
    flat = spread <= np.maximum(FLAT, SAME * np.abs(means))
    found: Vectors = np.where(flat, 0, spread).astype(features.dtype)
    return above, found
