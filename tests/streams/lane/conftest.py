"""Lanes, their settings, and a store for their positions."""

import asyncio

import pytest

from penchant.profile.fusion import Slice, Space
from penchant.profile.items import Items
from penchant.profile.store.edge import EdgeStore
from tests.streams.lane.rig import Running, having


@pytest.fixture
async def store(tmp_path):
    """An embedded store for positions."""
    store = EdgeStore(tmp_path / "store")
    await store.open([Items(store, "items", Space((Slice("text", 2, 1.0, "t"),))).layout])
    yield store
    await store.close()


@pytest.fixture
async def lane_of(store):
    """Makes lanes; ends those that a test leaves running."""
    made = []

    def make(settings, **options):
        made.append(Running(settings, store, **options))
        return made[-1]

    yield make
    for running in made:
        if hasattr(running, "task") and not running.task.done():
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)


@pytest.fixture
def quick(settings):
    """Settings for many lists in a short time."""
    return having(settings, recommend={"interval_s": 0.05}, kafka={"session_timeout_ms": 6_000})
