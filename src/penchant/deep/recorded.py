"""Deep fusion trained on what was recorded: a MovieLens folder, or a namespace's own topics and store."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.deep.kept import Kept
from penchant.deep.training import History, Progress, train
from penchant.encoders.embedder import space as encoder_space
from penchant.encoders.registry import slot_of
from penchant.errors import ConfigurationError
from penchant.evaluation.features import text_vectors
from penchant.evaluation.stream import Stream
from penchant.parts import worker_space
from penchant.profile.fusion import GRAPH
from penchant.profile.items import Items
from penchant.profile.places import Entities
from penchant.profile.ranking.calibrations import Calibrations
from penchant.profile.ranking.whitening import Calibration, calibrate
from penchant.profile.store.open import open_store
from penchant.settings import Settings
from penchant.verify.held import at_rest, awaited

__all__ = ["Catalogue", "by_store", "by_texts", "trained_on"]

CHUNK = 256
TEXT = "text"

Vectors = NDArray[np.float32]


class Catalogue(Struct, frozen=True, kw_only=True, eq=False):
    """What a stream's items contain.

    Attributes:
        slices: by name, unit vectors as encoders and graph give them, shape (m, d); zeros where an item lacks one.
        calibration: that they are whitened by.
        encoders: by slice, the fingerprint of what fills it: of the graph's, that of the model that was published.
    """

    slices: Mapping[str, Vectors]
    calibration: Calibration
    encoders: Mapping[str, str]


class Stored(NamedTuple):
    """What a store has of items: content, shape (m, d), zeros where there is none; and what it is to be read by."""

    content: Vectors
    calibration: Calibration | None
    graph: str


def by_texts(stream: Stream, settings: Settings, *, progress: Progress) -> Catalogue:
    """The texts of a stream, encoded once, and calibrated by themselves.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """
    cache = settings.data_dir / "evaluation"
    name = slot_of(settings.encoders, TEXT).name
    slices = {name: text_vectors(stream.texts, cache, settings.encoders, progress=progress)}
    known = {name: encoder_space(settings.encoders).fingerprints[name]}
    return Catalogue(slices=slices, calibration=calibrate(slices), encoders=known)


def by_store(stream: Stream, settings: Settings) -> Catalogue:
    """A stream's items as the workers' store has them now, in all slices that any of them has.

    They are calibrated as workers calibrate them, or by themselves as long as those do not. Workers may run meanwhile.

    Raises:
        ConfigurationError: there is no store, or nothing of these items in it.
        Unavailable: the store does not answer.
    """
    space = worker_space(settings)
    with at_rest(settings) as moved:
        stored = awaited(read(stream, moved))
    slices = {name: vectors for name, vectors in Calibration().split(space, stored.content).items() if vectors.any()}
    if not slices:
        raise ConfigurationError(
            "The store has no vectors of the items on these topics", hint="Let a worker take them in first."
        )
    fingerprints = {part.name: part.fingerprint for part in space.slices} | {GRAPH: stored.graph}
    return Catalogue(
        slices=slices,
        calibration=calibrate(slices) if stored.calibration is None else stored.calibration,
        encoders={name: fingerprints[name] for name in slices},
    )


async def read(stream: Stream, settings: Settings) -> Stored:
    """What a store that nobody writes has of a stream's items."""
    store, space = open_store(settings), worker_space(settings)
    items = Items(store, settings.encoded("items"), space)
    calibrations = Calibrations(store, settings.encoded("calibration"), items)
    entities = Entities(store, settings.prefixed("entities"))
    await store.open([items.layout, calibrations.layout, entities.layout], create=False)
    try:
        content = np.zeros((len(stream.items), space.dimension), np.float32)
        for start in range(0, len(stream.items), CHUNK):
            names = stream.items[start : start + CHUNK]
            found = await items.vectors(names)
            for place, name in enumerate(names, start):
                vector = found.get(name)
                if vector is not None:
                    content[place] = vector
        in_force = await entities.in_force()
        return Stored(content, await calibrations.known(), "" if in_force is None else in_force.model)
    finally:
        await store.close()


def trained_on(stream: Stream, catalogue: Catalogue, *, seed: int, progress: Progress) -> Kept:
    """A model trained on all of a stream.

    Raises:
        ConfigurationError: torch is not installed, or there are too few likes.
    """
    history = History(
        user=stream.user.astype(np.int64),
        item=stream.item.astype(np.int64),
        time=stream.time,
        positive=stream.positive,
    )
    whitened = {name: catalogue.calibration.apply(name, vectors) for name, vectors in catalogue.slices.items()}
    model, trained = train(whitened, history, seed=seed, progress=progress)
    return Kept(model=model, trained=trained, calibration=catalogue.calibration, encoders=catalogue.encoders)
