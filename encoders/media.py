"""Media references to bytes: inline data as it is, `file:` references below the folders that settings allow.

A reference comes from whoever may publish an event, so it is taken for hostile: nothing is fetched from a
network, links and `..` are resolved before the folder is compared, and only regular files of a bounded size are
read. The folders allowed are trusted not to change under a reading.
"""

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from penchant.encoders.base import Undecodable
from penchant.settings import EncoderSettings

__all__ = ["read_media"]

LOCAL_HOSTS = ("", "localhost")


def read_media(uri: str | None, data: bytes | None, settings: EncoderSettings) -> bytes:
    """The bytes of a picture or a sound. Blocks while it reads: call it in a thread.

    Args:
        uri: a reference; unused where there is inline data.
        data: inline data.
        settings: which folders may be read, and how large a medium may be.

    Raises:
        Undecodable: there is nothing to read, or it must not be read ("empty", "too-large",
            "unsupported-scheme", "malformed-uri", "not-allowed", "not-found", "not-a-file", "unreadable").
    """
    if data is not None:
        check_size(len(data), settings)
        return data
    if uri is None:
        raise Undecodable("The media has neither data nor a reference", reason="empty")
    return read_file(local_path(uri), settings)


def local_path(uri: str) -> Path:
    """The absolute path that a `file:` URI names."""
    try:
        parts = urlsplit(uri)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise Undecodable("The reference is no URI", reason="malformed-uri") from None
    if parts.scheme != "file":
        raise Undecodable("Only file: references are read", reason="unsupported-scheme")
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
        with os.fdopen(os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Undecodable("The reference names no regular file", reason="not-a-file")
            check_size(status.st_size, settings)
            content = file.read(settings.max_media_bytes + 1)
    except FileNotFoundError:
        raise Undecodable("The reference names no file", reason="not-found") from None
    except (OSError, RuntimeError) as error:  # the latter for a circle of links, before Python 3.13
        # A folder can be opened, but not as a file object. The error's own words would name the path.
        reason = "not-a-file" if isinstance(error, IsADirectoryError) else "unreadable"
        raise Undecodable(f"The reference cannot be read ({type(error).__name__})", reason=reason) from None
    check_size(len(content), settings)
    return content


def check_size(size: int, settings: EncoderSettings) -> None:
    """Refuses more bytes than settings allow."""
    if size > settings.max_media_bytes:
        raise Undecodable(f"{size} bytes are more than {settings.max_media_bytes}", reason="too-large")
