"""Bytes on the wire to structs and back, and the one place where a time on the wire becomes a number.

msgpack by default. JSON where the `content-type` header says so or, without one, where the first byte does: no
msgpack map begins with a brace or with white space. Whatever cannot be used raises `Unusable` with a reason.
"""

from collections.abc import Hashable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import msgspec

from penchant.errors import PenchantError
from penchant.streams.events import Instant

__all__ = ["CONTENT_TYPE", "JSON", "MSGPACK", "Unusable", "decode", "encode", "event_time_ms"]

CONTENT_TYPE = "content-type"
MSGPACK = b"application/msgpack"
JSON = b"application/json"
JSON_FIRST_BYTES = frozenset(b"{ \t\r\n")

MAX_VALUE_BYTES = 12 * 2**20
EARLIEST_MS = 315_532_800_000  # 1980-01-01: a smaller number is most likely in seconds
CLOCK_SKEW_MS = 5 * 60_000
LATEST_AHEAD_MS = 366 * 86_400_000

T = TypeVar("T")


class Unusable(PenchantError):
    """A record cannot be used as it is; it belongs into the dead letters.

    Args:
        message: what is wrong with it; names fields and bounds, never values.
        reason: a short word for counting and filtering.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(kind: type[T], value: bytes | None, headers: Mapping[str, bytes] | None = None) -> T:
    """Decodes a record's value into its struct, checking types and bounds.

    Raises:
        Unusable: the value is empty, too large, of an unknown content type, malformed, or out of bounds.
    """
    if not value:
        raise Unusable("the value is empty", reason="empty")
    if len(value) > MAX_VALUE_BYTES:
        raise Unusable(f"the value is larger than {MAX_VALUE_BYTES} bytes", reason="too-large")
    try:
        as_json = is_json(value, headers) if headers else value[0] in JSON_FIRST_BYTES
        decoded: T = (json_decoder if as_json else msgpack_decoder)(kind).decode(value)  # type: ignore[arg-type]  # a class is hashable
    except msgspec.ValidationError as error:
        raise Unusable(without_values(error), reason="invalid") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unusable("the value is neither well-formed msgpack nor JSON", reason="malformed") from None
    return decoded


def encode(event: msgspec.Struct, *, json: bool = False) -> bytes:
    """A struct as the bytes of a record's value: msgpack, or JSON."""
    return msgspec.json.encode(event) if json else msgspec.msgpack.encode(event)


def event_time_ms(at: Instant | None, record_ms: int) -> int:
    """When an event happened, in epoch milliseconds, judged against its record's timestamp only.

    Never against the wall clock, so that a replay gives the same set of signals. Absent, it is the record's
    timestamp; ahead of that by more than five minutes it is clamped to it.

    Args:
        at: the event's own time, if it has one.
        record_ms: the record's timestamp, epoch milliseconds.

    Raises:
        Unusable: the time is before 1980 (seconds instead of milliseconds?) or more than a year ahead.
    """
    if at is None:
        time_ms = record_ms
    elif isinstance(at, datetime):
        time_ms = round(at.timestamp() * 1_000)
    else:
        time_ms = at
    if time_ms < EARLIEST_MS:
        raise Unusable("`at` is before 1980: is it in seconds instead of milliseconds?", reason="implausible-time")
    if time_ms > record_ms + LATEST_AHEAD_MS:
        raise Unusable("`at` is more than a year ahead of the record's timestamp", reason="implausible-time")
    return record_ms if time_ms > record_ms + CLOCK_SKEW_MS else time_ms


def is_json(value: bytes, headers: Mapping[str, bytes]) -> bool:
    """Whether a value is JSON, by its header or else by its first byte."""
    declared = headers.get(CONTENT_TYPE)
    if declared == MSGPACK:  # as nearly all are
        return False
    if declared is None:
        return value[0] in JSON_FIRST_BYTES
    media_type = declared.split(b";", 1)[0].strip().lower()
    if media_type not in {JSON, MSGPACK}:
        raise Unusable("the content type is neither application/msgpack nor application/json", reason="content-type")
    return media_type == JSON


@cache  # one entry a struct
def msgpack_decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a struct; built once, since building costs more than decoding."""
    return msgspec.msgpack.Decoder(kind)


@cache
def json_decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    """Likewise, of JSON."""
    return msgspec.json.Decoder(kind)


def without_values(error: msgspec.ValidationError) -> str:
    """A validation error's text, less the offending value that msgspec quotes for unknown tags and enums."""
    text = str(error)
    if text.startswith(("Invalid value", "Invalid enum value")):
        _, separator, path = text.rpartition(" - at ")
        return f"a value that is not among those known{separator}{path}" if separator else "an unknown value"
    return text
