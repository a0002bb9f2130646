"""A small made stream in which the slices of items say who likes them."""

import numpy as np
import pytest

from penchant.deep.model import Form
from penchant.deep.training import History, Recipe
from penchant.encoders.base import unit_rows

USERS, ITEMS, EVENTS = 40, 120, 2_400
SMALL = Form(slices={"text": 12, "graph": 6}, dimension=16, heads=2, remembered=5)


@pytest.fixture(scope="session")
def slices():
    """Text tells an item's genre; the graph does so for every other item, and of the rest it knows nothing."""
    random = np.random.default_rng(3)
    genre = np.arange(ITEMS) % 4
    found = {
        name: unit_rows(np.eye(size)[genre] + 0.1 * random.normal(size=(ITEMS, size)))
        for name, size in SMALL.slices.items()
    }
    found["graph"][::2] = 0
    return found


@pytest.fixture(scope="session")
def history():
    """Users who see anything, and like one genre each."""
    random = np.random.default_rng(5)
    user, item = random.integers(USERS, size=EVENTS), random.integers(ITEMS, size=EVENTS)
    return History(user=user, item=item, time=np.arange(EVENTS) * 60_000, positive=user % 4 == item % 4)


@pytest.fixture(scope="session")
def form():
    """Of a model that trains in a moment."""
    return SMALL


@pytest.fixture(scope="session")
def recipe():
    """For few likes."""
    return Recipe(batch=32, negatives=40, rate=0.01, epochs=4)
