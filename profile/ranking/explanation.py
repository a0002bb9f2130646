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

from penchant.profile.ranking.features import CANCELLED, View

__all__ = ["content_parts", "transition_parts"]

Floats = NDArray[np.float64]


def content_parts(shares: Floats, views: Mapping[str, View], chosen: NDArray[np.integer], scales: Floats) -> Floats:
    """What signals account for by features of content.

    Args:
        shares: of a user's k signals in each view, shape (3, k).
        views: by slice, of the past that they make and of all n candidates.
        chosen: which candidates to explain, shape (t,).
        scales: weights over deviations of the features, in the order of `content_names`; 0 for those that are flat.

    Returns:
        Shape (t, k).
    """
    parts = np.zeros((len(chosen), shares.shape[1]))
    for view, of_views in zip(views.values(), scales.reshape(-1, len(shares)), strict=True):
        if not view.lengths.any():
            continue
        per_length = np.divide(of_views, view.lengths, out=np.zeros(len(shares)), where=view.lengths > CANCELLED)
        above = view.targets[chosen] - view.targets.mean(axis=0)
        parts += (above @ view.known.T) * (per_length @ shares)
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
