"""Implicit ALS: a matrix factorisation of all interactions, with missing ones as weak evidence against.

Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (ICDM 2008), by the `implicit` library.
Users are folded in: their factors are solved for anew from their likes of now, at each request.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from penchant.errors import ConfigurationError
from penchant.evaluation.baselines.refitted import Model, Refitted

__all__ = ["Als"]

EVERY = 2_000
FACTORS = 32
REGULARISATION = 10.0
CONFIDENCE = 10.0  # alpha: what an interaction weighs
ITERATIONS = 10


class Als(Refitted):
    """Implicit ALS.

    Args:
        users: how many there are.
        items: likewise.
        seed: of the first factors, at every fit.

    Raises:
        ConfigurationError: the optional part that evaluates is not installed.
    """

    def __init__(self, users: int, items: int, seed: int) -> None:
        super().__init__(f"ALS every {EVERY:,}", EVERY, users, items)
        try:
            from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415  an optional package
            from threadpoolctl import threadpool_limits  # noqa: PLC0415  it comes with that
        except ImportError:
            raise ConfigurationError(
                "ALS needs the package implicit", hint='`pip install "penchant[evaluation]"` installs it.'
            ) from None
        self._library, self._limited = AlternatingLeastSquares, threadpool_limits
        self._seed = seed

    def fit(self, matrix: "scipy.sparse.csr_array[np.float64]") -> Model:
        """The items' factors."""
        items = matrix.shape[1]
        with self._limited(limits=1, user_api="blas"):  # the library warns of more, which only get into its way
            model = self._library(
                factors=FACTORS,
                regularization=REGULARISATION,
                alpha=CONFIDENCE,
                iterations=ITERATIONS,
                num_threads=1,
                random_state=self._seed,
            )
            model.fit(scipy.sparse.csr_matrix(matrix), show_progress=False)

        def score(liked: Sequence[int]) -> NDArray[np.floating]:
            likes = scipy.sparse.csr_matrix(
                (np.ones(len(liked), np.float32), (np.zeros(len(liked), np.int32), liked)), shape=(1, items)
            )
            scores: NDArray[np.float32] = model.item_factors @ model.recalculate_user(0, likes)
            return scores

        return score
