"""Copies of the embedded store: taken by the worker that holds it, or at rest where none does."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec
from msgspec import Struct

from penchant.errors import ConfigurationError, Unavailable
from penchant.profile.store.edge import StoreInUse
from penchant.profile.store.open import open_store
from penchant.settings import Settings
from penchant.streams.http import SnapshotRequest, SnapshotTaken

__all__ = ["STORE", "asked", "at_rest_or_asked", "take_snapshot"]

STORE = "store"  # the folder within data_dir that a snapshot is a copy of
CONNECT_S = 5.0
COPY_S = 3_600.0
# A worker has the store a moment before its port answers, and a moment longer.
PATIENCE_S = 15.0
PAUSE_S = 0.2

Answer = TypeVar("Answer", bound=Struct)
Result = TypeVar("Result")


def take_snapshot(settings: Settings, folder: Path) -> None:
    """Copies the store as it is at one moment, between two writes, to a new folder.

    Args:
        settings: of the worker whose store it is.
        folder: of the copy; must not exist.

    Raises:
        ConfigurationError: the store is on a server, or not there; the folder exists, or cannot be written.
        Unavailable: another process has the store, and no worker answers.
    """
    folder = folder.absolute()
    at_rest_or_asked(lambda: asyncio.run(copy_at_rest(settings, folder)), lambda: ask_worker(settings, folder))


def at_rest_or_asked(at_rest: Callable[[], Result], ask: Callable[[], Result]) -> Result:
    """Does something with a store, or has the worker do it that has the store.

    Args:
        at_rest: does it; raises `StoreInUse` where a worker has the store.
        ask: has the worker do it; raises `Unavailable` where it does not answer.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return at_rest()
        except StoreInUse:
            try:
                return ask()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)


async def copy_at_rest(settings: Settings, folder: Path) -> None:
    """Copies a store that nobody has open."""
    store = open_store(settings)
    try:
        await store.snapshot(folder)
    finally:
        await store.close()


def ask_worker(settings: Settings, folder: Path) -> None:
    """Has the running worker copy its store.

    Raises:
        ConfigurationError: it cannot, or its store is not the one that the settings mean.
        Unavailable: no worker answers.
    """
    taken = asked(settings, "snapshot", SnapshotRequest(str(folder)), SnapshotTaken)
    if Path(taken.store) != (settings.data_dir / STORE).resolve() or not folder.is_dir():
        raise ConfigurationError(
            f"The worker at {address_of(settings)} has copied another store to {folder}: {taken.store}",
            hint="worker.http_host and worker.http_port must be those of the worker that runs on this data_dir.",
        )


def asked(settings: Settings, what: str, request: Struct, kind: type[Answer]) -> Answer:
    """What the running worker answers to a request.

    Args:
        settings: say where it listens.
        what: is asked, as its port has it.
        request: to be sent.
        kind: of the answer.

    Raises:
        ConfigurationError: it will not do it.
        Unavailable: no worker answers, or not now.
    """
    address = address_of(settings)
    try:
        answer = httpx.post(
            f"{address}/{what}",
            content=msgspec.json.encode(request),
            headers={"content-type": "application/json"},
            timeout=httpx.Timeout(COPY_S, connect=CONNECT_S),
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL):
        raise Unavailable(
            f"A worker has the store, and none answers at {address}",
            hint="worker.http_host and worker.http_port must be those of the worker that runs on this data_dir.",
        ) from None
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Unavailable(f"The worker at {address} cannot do this now ({what}): {said(answer)}")
    try:
        return msgspec.json.decode(answer.raise_for_status().content, type=kind)
    except (httpx.HTTPStatusError, msgspec.DecodeError):
        raise ConfigurationError(f"The worker at {address} will not do this ({what}): {said(answer)}") from None


def address_of(settings: Settings) -> str:
    """Where the worker of these settings listens."""
    return f"http://{settings.worker.http_host}:{settings.worker.http_port}"


def said(answer: httpx.Response) -> str:
    """A worker's reason, or else its status."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers with status {answer.status_code}"
