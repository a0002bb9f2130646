"""Deep fusion as a contestant: trained once on what came before the first probe, and frozen from then on.

It does not learn on the stream. Users' memories move on, being what they liked last, but what is made of them does
not: what is liked later teaches the model nothing. That is how such a model is run where there is one, between two
trainings, and the price of it is part of what is measured.
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from penchant.deep.kept import Kept, load, save
from penchant.deep.mode import DeepMode
from penchant.deep.model import Form, Fused
from penchant.deep.training import History, Recipe, train
from penchant.evaluation.protocol import Event
from penchant.profile.ranking.fused import Liked
from penchant.profile.ranking.whitening import Calibration

__all__ = ["Deep"]

Vectors = NDArray[np.float32]

ENOUGH = 4_000  # events to train on, where so many came before the first probe
LATER = 20_000  # where not: then so many are waited for


class Deep:
    """Deep fusion. Until there is enough to train on, all scores are zero.

    Args:
        users: how many there are.
        slices: by name, the items' unit vectors as encoders and graph give them, shape (m, d); zeros where one is not.
        calibration: of the slices.
        encoders: by slice, the fingerprint of what filled it.
        seed: of the training.
        folder: that the model is kept in: a second evaluation of the same events does not train again.
    """

    names = ("fusion deep",)

    def __init__(
        self,
        users: int,
        slices: Mapping[str, Vectors],
        calibration: Calibration,
        encoders: Mapping[str, str],
        *,
        seed: int,
        folder: Path,
    ) -> None:
        self._slices, self._calibration, self._encoders = slices, calibration, encoders
        self._seed, self._folder = seed, folder
        self._whitened = {name: calibration.apply(name, vectors) for name, vectors in slices.items()}
        self._content = np.any([vectors.any(axis=1) for vectors in slices.values()], axis=0)
        self._form = Form(slices={name: vectors.shape[1] for name, vectors in self._whitened.items()})
        self._liked: list[deque[tuple[int, int]]] = [deque(maxlen=self._form.remembered) for _ in range(users)]
        self._events: list[tuple[int, int, int, bool]] = []
        self._due: int | None = None
        self._model: tuple[DeepMode, Fused] | None = None

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> Vectors:
        """The model's, from what the user liked last; the first call with enough behind it trains."""
        if self._due is None:
            self._due = len(self._events) if len(self._events) >= ENOUGH else LATER
        if self._model is None and len(self._events) >= self._due:
            mode = DeepMode(self._trained())
            self._model = mode, mode.fused(self._slices)
            self._events.clear()
        if self._model is None:
            return np.zeros((1, len(unseen)), np.float32)
        mode, catalogue = self._model
        rows, times = np.array(self._liked[event.user], np.int64).reshape(-1, 2).T
        return mode.scores(Liked(rows=rows, ages_ms=event.time - times), catalogue, catalogue)[None, unseen]

    def learn(self, event: Event) -> None:
        """Remembers what was liked and has any content, and before the training everything that happened."""
        if event.positive and self._content[event.item]:
            self._liked[event.user].appendleft((event.item, event.time))
        if self._model is None:
            self._events.append((event.user, event.item, event.time, event.positive))

    def _trained(self) -> Kept:
        user, item, time, positive = np.array(self._events, np.int64).T
        history = History(user=user, item=item, time=time, positive=positive.astype(bool))
        path = self._folder / f"deep-2-{self._digest(history)}.safetensors"
        if path.is_file():
            return load(path)
        model, trained = train(self._whitened, history, seed=self._seed, recipe=Recipe(), form=self._form)
        kept = Kept(model=model, trained=trained, calibration=self._calibration, encoders=self._encoders)
        save(path, kept)
        return kept

    def _digest(self, history: History) -> str:
        """Tells apart whatever a model is made of."""
        digest = hashlib.blake2b(msgspec.msgpack.encode((self._form, Recipe(), self._seed)), digest_size=8)
        for vectors in self._whitened.values():
            digest.update(np.ascontiguousarray(vectors).data)
        for column in (history.user, history.item, history.time, history.positive):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()
