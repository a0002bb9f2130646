"""The store that there is, and the one that is made of it: what both must share, and how the old one is read."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.parts import Parts, build_parts
from penchant.profile.identity import Identity
from penchant.profile.store.base import CollectionLayout, LayoutMismatch
from penchant.settings import Settings
from penchant.verify.snapshot import STORE, take_snapshot

__all__ = ["InUse", "Sides", "sides_of"]

COPY = "reindex-copy-"  # begins the names of folders for copies of the old store


class InUse(ConfigurationError):
    """The new store is not what was made, or is being made."""

    def __init__(self) -> None:
        super().__init__(
            "The new store holds what was not taken over from the old one: a worker uses it, or has used it",
            hint="A worker that starts on it reads the rest from the log, and needs no more of this. To begin anew, "
            "take an empty `data_dir` or another `store.generation`.",
        )


class Sides(Struct, frozen=True, kw_only=True):
    """Both sides of a change.

    Attributes:
        old: settings of the store that there is.
        new: of the one to be made.
        shared: they are generations on one server, with the same rows, facts and entities.
    """

    old: Settings
    new: Settings
    shared: bool

    def apart(self, parts: Parts) -> Sequence[CollectionLayout]:
        """The collections that no encoder fills, and that the new store needs copies of."""
        return () if self.shared else (parts.rows.layout, parts.graph.layout, parts.entities.layout)

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Parts]:
        """The old store, to be read: an embedded one from a copy, which the worker that has it makes, if one does."""
        if self.old.store.url:
            async with reading(self.old) as parts:
                yield parts
            return
        with beside(self.new) as folder:
            await asyncio.to_thread(take_snapshot, self.old, folder / STORE)
            async with reading(self.old.model_copy(update={"data_dir": folder})) as parts:
                yield parts


def sides_of(old: Settings, new: Settings) -> Sides:
    """Both sides of a change.

    Raises:
        ConfigurationError: they are one, or the one's profiles cannot be the other's.
    """
    pairs = (
        ("namespace", old.namespace, new.namespace),
        ("id_key", *(Identity(one.id_key.get_secret_value()).fingerprint for one in (old, new))),
        ("profile.seen_bits", old.profile.seen_bits, new.profile.seen_bits),
    )
    for name, before, after in pairs:
        if before != after:
            raise ConfigurationError(
                f"{name} is another in the new store: profiles cannot be taken over",
                hint=f"Leave {name} as it is; or start with a store that is empty, and fills from Kafka.",
            )
    one_server = bool(new.store.url) and place_of(old) == place_of(new)
    if place_of(old) == place_of(new) and (not one_server or old.store.generation == new.store.generation):
        raise ConfigurationError(
            "The new store is the old one",
            hint="Give the settings in force another `data_dir`, or on the same server another `store.generation`; "
            "--from names the settings of the store that there is.",
        )
    return Sides(old=old, new=new, shared=one_server)


@contextmanager
def beside(settings: Settings) -> Iterator[Path]:
    """A temporary folder beside a store; those that were left by who was killed go."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    for left in settings.data_dir.glob(f"{COPY}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=COPY, dir=settings.data_dir) as folder:
        yield Path(folder).resolve()


def place_of(settings: Settings) -> str:
    """Where a store is."""
    if settings.store.url:
        return f"{settings.store.url.rstrip('/').lower()} {settings.store.grpc_port}"
    return str((settings.data_dir / STORE).resolve())


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Parts]:
    """A store that is there, and whole."""
    parts = build_parts(settings)
    try:
        try:
            await parts.open(create=False)
        except LayoutMismatch as error:
            raise ConfigurationError(
                f"--from does not describe the store that it names: {error.args[0]}",
                hint="It must be the settings that the store was filled with. What the file leaves open is taken from "
                "the environment.",
            ) from None
        yield parts
    finally:
        await parts.store.close()
