"""Small made streams, and the real one where it is at hand."""

import contextlib

import numpy as np
import pytest

from penchant.evaluation.movielens import read_movielens
from penchant.evaluation.protocol import Event
from penchant.evaluation.stream import Listing, Moment, arranged
from penchant.settings import ProfileSettings

HOUR_MS = 3_600_000


@pytest.fixture
def make_stream():
    """Makes a stream of (hours, user, item, positive), with `more` items that nobody touches."""

    def make(rows, *, more=0, **listing):
        names = sorted({row[2] for row in rows} | {f"other-{number}" for number in range(more)})
        moments = [Moment(int(hours * HOUR_MS), user, item, 1.0, positive) for hours, user, item, positive in rows]
        return arranged(moments, [Listing(item=name, text=name, **listing) for name in names])

    return make


@pytest.fixture
def crowd(make_stream):
    """Two crowds of twenty users with tastes apart, 1,200 events: what one likes, its others will."""
    random = np.random.default_rng(7)
    rows = []
    for number in range(1_200):
        user = int(random.integers(20))
        item = int(random.integers(15)) + 15 * (user % 2)
        rows.append((number / 10, f"user-{user}", f"item-{item:02}", bool(random.random() < 0.8)))
    return make_stream(rows, more=10)


@pytest.fixture
def make_event():
    """Makes an event of a stream."""

    def make(stream, index):
        columns = (stream.user, stream.item, stream.time, stream.weight, stream.positive)
        return Event(index, *(column[index].item() for column in columns))

    return make


@pytest.fixture
def at_end():
    """What contestants have to let go of is let go of behind the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def real_stream(shared_data):
    """MovieLens small."""
    folder = shared_data / "movielens-small"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return read_movielens(folder, ProfileSettings())
