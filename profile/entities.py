"""What a trained graph says of an entity: a place in the graph's slice of the space.

A trained *graph model* gives every entity a vector and every relation two operators: `forward` takes a head to where
its tail should be, `backward` a tail to where its head should be. For TransE (Bordes et al., 2013) they are added:
h + r and t - r. For RotatE (Sun et al., 2019) and ComplEx (Trouillon et al., 2016) they are multiplied as complex
numbers, component by component: h * r and t * conj(r), which is where those models' scores are largest; ComplEx with a
relation of its own for each inverse multiplies t by that.

A model's vectors are projected to the slice: centred, turned to their principal components, and cut. The projection is
fixed when the model is published, so that all of its vectors are comparable, and those of another model never are.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["Facing", "GraphModel", "Operation", "neighbours_mean", "place", "principal", "translated"]

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
Operation = Literal["add", "multiply"]


class Facing(Struct, frozen=True):
    """A fact as seen from an entity that has no vector.

    Attributes:
        relation: of the fact.
        neighbour: the entity at its other end.
        forward: the neighbour is the head, so that the relation leads to the entity.
    """

    relation: str
    neighbour: str
    forward: bool


class GraphModel(Struct, frozen=True, kw_only=True):
    """A published model.

    Attributes:
        fingerprint: vectors of another one are never compared with this one's.
        operation: how a relation's operators act.
        mean: of the entities' vectors, shape (width,).
        components: shape (dimension of the slice, width).
        forward: by relation, shape (width,).
        backward: by relation, shape (width,).
    """

    fingerprint: str
    operation: Operation
    mean: Vector
    components: Matrix
    forward: dict[str, Vector]
    backward: dict[str, Vector]

    @property
    def width(self) -> int:
        """Components of an entity's vector."""
        return len(self.mean)


def principal(vectors: Matrix, dimension: int) -> tuple[Vector, Matrix]:
    """The mean of vectors and their principal components, the strongest first.

    Args:
        vectors: shape (n, width).
        dimension: how many components; where there are fewer, the rest are zeros.

    Returns:
        The mean, shape (width,), and the components, shape (dimension, width), orthonormal where they are not zeros.
        Of each component the entry of largest size is positive: a decomposition leaves its sign open.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors.astype(np.float64) - mean
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    kept = rows[: min(dimension, int((values > values[0] * 1e-9).sum()))]
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)])
    components = np.zeros((dimension, vectors.shape[1]))
    components[: len(kept)] = kept * signs[:, None]
    return mean.astype(np.float32), components.astype(np.float32)


def place(model: GraphModel, vector: Vector) -> Vector:
    """An entity's unit vector in the slice.

    Args:
        model: that the vector is of.
        vector: shape (width,).

    Returns:
        Shape (dimension of the slice,); zeros for a vector that has no direction there: the mean itself, or one so long
        that its length is no number.
    """
    projected = model.components @ (vector - model.mean)
    length = np.linalg.norm(projected)
    usable = 0 < length < np.inf  # of what is no number nothing is true
    return (projected / length).astype(np.float32) if usable else np.zeros(len(projected), np.float32)


def translated(model: GraphModel, vector: Vector, facing: Facing) -> Vector:
    """Where an entity should be, by one fact and the vector of the neighbour in it.

    A factor of ComplEx changes lengths, which say how common an entity is and nothing of where: the result keeps the
    neighbour's.

    Args:
        model: with the fact's relation.
        vector: the neighbour's, shape (width,).
        facing: the fact.
    """
    operator = (model.forward if facing.forward else model.backward)[facing.relation]
    if model.operation == "add":
        return vector + operator
    half = model.width // 2
    product = (vector[:half] + 1j * vector[half:]) * (operator[:half] + 1j * operator[half:])
    there = np.concatenate([product.real, product.imag])
    length = np.linalg.norm(there)
    scale = np.linalg.norm(vector) / length if length else 0.0
    return (there * scale).astype(np.float32)


def neighbours_mean(model: GraphModel, neighbours: Sequence[tuple[Facing, Vector]]) -> Vector | None:
    """The vector of a new entity: the mean of its neighbours' translations.

    Args:
        model: that the vectors are of.
        neighbours: facts about the entity with the vectors of those at their other ends; of relations that the model
            does not know nothing follows.

    Returns:
        Shape (width,); None where nothing follows.
    """
    known = [
        translated(model, vector, facing)
        for facing, vector in neighbours
        if facing.relation in (model.forward if facing.forward else model.backward)
    ]
    return np.mean(known, axis=0).astype(np.float32) if known else None
