"""A play on a store of its own process: two workers, each with a misbehaving network between it and the store."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.engine import Engine
from tests.chaos.play import Play
from tests.chaos.proxy import FaultProxy

__all__ = ["Served"]

WORKERS = ("first", "second", "guest")
PAUSE_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 2.0
SERVER_PORT = 6334
LOOPBACK = ("127.0.0.1", "localhost")


class Served(Play):
    """See the module. A Qdrant server on this machine is used where `PENCHANT_TEST_QDRANT_URL` names one.

    Args:
        folder: for everything.
        seed: of the traffic.
        users: in the traffic.
        items: of the catalogue.
    """

    def __init__(self, folder: Path, *, seed: int, users: int, items: int) -> None:
        named = urlsplit(os.environ.get("PENCHANT_TEST_QDRANT_URL", ""))
        self.engine = None if named.hostname in LOOPBACK else Engine(folder / "engine")
        if self.engine is not None:
            self.engine.start()
        port = self.engine.port if self.engine is not None else SERVER_PORT
        self.proxies = {name: FaultProxy(port).__enter__() for name in WORKERS}
        super().__init__(folder, seed=seed, users=users, items=items, sections={})
        for name, proxy in self.proxies.items():
            self.stages[name] = self.stage.with_settings(
                store={"url": "http://127.0.0.1", "grpc_port": proxy.port, "timeout_s": REQUEST_TIMEOUT_S},
                worker={"instance_id": name},
            )
        self.stage = self.stages["first"]

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        for proxy in self.proxies.values():
            proxy.__exit__(None, None, None)
        if self.engine is not None:
            self.engine.kill()

    def pause_after_write(self, name: str, writes: int) -> None:
        """Pauses a worker when it has written to the profiles so often, and does not know it yet."""
        process = self.workers[name].process
        collection = self.stage.settings.prefixed("profiles")
        self.proxies[name].after("Upsert", writes, lambda: process.send_signal(signal.SIGSTOP), holding=collection)
        deadline = time.monotonic() + PAUSE_TIMEOUT_S
        while state_of(process.pid) != "T":
            self.keep_flowing()
            assert time.monotonic() < deadline, "the worker writes nothing"
            time.sleep(0.01)

    @contextmanager
    def store_that(self, fails: Callable[[FaultProxy], None]) -> Iterator[None]:
        """Within the block the store fails for all workers."""
        for proxy in self.proxies.values():
            fails(proxy)
        yield
        for proxy in self.proxies.values():
            proxy.heal()


def state_of(pid: int) -> str:
    """A process's state, by the letter that Linux gives it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
