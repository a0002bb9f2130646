"""Vectors from facts without training: what items share, weighted by how telling it is.

Each item is the set of its attributes (a relation and what it leads to). Attributes are weighted by their inverse
document frequency (Sparck Jones, Journal of Documentation 1972), and the matrix of items by attributes is reduced to
its largest singular values (Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 1990): items with like
attributes, and with attributes that occur together, come to lie near each other.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

__all__ = ["incidence_vectors"]

SEED = 0  # of the solver's starting vector: the outcome depends on it only by rounding and sign


def incidence_vectors(attributes: Sequence[frozenset[str]], dimension: int) -> NDArray[np.float32]:
    """Unit vectors of items by what they share.

    Args:
        attributes: of each of n items.
        dimension: of the vectors, less than n and than the number of attributes.

    Returns:
        Shape (n, dimension), the strongest components first; zeros for items without attributes.
    """
    columns = {name: column for column, name in enumerate(sorted(frozenset[str]().union(*attributes)))}
    indptr = np.cumsum([0, *map(len, attributes)])
    indices = np.array([columns[name] for one in attributes for name in sorted(one)], np.int64)
    holders = np.bincount(indices, minlength=len(columns))
    telling = np.log(len(attributes) / holders)
    matrix = csr_array((telling[indices], indices, indptr), shape=(len(attributes), len(columns)))
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    rows = np.repeat(1 / np.where(lengths > 0, lengths, 1), np.diff(indptr))
    unit = csr_array((matrix.data * rows, indices, indptr), shape=matrix.shape)
    left, values, _ = svds(unit, k=dimension, v0=np.random.default_rng(SEED).standard_normal(min(unit.shape)))
    found = (left * values)[:, np.argsort(-values)]
    found = (found - found.mean(axis=0)) * (lengths > 0)[:, None]  # what all items have in common tells none apart
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    vectors: NDArray[np.float32] = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0).astype(
        np.float32
    )
    return vectors
