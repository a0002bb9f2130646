"""EASE: the linear model over items in closed form.

Steck, "Embarrassingly shallow autoencoders for sparse data" (WWW 2019). With P = (XᵀX + λI)⁻¹ over the interactions X
the weights are B_ij = -P_ij / P_jj off the diagonal and 0 on it, and a user with indicator h of what they like scores
hB. For an item that is not in h that is

    s_j = -(P h)_j / P_jj

Where users are fewer than items, Woodbury's identity gives the same from an inverse of the users' size: with
K = (λI + XXᵀ)⁻¹, λP = I - XᵀKX.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from penchant.evaluation.baselines.refitted import Model, Refitted

__all__ = ["Ease", "by_items", "by_users"]

EVERY = 5_000
REGULARISATION = 200.0


class Ease(Refitted):
    """EASE over items that have interactions; the others score nothing.

    Args:
        users: how many there are.
        items: likewise.
    """

    def __init__(self, users: int, items: int) -> None:
        super().__init__(f"EASE every {EVERY:,}", EVERY, users, items)

    def fit(self, matrix: "scipy.sparse.csr_array[np.float64]") -> Model:
        """The weights, by the smaller inverse."""
        users, items = np.count_nonzero(np.diff(matrix.indptr)), len(np.unique(matrix.indices))
        return (by_users if users < items else by_items)(matrix, REGULARISATION)


def by_items(matrix: "scipy.sparse.csr_array[np.float64]", regularisation: float) -> Model:
    """The model from an inverse of shape (known items, known items)."""
    known = np.unique(matrix.indices)
    columns = matrix[:, known]
    inverse = inverted((columns.T @ columns).toarray(), regularisation)
    place = np.full(matrix.shape[1], -1)
    place[known] = np.arange(len(known))

    def score(liked: Sequence[int]) -> NDArray[np.floating]:
        places = place[liked]
        scores = np.zeros(len(place))
        scores[known] = -inverse[:, places[places >= 0]].sum(1) / inverse.diagonal()
        return scores

    return score


def by_users(matrix: "scipy.sparse.csr_array[np.float64]", regularisation: float) -> Model:
    """The same model from an inverse of shape (users, users)."""
    inverse = inverted((matrix @ matrix.T).toarray(), regularisation)
    columns = matrix.T.tocsr()
    user, item = matrix.nonzero()
    mixed = np.asarray(columns @ inverse)
    unexplained = 1 - np.bincount(item, mixed[item, user], minlength=matrix.shape[1])  # λP's diagonal

    def score(liked: Sequence[int]) -> NDArray[np.floating]:
        likeness = inverse @ np.asarray(columns[liked].sum(axis=0))
        sums = np.asarray(columns @ likeness)
        return sums / unexplained

    return score


def inverted(gram: NDArray[np.float64], regularisation: float) -> NDArray[np.float64]:
    """(G + λI)⁻¹ of a symmetric positive matrix, by its Cholesky factor: a third of the general way's work."""
    gram[np.diag_indices_from(gram)] += regularisation
    inverse, _ = scipy.linalg.lapack.dpotri(scipy.linalg.cholesky(gram, lower=True), lower=1)
    whole: NDArray[np.float64] = np.tril(inverse) + np.tril(inverse, -1).T
    return whole
