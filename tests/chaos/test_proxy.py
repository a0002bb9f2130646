"""The proxy's faults, as the store on a server and the profiles above it meet them."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from qdrant_client import AsyncQdrantClient

from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Items
from penchant.profile.profiles import Profiles
from penchant.profile.signals import Action, Signal
from penchant.profile.state import Limits
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, SearchFilter, StoreUnavailable, new_token
from penchant.profile.store.qdrant import QdrantStore
from penchant.profile.updater import ProfileUpdater
from tests.chaos.engine import Engine
from tests.chaos.proxy import Fault, FaultProxy

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 2  # of a request
HEAL_TIMEOUT_S = 30.0
EVERYTHING = SearchFilter()
LAYOUT = CollectionLayout(name="things", vectors={"content": 4}, indexes={}, fingerprint="f1")
SPACE = Space((Slice("text", 4, 1.0, "t1"),))
LIMITS = Limits(strong=8, weak=8, seen_bits=1_024)
HORIZONS = Horizons(short_ms=1_000, long_ms=100_000, short_share_at=3.0)

Switch = Callable[..., None]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The server behind the proxy."""
    with Engine(tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture
def proxy(engine: Engine) -> Iterator[FaultProxy]:
    """A proxy in front of the engine."""
    with FaultProxy(engine.port) as started:
        yield started


def remote(port: int) -> QdrantStore:
    """A store on whatever listens at a loopback port, with little patience."""
    client = AsyncQdrantClient(
        url="http://127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False, timeout=TIMEOUT_S
    )
    return QdrantStore(client)


@pytest.fixture
async def store(proxy: FaultProxy) -> AsyncIterator[QdrantStore]:
    """A store that reaches the engine through the proxy."""
    made = remote(proxy.port)
    await made.open([LAYOUT])
    yield made
    await made.close()


def profiles_of(store: QdrantStore, name: str) -> Profiles:
    """A test's own profiles on a store."""
    return Profiles(store, f"{name}.profiles", SPACE, Identity("a key for tests"), LIMITS)


async def updater_of(store: QdrantStore, name: str) -> ProfileUpdater:
    """A worker's part that applies signals, on collections of the test's own."""
    items, profiles = Items(store, f"{name}.items", SPACE), profiles_of(store, name)
    await store.open([items.layout, profiles.layout])
    return ProfileUpdater(profiles, ItemVectors(items, capacity=10, ttl_s=1e-9), HORIZONS, LIMITS, capacity=10)


def signals(*numbers: int) -> dict[str, list[Signal]]:
    """Signals of one user, by the numbers of their events."""
    return {"ann": [Signal(number, f"e{number}", f"i{number}", Action.CLICK, 1.0) for number in numbers]}


async def stored(engine: Engine, name: str) -> list[str]:
    """The events of the user's profile, read past the proxy; in order, as often as they are there."""
    direct = remote(engine.port)
    profile = (await profiles_of(direct, name).load(["ann"])).get("ann")
    await direct.close()
    return sorted(signal.event_id for signal in profile.state.signals) if profile else []


async def heals(attempt: Callable[[], Awaitable[object]]) -> None:
    """Tries again until it succeeds, as a worker does."""
    deadline = time.monotonic() + HEAL_TIMEOUT_S
    while True:
        try:
            await attempt()
        except StoreUnavailable:
            assert time.monotonic() < deadline, "it did not heal"
            await asyncio.sleep(0.05)
        else:
            return


FAULTS = pytest.mark.parametrize(
    ("switch", "fault"),
    [
        pytest.param(FaultProxy.refuse, Fault.REFUSED, id="refuse"),
        pytest.param(FaultProxy.hang, Fault.HUNG, id="hang"),
        pytest.param(FaultProxy.late, Fault.LATE, id="late"),
    ],
)


@FAULTS
async def test_a_fault_is_a_store_unavailable_and_heals(
    proxy: FaultProxy, store: QdrantStore, switch: Switch, fault: Fault
) -> None:
    """Reads and writes say so while it lasts, and work again when it is over, over the same connection."""
    switch(proxy)
    with pytest.raises(StoreUnavailable):
        await store.count("things", EVERYTHING)
    with pytest.raises(StoreUnavailable):
        await store.put("things", [Point(id=UUID(int=1), payload={TOKEN: new_token()})])
    assert proxy.counts[fault] == 2
    proxy.heal()
    await heals(lambda: store.put("things", [Point(id=UUID(int=2), payload={TOKEN: new_token()})]))
    assert UUID(int=2) in await store.retrieve("things", [UUID(int=2)])
    assert proxy.counts[fault] == 2


async def test_a_fault_may_concern_some_methods_only(proxy: FaultProxy, store: QdrantStore) -> None:
    """The others pass."""
    proxy.refuse("Upsert")
    await store.count("things", EVERYTHING)
    with pytest.raises(StoreUnavailable, match="refused by the proxy"):
        await store.put("things", [Point(id=UUID(int=1), payload={TOKEN: new_token()})])


async def test_a_cut_connection_heals(proxy: FaultProxy, store: QdrantStore) -> None:
    """Nobody listens, and what was under way breaks off; later somebody does again, at the same place."""
    port = proxy.port
    proxy.hang()
    waiting = asyncio.create_task(store.count("things", EVERYTHING))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(proxy.cut)
    with pytest.raises(StoreUnavailable):
        await waiting
    with pytest.raises(StoreUnavailable):
        await store.count("things", EVERYTHING)
    proxy.heal()
    assert proxy.port == port
    await heals(lambda: store.count("things", EVERYTHING))


async def test_the_servers_refusals_pass(proxy: FaultProxy, store: QdrantStore) -> None:
    """With the status and the words that it gave."""
    with pytest.raises(Exception, match="doesn't exist"):
        await store.count("nothing", EVERYTHING)


async def test_a_server_that_restarts_is_found_again(tmp_path: Path) -> None:
    """Behind a proxy that stays."""
    with Engine(tmp_path / "engine") as engine, FaultProxy(engine.port) as proxy:
        store = remote(proxy.port)
        await store.open([LAYOUT])
        engine.kill()
        with pytest.raises(StoreUnavailable):
            await store.count("things", EVERYTHING)
        engine.start()
        await heals(lambda: store.count("things", EVERYTHING))
        await store.close()


@FAULTS
async def test_a_write_retried_through_a_fault_counts_once(
    engine: Engine, proxy: FaultProxy, store: QdrantStore, switch: Switch, fault: Fault
) -> None:
    """The author hears of a failure either way; only the late write was applied. Retried, each event is there once."""
    name = fault.value
    updater = await updater_of(store, name)
    await updater.apply(signals(1, 2))
    switch(proxy, "Upsert")
    with pytest.raises(StoreUnavailable):
        await updater.apply(signals(3))
    assert await stored(engine, name) == (["e1", "e2", "e3"] if fault is Fault.LATE else ["e1", "e2"])
    proxy.heal()
    await heals(lambda: updater.apply(signals(3)))
    await updater.apply(signals(4))
    assert await stored(engine, name) == ["e1", "e2", "e3", "e4"]


async def test_a_late_write_behind_another_authors_is_not_lost(
    engine: Engine, proxy: FaultProxy, store: QdrantStore
) -> None:
    """While one author waits for its late answer another writes on top; the first retries, and both are there."""
    updater = await updater_of(store, "behind")
    direct = remote(engine.port)
    other = await updater_of(direct, "behind")
    await updater.apply(signals(1))
    proxy.late("Upsert")
    with pytest.raises(StoreUnavailable):
        await updater.apply(signals(2))
    proxy.heal()
    await other.apply(signals(3))
    await direct.close()
    await heals(lambda: updater.apply(signals(2)))
    assert await stored(engine, "behind") == ["e1", "e2", "e3"]


async def test_a_hook_runs_between_a_write_and_its_answer(
    engine: Engine, proxy: FaultProxy, store: QdrantStore
) -> None:
    """Behind the second write that names the collection, once: it is applied, and its author does not know yet."""
    updater = await updater_of(store, "hook")
    called: list[str] = []
    done = False

    def note() -> None:
        called.append("early" if not done else "late")
        called.extend(asyncio.run(stored(engine, "hook")))

    proxy.after("Upsert", 2, note, holding="hook.profiles")
    await store.put("things", [Point(id=UUID(int=2), payload={TOKEN: new_token()})])
    await updater.apply(signals(1))
    assert called == []
    await updater.apply(signals(2))
    done = True
    await updater.apply(signals(3))
    assert called == ["early", "e1", "e2"]


AUTHOR = """
import asyncio, sys
from penchant.profile.store.base import CollectionLayout
from tests.chaos.test_proxy import remote, signals, updater_of

async def main():
    store = remote(int(sys.argv[1]))
    updater = await updater_of(store, "stopped")
    await updater.apply(signals(1))
    print("done", flush=True)

asyncio.run(main())
"""


async def test_an_author_can_be_stopped_behind_its_write(engine: Engine, proxy: FaultProxy) -> None:
    """The hook stops the process that wrote: the write stands, its author knows nothing, and finds it when it wakes."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    author: asyncio.subprocess.Process

    def stop() -> None:
        os.kill(author.pid, signal.SIGSTOP)
        loop.call_soon_threadsafe(stopped.set)

    proxy.after("Upsert", 1, stop, holding="stopped.profiles")  # the collection's own mark comes first
    proxy.after("Upsert", 2, stop, holding="stopped.profiles")
    author = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AUTHOR, str(proxy.port), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        await asyncio.wait_for(stopped.wait(), HEAL_TIMEOUT_S)
        stopped.clear()
        author.send_signal(signal.SIGCONT)
        await asyncio.wait_for(stopped.wait(), HEAL_TIMEOUT_S)
        assert await stored(engine, "stopped") == ["e1"]
        assert author.returncode is None
        author.send_signal(signal.SIGCONT)
        said, _ = await author.communicate()
        assert said == b"done\n"
    finally:
        if author.returncode is None:
            author.kill()
            await author.wait()
    assert await stored(engine, "stopped") == ["e1"]
