"""penchant as a contestant: profiles, rows and features by the code that serves, without broker and store.

All configurations share one pass. For every probe, and for the events that weights are learned from, the features of
all unseen items are computed once; a configuration is a choice among them, with weights of its own that it learns on
the way, after an event was ranked, as a learner beside the live stream does.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.evaluation.behaviour import Behaviour
from penchant.evaluation.protocol import Event
from penchant.profile.affinity import Transition, positives, predecessors, recent_items
from penchant.profile.interest import Horizons
from penchant.profile.ranking.features import BEHAVIOUR, content_features, content_names, past_of, standardised
from penchant.profile.ranking.weights import ABSENCE_HALF_MS, Learner, Weights, proposals
from penchant.profile.signals import Action, Signal
from penchant.profile.state import Limits, ProfileState

__all__ = ["Configuration", "Ours"]

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]

DAY_MS = 86_400_000
ORIGIN = ("stream", 0)
EXAMPLES = 0.25
NEGATIVES = 200


class Configuration(Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        name: of it.
        weights: that it starts from, of the features that count in it.
        learns: whether they move.
        returning: whether those by absence move as well.
    """

    name: str
    weights: Weights
    learns: bool = True
    returning: bool = True


class Ours:
    """Several configurations of penchant.

    Args:
        users: how many there are.
        items: names by code; m of them.
        slices: by name, the items' unit vectors whitened, shape (m, d); zeros where one lacks it.
        configurations: to play.
        horizons: of the views.
        limits: of the states.
        examples: share of the positive events that weights are learned from; of those after an absence all.
        negatives: sampled for each, with replacement.
        seed: of both samples.
        released: when each item came up, epoch milliseconds; infinity where that is not known, and then it is taken to
            be the time of the first event that speaks of it.
    """

    def __init__(
        self,
        users: int,
        items: Sequence[str],
        slices: Mapping[str, Vectors],
        configurations: Sequence[Configuration],
        *,
        horizons: Horizons,
        limits: Limits,
        examples: float = EXAMPLES,
        negatives: int = NEGATIVES,
        seed: int,
        released: Floats | None = None,
    ) -> None:
        self.names = tuple(one.name for one in configurations)
        self.features = (*content_names(slices), *BEHAVIOUR)
        self._items = items
        self._codes = {item: code for code, item in enumerate(items)}
        self._vectors = slices
        self._horizons, self._limits = horizons, limits
        self._states = [ProfileState.empty(limits) for _ in range(users)]
        self._seen: list[set[int]] = [set() for _ in range(users)]
        self._behaviour = Behaviour(items)
        self._known = np.full(len(items), np.inf) if released is None else released.copy()
        self._dated = np.isfinite(self._known)
        self._learners = [
            Learner(
                one.weights.among(self.features),
                learned=np.array([one.learns and name in one.weights.names for name in self.features]),
                returning=one.returning,
            )
            for one in configurations
        ]
        self._examples, self._negatives = examples, negatives
        self._rng = np.random.default_rng(seed)
        self._asked: tuple[NDArray[np.int64], Vectors] | None = None

    @property
    def weights(self) -> Mapping[str, Weights]:
        """What each configuration has learned so far."""
        return {name: learner.weights for name, learner in zip(self.names, self._learners, strict=True)}

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> Vectors:
        """Sums of weighted, standardised features."""
        features = self._features(event, unseen)
        absence = self._absence(event)
        weights = np.stack([learner.weights.at(absence) for learner in self._learners])
        found: Vectors = weights.astype(np.float32) @ features
        return found

    def explain(self, event: Event, items: NDArray[np.int64]) -> Vectors:
        """The features of some of the unseen items."""
        unseen, features = self._asked or self._ask(event, items)
        return features[:, np.searchsorted(unseen, items)]

    def learn(self, event: Event) -> None:
        """Learns weights from the event, then takes it into the user's state and the item's row."""
        state = self._states[event.user]
        # Who returns is rare, and has weights of their own to teach.
        chosen = self._rng.random() < self._examples or self._absence(event) >= ABSENCE_HALF_MS
        if event.positive and chosen and state.signals and event.item not in self._seen[event.user]:
            self._step(event)
        self._asked = None
        name = self._items[event.item]
        signal = Signal(event.time, f"{event.index:012}", name, Action.RATE, event.weight)
        self._states[event.user] = state = state.adding([signal], self._limits)
        self._seen[event.user].add(event.item)
        if not self._dated[event.item]:
            self._known[event.item] = min(self._known[event.item], event.time)
        if event.positive:
            previous = predecessors(positives(state.signals), of=signal)
            self._behaviour.learn(
                Transition(item_id=name, at=event.time, previous=previous, origin=ORIGIN, offset=event.index)
            )

    def _step(self, event: Event) -> None:
        unseen = np.setdiff1d(np.arange(len(self._items)), np.fromiter(self._seen[event.user], np.int64))
        features = self._features(event, unseen)
        target = int(np.searchsorted(unseen, event.item))
        chances = proposals(self._behaviour.counts[unseen])
        drawn = self._rng.choice(len(unseen), size=self._negatives, p=chances)
        chosen = np.concatenate(([target], drawn[drawn != target]))
        absence = self._absence(event)
        for learner in self._learners:
            learner.learn(features[:, chosen], absence, np.log(chances[chosen]))

    def _absence(self, event: Event) -> float:
        """How long the user has been away, milliseconds."""
        return float(event.time - self._states[event.user].as_of)

    def _features(self, event: Event, unseen: NDArray[np.int64]) -> Vectors:
        """Standardised features of the unseen items for an event's user, kept until it is learned: (F, unseen)."""
        if self._asked is None:
            self._asked = self._ask(event, unseen)
        return self._asked[1]

    def _ask(self, event: Event, unseen: NDArray[np.int64]) -> tuple[NDArray[np.int64], Vectors]:
        state = self._states[event.user]
        past = past_of(state.signals, self._codes)
        content = content_features([past], self._vectors, self._vectors, self._horizons)[:, 0, unseen]
        recent = recent_items(positives(state.signals))
        ages = np.maximum(event.time - self._known, 0) / DAY_MS
        behaviour = np.stack(
            [
                self._behaviour.transitions(recent, event.time),
                *np.log1p(self._behaviour.popularity(event.time)),
                np.log1p(np.where(np.isfinite(ages), ages, 0)),
            ]
        )[:, unseen]
        return unseen, standardised(np.concatenate([content, behaviour.astype(np.float32)]))
