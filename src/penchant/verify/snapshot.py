"""Copies of the embedded store: taken by the worker that holds it, or at rest where none does."""

import asyncio
import time
from pathlib import Path

import httpx
import msgspec

from penchant.errors import ConfigurationError, Unavailable
from penchant.profile.store.edge import StoreInUse
from penchant.profile.store.open import open_store
from penchant.settings import Settings
from penchant.streams.http import SnapshotRequest, SnapshotTaken

__all__ = ["STORE", "take_snapshot"]

STORE = "store"  # the folder within data_dir that a snapshot is a copy of
CONNECT_S = 5.0
COPY_S = 3_600.0
# A worker has the store a moment before its port answers, and a moment longer.
PATIENCE_S = 15.0
PAUSE_S = 0.2


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
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            asyncio.run(copy_at_rest(settings, folder))
        except StoreInUse:
            try:
                ask_worker(settings, folder)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)
                continue
        return


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
    address = f"http://{settings.worker.http_host}:{settings.worker.http_port}"
    request = msgspec.json.encode(SnapshotRequest(str(folder)))
    try:
        answer = httpx.post(
            f"{address}/snapshot",
            content=request,
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
        raise Unavailable(f"The worker at {address} cannot copy its store now: {said(answer)}")
    try:
        taken = msgspec.json.decode(answer.raise_for_status().content, type=SnapshotTaken)
    except (httpx.HTTPStatusError, msgspec.DecodeError):
        raise ConfigurationError(f"The worker at {address} takes no snapshot: {said(answer)}") from None
    if Path(taken.store) != (settings.data_dir / STORE).resolve() or not folder.is_dir():
        raise ConfigurationError(
            f"The worker at {address} has copied another store to {folder}: {taken.store}",
            hint="worker.http_host and worker.http_port must be those of the worker that runs on this data_dir.",
        )


def said(answer: httpx.Response) -> str:
    """A worker's reason, or else its status."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers with status {answer.status_code}"
