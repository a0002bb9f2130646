"""Media references to bytes: inline data, files below allowed folders, and what settings allow to fetch.

A reference comes from whoever may publish an event, so it is taken for hostile. Of files, links and `..` are resolved
before the folder is compared, and only regular ones of a bounded size are read; the folders allowed are trusted not
to change under a reading. Nothing is fetched from a network unless settings say from where.

What is not to be had now may be a little later, so it is tried a few times, with pauses; but no host is waited for
any longer, for others wait behind it: what it was to give is refused as "unavailable", and while a host has failed
lately, it is asked once for each medium.
"""

import asyncio
import os
import ssl
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

from penchant.encoders.base import Undecodable
from penchant.encoders.buckets import Buckets
from penchant.encoders.fetch import Fetcher, Passing, Resolver
from penchant.settings import EncoderSettings

__all__ = ["MediaReader"]

LOCAL_HOSTS = ("", "localhost")
PAUSES_S = (0.5, 2.0)  # between attempts
FAILED_LATELY_S = 60.0
MOST_FAILED = 1_024  # hosts remembered
AT_ONCE, AT_ONCE_A_HOST = 32, 8


class MediaReader:
    """Reads what media references lead to; an async context manager.

    Args:
        settings: what may be read, and how large it may be.
        resolve: gives the addresses of a host; by default the system does.
        tls: whose certificates are trusted; None: those of the usual authorities.
        pauses_s: between attempts, in seconds.

    Raises:
        ConfigurationError: the settings allow what cannot be done here.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        *,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._settings = settings
        self._fetcher = Fetcher(settings, resolve=resolve, tls=tls)
        self._buckets = Buckets(settings)
        self._pauses_s = pauses_s
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._slots_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._failed: dict[str, float] = {}

    async def read(self, uri: str | None, data: bytes | None) -> bytes:
        """The bytes of a picture or a sound.

        Args:
            uri: a reference; unused where there is inline data.
            data: inline data.

        Raises:
            Undecodable: there is nothing to read, or it must not be read, or could not. docs/operations.md lists the
                reasons.
        """
        if data is not None:
            check_size(len(data), self._settings)
            return data
        if uri is None:
            raise Undecodable("The media has neither data nor a reference", reason="empty")
        scheme = uri.partition(":")[0].lower()
        if scheme == "file":
            return await asyncio.to_thread(read_file, local_path(uri), self._settings)
        if scheme in {"https", "http"}:
            target = self._fetcher.checked(uri)
            content = await self._patiently(target.place, lambda: self._fetcher.fetch(uri))
        elif scheme == "s3":
            bucket, key = self._buckets.checked(uri)
            content = await self._patiently(f"s3:{bucket}", lambda: self._buckets.fetch(bucket, key))
        else:
            raise Undecodable("Only file:, https: and s3: references are read", reason="unsupported-scheme")
        if not content:
            raise Undecodable("There is nothing in it", reason="empty")
        return content

    async def close(self) -> None:
        """Ends connections."""
        await self._buckets.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _patiently(self, place: str, attempt: Callable[[], Awaitable[bytes]]) -> bytes:
        """Tries a few times, or once at a place that has failed lately.

        Raises:
            Undecodable: as the attempt, or all of them failed ("unavailable").
        """
        pauses = () if self._failed.get(place, 0.0) > time.monotonic() else self._pauses_s
        for pause_s in (*pauses, None):
            try:
                return await self._in_turn(place, attempt)
            except (Passing, TimeoutError) as failure:
                happened = str(failure) or "time-out"
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        self._note_failed(place)
        raise Undecodable(f"It is not to be had now ({happened})", reason="unavailable")

    async def _in_turn(self, place: str, attempt: Callable[[], Awaitable[bytes]]) -> bytes:
        """One attempt in its time, when there is room: a slow host takes a part of it alone."""
        of_place = self._slots_of.setdefault(place, asyncio.Semaphore(AT_ONCE_A_HOST))
        async with of_place, self._slots, asyncio.timeout(self._settings.media_timeout_s):
            return await attempt()

    def _note_failed(self, place: str) -> None:
        self._failed.pop(place, None)
        self._failed[place] = time.monotonic() + FAILED_LATELY_S
        if len(self._failed) > MOST_FAILED:
            del self._failed[next(iter(self._failed))]


def local_path(uri: str) -> Path:
    """The absolute path that a `file:` URI names."""
    try:
        parts = urlsplit(uri)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise Undecodable("The reference is no URI", reason="malformed-uri") from None
    if parts.netloc not in LOCAL_HOSTS or parts.query or parts.fragment or not path.startswith("/") or "\0" in path:
        raise Undecodable("The reference names no local file", reason="malformed-uri")
    return Path(path)


def read_file(path: Path, settings: EncoderSettings) -> bytes:
    """The content of a regular file that lies below an allowed folder."""
    try:
        target = path.resolve()
        if not any(target.is_relative_to(root.resolve()) for root in settings.media_roots):
            raise Undecodable("The reference leads out of the folders allowed", reason="not-allowed")
        # Without blocking, lest a pipe hold the thread for ever; without following a link put there just now.
        opened = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise Undecodable("The reference names no regular file", reason="not-a-file")
            check_size(status.st_size, settings)
            with os.fdopen(opened, "rb", closefd=False) as file:
                content = file.read(settings.max_media_bytes + 1)
        finally:
            os.close(opened)
    except FileNotFoundError:
        raise Undecodable("The reference names no file", reason="not-found") from None
    except (OSError, RuntimeError) as error:  # the latter for a circle of links, before Python 3.13
        # The error's own words would name the path.
        raise Undecodable(f"The reference cannot be read ({type(error).__name__})", reason="unreadable") from None
    check_size(len(content), settings)
    return content


def check_size(size: int, settings: EncoderSettings) -> None:
    """Refuses more bytes than settings allow."""
    if size > settings.max_media_bytes:
        raise Undecodable(f"{size} bytes are more than {settings.max_media_bytes}", reason="too-large")
