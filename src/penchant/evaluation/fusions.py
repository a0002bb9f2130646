"""Profiles by fused content alone: each way of fusing, and the articles' presets, with a line of their own.

All follow the articles' model of a user, U ← 0.6 U + 0.4 x_m of each item liked. They are what penchant's ranking is
measured against in its own terms: no popularity, no behaviour of others, one memory.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event
from penchant.profile.fusion import GRAPH
from penchant.profile.modes import attention, average, concat, projected, unit_rows

__all__ = ["Fusions"]

Vectors = NDArray[np.float32]

KEPT, ADDED = 0.6, 0.4  # U = 0.6 u + 0.4 x_m
OF_USER, OF_GRAPH = 0.6, 0.4  # R = 0.6 U + 0.4 g
PRESET_SHARES: Mapping[str, float] = {"text": 0.5, "image": 0.3, "audio": 0.2}  # F = 0.5 x_t + 0.3 x_i + 0.2 x_a
EVIDENCE_KEPT = 0.8  # of what a slice has told, from one liked item to the next


class Memory:
    """U of every user over one kind of vectors.

    Args:
        users: how many.
        vectors: of the items, unit rows or zeros: shape (m, d).
    """

    def __init__(self, users: int, vectors: Vectors) -> None:
        self.items = vectors
        self.users = np.zeros((users, vectors.shape[1]), np.float32)

    def cosines(self, user: int) -> Vectors:
        """With all items: shape (m,)."""
        found: Vectors = self.items @ unit_rows(self.users[user : user + 1])[0]
        return found

    def learn(self, user: int, item: int) -> None:
        """Moves a user towards an item."""
        self.users[user] = KEPT * self.users[user] + ADDED * self.items[item]


class Fusions:
    """One configuration for each way of fusing.

    Args:
        users: how many there are.
        slices: by name, the items' unit vectors, shape (m, d); zeros where one lacks it.
        shares: of the slices, as the settings have them.
    """

    def __init__(self, users: int, slices: Mapping[str, Vectors], shares: Mapping[str, float]) -> None:
        common = projected(slices, min(vectors.shape[1] for vectors in slices.values()))
        beside = {name: vectors for name, vectors in slices.items() if name != GRAPH}
        self._fused = {
            "fusion concat": Memory(users, concat(slices)),
            "fusion weighted": Memory(users, concat(slices, shares)),
            "fusion average": Memory(users, average(common)),
            "preset F": Memory(users, concat(beside, PRESET_SHARES)),
        }
        self._slices = {name: Memory(users, vectors) for name, vectors in slices.items()}
        self._common = {
            "F": Memory(users, average({name: common[name] for name in beside})),
            GRAPH: Memory(users, common.get(GRAPH, np.zeros_like(next(iter(common.values()))))),
        }
        self._present = np.stack([vectors.any(axis=1) for vectors in slices.values()], axis=1)
        self._evidence = np.zeros((users, len(slices)))
        self.names = (*self._fused, "fusion attention", "preset R", "preset M")

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> Vectors:
        """Cosines, weighted as each mode says; the product over the common dimension for M."""
        user = event.user
        fused = [memory.cosines(user) for memory in self._fused.values()]
        slices = {name: memory.cosines(user) for name, memory in self._slices.items()}
        attended = np.sum(
            attention(self._evidence[user], self._present) * np.stack(list(slices.values()), axis=1), axis=1
        )
        nothing = np.zeros(len(self._present), np.float32)
        ranked = OF_USER * fused[-1] + OF_GRAPH * slices.get(GRAPH, nothing)
        mine = unit_rows(self._common["F"].users[user : user + 1])[0]
        known = unit_rows(self._common[GRAPH].users[user : user + 1])[0]
        product = self._common["F"].items @ (mine * (OF_USER * mine + OF_GRAPH * known))
        return np.stack([*fused, attended, ranked, product])[:, unseen].astype(np.float32)

    def learn(self, event: Event) -> None:
        """Moves the user towards the item of a positive event, and notes which slices had foreseen it."""
        if not event.positive:
            return
        for place, memory in enumerate(self._slices.values()):
            told = float(memory.items[event.item] @ unit_rows(memory.users[event.user : event.user + 1])[0])
            evidence = self._evidence[event.user]
            evidence[place] = EVIDENCE_KEPT * evidence[place] + (1 - EVIDENCE_KEPT) * told
        for memory in (*self._fused.values(), *self._slices.values(), *self._common.values()):
            memory.learn(event.user, event.item)
