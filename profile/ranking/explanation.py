"""Explanation: how much of an item's score each of the user's signals accounts for.

Every feature that depends on the user is a sum over signals, of one *term* each: a signal's share of a direction times
its item's cosine with the candidate, or its weight among recent items times what the candidate's row has of it. A score
has features standardised among the candidates. So of the score

    sum_f w_f / sd_f * (f(c) - mean f)

a signal accounts for the sum over f of w_f / sd_f times its term for c less the mean of its terms over the candidates,
and all signals together account for exactly those features' parts.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penchant.profile.interest import Horizons
from penchant.profile.ranking.features import CANCELLED, Past, view_shares

__all__ = ["content_parts", "transition_parts"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


def content_parts(
    past: Past,
    memory: Mapping[str, Vectors],
    candidates: Mapping[str, Vectors],
    chosen: NDArray[np.integer],
    *,
    scales: Floats,
    horizons: Horizons,
) -> Floats:
    """What signals account for by features of content.

    Args:
        past: of a user, k signals; its rows are those of `memory`.
        memory: by slice, unit vectors of the items in the past, shape (m, d).
        candidates: by slice, likewise of all n candidates, shape (n, d).
        chosen: which candidates to explain, shape (t,).
        scales: weights over deviations of the features, in the order of `content_names`; 0 for those that are flat.
        horizons: half-lives.

    Returns:
        Shape (t, k).
    """
    views = np.stack(view_shares(past, horizons))
    parts = np.zeros((len(chosen), len(past.rows)))
    for (name, targets), of_views in zip(candidates.items(), scales.reshape(-1, len(views)), strict=True):
        known = memory[name][past.rows]
        lengths = np.linalg.norm(views @ known.astype(np.float64), axis=1)
        per_length = np.divide(of_views, lengths, out=np.zeros_like(lengths), where=lengths > CANCELLED)
        above = targets[chosen] - targets.mean(axis=0)
        parts += (above @ known.T) * (per_length @ views)
    return parts


def transition_parts(terms: Floats, chosen: NDArray[np.integer], scale: float) -> Floats:
    """What recent items account for by the feature of transitions.

    Args:
        terms: as `transition_terms` gives them, shape (r, n).
        chosen: which candidates to explain, shape (t,).
        scale: the feature's weight over its deviation; 0 where it is flat.

    Returns:
        Shape (t, r).
    """
    parts: Floats = scale * (terms[:, chosen] - terms.mean(axis=1, keepdims=True)).T
    return parts
