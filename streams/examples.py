"""Examples: what weights are learned from, as the interest lane tells it and the learner takes it.

An example is the standardised features of some candidates of one list, the one that was liked first. It names neither
user nor item nor event, and no time but an absence in whole minutes: who reads this topic alone learns how people
choose. Who reads the lists as well can tell which one an example is of, for the parts of its scores are made of the
same features.
"""

import hashlib
from collections.abc import Sequence
from typing import cast

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.streams.codec import Unusable, decode
from penchant.streams.events import Example, Lesson, Reset
from penchant.streams.quality import Choice
from penchant.streams.records import Record

__all__ = ["OTHERS", "Seen", "example_of", "lesson_in"]

OTHERS = 32
MINUTE_MS = 60_000  # to the millisecond, the time between two events is as good as a name
LOUDEST = 100.0  # among n candidates no standardised feature is beyond the root of n

Vectors = NDArray[np.float32]


class Seen(Struct, frozen=True, kw_only=True, eq=False):
    """An example as it is learned from.

    Attributes:
        features: among all that the learner knows, shape (F, c): of what was liked, then of others.
        absence_ms: of the user before.
    """

    features: Vectors
    absence_ms: int


def example_of(choice: Choice, names: Sequence[str], absence_ms: int) -> Example:
    """A choice as it is published: what was liked, and a sample of what else there was.

    Each other candidate has the same chance to be in the sample, whichever was liked. So the chance of this sample
    cancels out of the softmax among those in it, and no correction is needed (McFadden, "Modelling the Choice of
    Residential Location", 1978: uniform conditioning). The event's id seeds it: the same log gives the same examples.

    Args:
        choice: among n candidates.
        names: of the F features.
        absence_ms: of the user before.
    """
    others = np.delete(np.arange(choice.features.shape[1]), choice.liked)
    if len(others) > OTHERS:
        seed = hashlib.blake2b(choice.event_id.encode(), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(seed))
        others = np.sort(generator.choice(others, OTHERS, replace=False))
    features = choice.features[:, [choice.liked, *others]].astype("<f4")
    return Example(
        names=tuple(names),
        candidates=features.shape[1],
        features=features.tobytes(),
        absence_ms=absence_ms - absence_ms % MINUTE_MS,
    )


def lesson_in(record: Record, names: Sequence[str]) -> Seen | Reset:
    """What a record of the `examples` topic says to a learner.

    Args:
        record: to read.
        names: of the F features that the learner knows: those that the example does not name are 0.

    Raises:
        Unusable: the record cannot be used.
    """
    told = decode(cast("type[Example | Reset]", Lesson), record.value, record.headers)
    if isinstance(told, Reset):
        return told
    if len(told.features) != 4 * len(told.names) * told.candidates:
        raise Unusable("`features` are not one float32 for each feature of each candidate", reason="invalid")
    if len(set(told.names)) != len(told.names):
        raise Unusable("`names` names a feature twice", reason="invalid")
    rows = np.frombuffer(told.features, "<f4").reshape(len(told.names), told.candidates)
    if not (np.abs(rows) <= LOUDEST).all():  # nor is what is no number
        raise Unusable("`features` holds what is no standardised feature", reason="invalid")
    known = dict(zip(told.names, rows, strict=True))
    if not known.keys() & set(names):
        raise Unusable("`names` names no feature that is known here", reason="unknown-features")
    features = np.zeros((len(names), told.candidates), np.float32)
    for place, name in enumerate(names):
        features[place] = known.get(name, 0.0)
    return Seen(features=features, absence_ms=told.absence_ms)
