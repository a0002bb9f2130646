"""Where the scenarios are played: a world on real Kafka, or a shelf by itself."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from penchant.broker import LocalBroker
from penchant.profile.store.edge import EdgeStore
from tests.chaos.defences.rig import ITEMS, QUICK, Shelf, World
from tests.stage import Stage


@pytest.fixture
async def world(kafka: LocalBroker, make_stage: Callable[..., Stage], tmp_path: Path) -> AsyncIterator[World]:
    """A log, a store, and nobody at work yet."""
    with make_stage(kafka, kafka={"options": QUICK}, recommend={"interval_s": 0}) as stage:
        made = await World(stage, tmp_path).open()
        yield made
        await made.close()


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A store with a catalogue, and no Kafka."""
    made = await Shelf(EdgeStore(tmp_path / "store")).open()
    await made.put_items(*ITEMS)
    yield made
    await made.store.close()
