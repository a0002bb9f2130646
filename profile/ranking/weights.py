"""The learned linear ranker: how much each feature counts, and how that shifts while a user is away.

An item's score is a sum over features standardised among the candidates, so it splits into its parts as it stands.
Every feature has two weights: one that always counts, and one that counts the more the longer the user was away,

    score = sum_f (base_f + g * returning_f) * z_f,      g = absence / (absence + 8 h),

because the moment of return wants other things than the middle of a sitting.

The weights are learned from the stream, by softmax regression on what was liked against other candidates. Where those
are a sample, each is corrected by the logarithm of its chance to be drawn (Bengio and Senecal, "Adaptive Importance
Sampling to Accelerate Training of a Neural Probabilistic Language Model", 2008; Yi et al., "Sampling-Bias-Corrected
Neural Modeling", RecSys 2019). Steps are Adagrad's (Duchi, Hazan and Singer, JMLR 2011), which suit features that speak
rarely.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["ABSENCE_HALF_MS", "Learned", "Learner", "Weights", "gate", "proposals"]

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]

ABSENCE_HALF_MS = 8 * 3_600_000
RATE = 0.05
# What each sum of squares starts with. From nothing Adagrad's first steps move every weight by all of the rate, however
# little an example says: those by absence too, in the middle of a sitting, where their gradients are next to nothing.
CAUTION = 100.0
FEWEST = 0.1  # likes that an item is taken to have at least


def gate(absence_ms: float) -> float:
    """How much of an absence it is: 0 in the middle of a sitting, a half after eight hours, towards 1 beyond."""
    return absence_ms / (absence_ms + ABSENCE_HALF_MS)


def proposals(counts: Floats) -> Floats:
    """Chances of items to be drawn as negatives: half of them even, half by how often each was liked.

    Even ones alone are told from what is liked too easily to teach what makes the top of a list.

    Args:
        counts: likes of each of n items, shape (n,).
    """
    liked = counts + FEWEST
    chances: Floats = 0.5 / len(counts) + 0.5 * liked / liked.sum()
    return chances


class Weights(Struct, frozen=True, kw_only=True, eq=False):
    """Weights by feature.

    Attributes:
        names: of F features.
        base: that always count: shape (F,).
        returning: that count by `gate`: shape (F,).
    """

    names: tuple[str, ...]
    base: Floats
    returning: Floats

    @classmethod
    def of(cls, base: Mapping[str, float], returning: Mapping[str, float], names: Sequence[str]) -> "Weights":
        """Weights by name, zero where a feature is not named; weights of features that are not there are left out."""
        return cls(
            names=tuple(names),
            base=np.array([base.get(name, 0.0) for name in names]),
            returning=np.array([returning.get(name, 0.0) for name in names]),
        )

    def among(self, names: Sequence[str]) -> "Weights":
        """The same weights among those of other features, which have none."""
        base, returning = (dict(zip(self.names, one.tolist(), strict=True)) for one in (self.base, self.returning))
        return Weights.of(base, returning, names)

    def at(self, absence_ms: float) -> Floats:
        """The weights for a user who was away so long, shape (F,)."""
        return self.base + gate(absence_ms) * self.returning


class Learned(Struct, frozen=True, kw_only=True, eq=False):
    """What a stream has taught, and what it takes to go on learning.

    Attributes:
        weights: of F features.
        squares: sums of squared gradients, and of `CAUTION`, of the weights that always count and of those that count
            by `gate`: shape (2, F).
        examples: learned from.
    """

    weights: Weights
    squares: Floats
    examples: int

    @classmethod
    def nothing(cls, prior: Weights) -> "Learned":
        """Before the first example."""
        return cls(weights=prior, squares=np.full((2, len(prior.names)), CAUTION), examples=0)

    def among(self, prior: Weights) -> "Learned":
        """The same among the features of a prior: those of which nothing was learned are as they are there."""
        places = {name: place for place, name in enumerate(self.weights.names)}
        known = np.array([name in places for name in prior.names], bool)
        taken = [places.get(name, 0) for name in prior.names]
        base, returning = (
            np.where(known, mine[taken], of_prior)
            for mine, of_prior in ((self.weights.base, prior.base), (self.weights.returning, prior.returning))
        )
        return Learned(
            weights=Weights(names=prior.names, base=base, returning=returning),
            squares=np.where(known, self.squares[:, taken], CAUTION),
            examples=self.examples,
        )


class Learner:
    """Learns weights from one example after the other.

    Args:
        start: weights to start from, or what was learned before.
        learned: which features may move, shape (F,), or which of their weights, shape (2, F); all where it is None.
        returning: whether the weights by absence move as well.
        rate: of the steps.
    """

    def __init__(
        self,
        start: Weights | Learned,
        *,
        learned: NDArray[np.bool_] | None = None,
        returning: bool = True,
        rate: float = RATE,
    ) -> None:
        before = Learned.nothing(start) if isinstance(start, Weights) else start
        self._names = before.weights.names
        self._weights = np.stack([before.weights.base, before.weights.returning])
        self._squares = before.squares.copy()
        moves = np.broadcast_to(True if learned is None else learned, self._weights.shape)
        self._moves = moves & np.array([[True], [returning]])
        self._rate = rate
        self.examples = before.examples

    @property
    def weights(self) -> Weights:
        """As they are now."""
        base, returning = self._weights.copy()
        return Weights(names=self._names, base=base, returning=returning)

    @property
    def learned(self) -> Learned:
        """What it would take to go on from here."""
        return Learned(weights=self.weights, squares=self._squares.copy(), examples=self.examples)

    def learn(self, features: Vectors, absence_ms: float, log_chances: Floats | None = None) -> float:
        """Takes one step towards ranking the first candidate before the others.

        Args:
            features: standardised, shape (F, c): what was liked first, then other candidates.
            absence_ms: of the user before this.
            log_chances: of each candidate to be in the sample, up to a constant, shape (c,); None: all alike.

        Returns:
            How much of a surprise it was: -ln of the share that the first candidate was given.
        """
        away = gate(absence_ms)
        scores = (self._weights[0] + away * self._weights[1]) @ features
        if log_chances is not None:
            scores = scores - log_chances
        scores = scores - scores.max()
        shares = np.exp(scores)
        total = shares.sum()
        towards = features[:, 0] - features @ (shares / total)
        steps = np.where(self._moves, np.stack([towards, away * towards]), 0.0)
        self._squares += steps**2
        self._weights += self._rate * steps / np.sqrt(self._squares)
        self.examples += 1
        return float(np.log(total) - scores[0])
