"""Files to events: catalogues and histories in CSV, JSON Lines or Parquet, a row at a time.

A *plan* says where each field of an event comes from: a column, or a text made of columns. A row that gives no
event within the contract is counted with its line number, and the others go on. Imported clicks have ids made
of what they say, so that importing a file twice changes nothing.
"""

import csv
import difflib
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from penchant.errors import ConfigurationError, PenchantError
from penchant.streams.client import Event, InvalidEvent
from penchant.streams.events import Click, ClickAction, Item, Media, MediaKind, Triple

__all__ = [
    "ImportReport",
    "Kind",
    "Plan",
    "Row",
    "Rows",
    "import_rows",
    "make_plan",
    "movielens_click",
    "movielens_entities",
    "movielens_fact",
    "movielens_item",
    "open_facts",
    "open_rows",
]

Kind = Literal["items", "clicks"]
Sent = TypeVar("Sent", bound=Event | Triple)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = {".jsonl", ".ndjson"}
PARQUET = {".parquet", ".pq"}

MAX_LINE_BYTES = 16 * 2**20
PARQUET_ROWS = 1_024
FIRST_REJECTS = 20

UNITS_MS = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
TEXT_FIELDS = {
    "clicks": frozenset({"event_id", "user_id", "item_id", "action"}),
    "items": frozenset({"item_id", "title", "text", "entity"}),
}
OTHER_FIELDS = {
    "clicks": frozenset({"value", "dwell_ms", "at"}),
    "items": frozenset({"tags", "at", "media.image", "media.audio"}),
}
OPEN_FIELDS = {"clicks": "context.", "items": "attributes."}
REQUIRED = {"clicks": ("user_id", "item_id"), "items": ("item_id",)}

COLUMN = re.compile(r"\{([^{}]+)\}")
YEAR = re.compile(r"\((\d{4})\)\s*$")
NO_GENRES = "(no genres listed)"
FACT = ("head", "relation", "tail")


class Row(NamedTuple):
    """A row of a file: its values by column, or what is wrong with it."""

    line: int
    values: Mapping[str, Any]
    problem: str = ""


class Rows(Struct, kw_only=True):
    """An open file.

    Attributes:
        columns: of every row; None where each row has its own (JSON Lines).
        total: how much there is to read, in the unit of `position`.
        position: how much has been read.
        rows: the rows, once.
    """

    columns: frozenset[str] | None
    total: int
    position: Callable[[], int]
    rows: Iterator[Row]


class ImportReport(Struct, kw_only=True):
    """What became of the rows.

    Attributes:
        sent: events accepted.
        rejected: rows that gave no event.
        reasons: how often each was given.
        first: the first rejects, as line and reason.
    """

    sent: int = 0
    rejected: int = 0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    first: list[tuple[int, str]] = msgspec.field(default_factory=list)

    def reject(self, line: int, reason: str) -> None:
        """Counts a row that gave no event."""
        self.rejected += 1
        self.reasons[reason] += 1
        if len(self.first) < FIRST_REJECTS:
            self.first.append((line, reason))


class Source(NamedTuple):
    """Where a field's value comes from, and how it is read."""

    field: str
    take: Callable[[Mapping[str, Any]], Any]
    read: Callable[[Any], Any]


class Plan(Struct, frozen=True):
    """How a row becomes an event."""

    kind: Kind
    sources: tuple[Source, ...]

    def __call__(self, row: Row) -> Event:
        """The event of a row; the contract's bounds are checked when it is sent.

        Raises:
            InvalidEvent: a value cannot be read, or an id is missing.
        """
        fields: dict[str, Any] = {}
        for source in self.sources:
            if absent(value := source.take(row.values)):
                continue
            try:
                place(fields, source.field, source.read(value))
            except (ValueError, TypeError, OverflowError, OSError):
                raise InvalidEvent(f"{source.field}: the value cannot be read") from None
        for field in REQUIRED[self.kind]:
            if field not in fields:
                raise InvalidEvent(f"{field}: missing")
        if self.kind == "items":
            return Item(**fields)
        fields.setdefault("event_id", event_id(row, timed="at" in fields))
        return Click(**fields)


def import_rows(rows: Iterable[Row], to_event: Callable[[Row], Sent], send: Callable[[Sent], object]) -> ImportReport:
    """Sends what `rows` say.

    Args:
        rows: of a file.
        to_event: makes the event of a row; a `Plan`, for instance.
        send: checks and sends one; raises `InvalidEvent` where it is outside the contract.
    """
    report = ImportReport()
    for row in rows:
        if row.problem:
            report.reject(row.line, row.problem)
            continue
        try:
            send(to_event(row))
        except InvalidEvent as error:
            report.reject(row.line, str(error.args[0]))
        else:
            report.sent += 1
    return report


def make_plan(kind: Kind, columns: frozenset[str] | None, maps: Sequence[str], constants: Sequence[str]) -> Plan:
    """The plan that the command line's `--map` and `--set` describe.

    Args:
        kind: what the rows are.
        columns: of the file; those named like a field are taken without being mapped. None: unknown.
        maps: `field=column`, with `:unit` behind the column of a time (s, ms, us, ns; default ms, or RFC 3339),
            and `:separator` behind that of tags (default a comma).
        constants: `field=text`, where `{column}` in the text stands for that column's value.

    Raises:
        ConfigurationError: a field or a column does not exist, or is given twice.
    """
    sources: dict[str, Source] = {}
    for described in maps:
        field, column = parted(kind, described, "--map")
        column, reader = reader_of(field, column, columns)
        check_column(column, columns)
        add(sources, Source(field, partial(cell, column), reader))
    for described in constants:
        field, template = parted(kind, described, "--set")
        for column in COLUMN.findall(template):
            check_column(column, columns)
        _, reader = reader_of(field, field, None)
        add(sources, Source(field, partial(filled, template), reader))
    known = TEXT_FIELDS[kind] | OTHER_FIELDS[kind]
    for field in sorted(known if columns is None else known & columns):
        if field not in sources:
            sources[field] = Source(field, partial(cell, field), reader_of(field, field, None)[1])
    for field in REQUIRED[kind]:
        if field not in sources:
            raise ConfigurationError(
                f"No column gives {field}", hint=f"Say which one does: --map {field}=COLUMN. {listed(columns)}"
            )
    return Plan(kind, tuple(sources.values()))


def parted(kind: Kind, described: str, option: str) -> tuple[str, str]:
    """`field=source` in its two parts, with a field that exists."""
    field, separator, source = described.partition("=")
    if not separator or not source:
        raise ConfigurationError(f"{option} {described}: expected FIELD=VALUE")
    known = TEXT_FIELDS[kind] | OTHER_FIELDS[kind]
    if field in known or (field.startswith(OPEN_FIELDS[kind]) and field != OPEN_FIELDS[kind]):
        return field, source
    raise ConfigurationError(
        f"{option} {described}: {kind} have no field {field!r}",
        hint=f"They have {', '.join(sorted(known))} and {OPEN_FIELDS[kind]}NAME.",
    )


def reader_of(field: str, column: str, columns: frozenset[str] | None) -> tuple[str, Callable[[Any], Any]]:
    """A column's name without what stands behind its colon, and what reads the field's values."""
    name, _, suffix = column.rpartition(":")
    if columns is not None and column in columns:
        name, suffix = "", ""  # a column whose own name has a colon
    if field == "at":
        unit = suffix if name and suffix in UNITS_MS else ""
        return (name if unit else column), lambda value: instant(value, UNITS_MS.get(unit, 1.0))
    if field == "dwell_ms":
        unit = suffix if name and suffix in UNITS_MS else "ms"
        return (name if name and suffix == unit else column), lambda value: round(float(value) * UNITS_MS[unit])
    if field == "tags":
        separator = suffix if name and suffix else ","
        return (name if name and suffix else column), lambda value: words(value, separator)
    if field == "value":
        return column, float
    if field.startswith("media."):
        kind = MediaKind(field.removeprefix("media."))
        return column, lambda value: Media(kind=kind, uri=text(value))
    return column, text


def check_column(column: str, columns: frozenset[str] | None) -> None:
    """Refuses a column that the file does not have."""
    if columns is None or column in columns:
        return
    near = difflib.get_close_matches(column, sorted(columns), 1)
    raise ConfigurationError(
        f"The file has no column {column!r}", hint=f"Did you mean {near[0]!r}?" if near else listed(columns)
    )


def listed(columns: frozenset[str] | None) -> str:
    """A file's columns in a sentence."""
    return f"The file has the columns {', '.join(sorted(columns))}." if columns else ""


def add(sources: dict[str, Source], source: Source) -> None:
    """Adds a field's source, once."""
    if source.field in sources:
        raise ConfigurationError(f"{source.field} is given twice")
    sources[source.field] = source


def place(fields: dict[str, Any], field: str, value: Any) -> None:
    """Puts a value where its field stands in the event."""
    name, _, key = field.partition(".")
    if name == "media":
        fields["media"] = (*fields.get("media", ()), value)
    elif key:
        fields.setdefault(name, {})[key] = value
    else:
        fields[name] = value


def cell(column: str, values: Mapping[str, Any]) -> Any:
    """A row's value in a column; None where it has none."""
    return values.get(column)


def absent(value: Any) -> bool:
    """Whether a cell says nothing."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def text(value: Any) -> str:
    """A cell as text. Whole numbers lose the fraction that a column with gaps has given them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    raise TypeError


def words(value: Any, separator: str) -> tuple[str, ...]:
    """A cell as tags: a list, or a text with separators."""
    parts = value if isinstance(value, list | tuple) else text(value).split(separator)
    return tuple(word for part in parts if (word := text(part).strip()))


def instant(value: Any, unit_ms: float) -> int | datetime:
    """A cell as a time: a number of units since 1970, RFC 3339, or a datetime (without a zone: UTC)."""
    if isinstance(value, str):
        try:
            value = float(value) if not value.strip().lstrip("-").isdigit() else int(value)
        except ValueError:
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return value * round(unit_ms) if isinstance(value, int) and unit_ms >= 1 else round(value * unit_ms)


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A template with the values of its columns; absent ones leave nothing."""
    return COLUMN.sub(lambda found: "" if absent(value := values.get(found[1])) else text(value), template).strip()


def event_id(row: Row, *, timed: bool) -> str:
    """An id made of what a row says; without a time, of where it stands too, for nothing else tells rows apart."""
    said = repr(sorted((name, str(value)) for name, value in row.values.items()))
    said += "" if timed else f" {row.line}"
    return "import-" + hashlib.blake2b(said.encode(errors="surrogateescape"), digest_size=12).hexdigest()


@contextmanager
def open_rows(path: Path) -> Iterator[Rows]:
    """Opens a file by its suffix: .csv, .tsv, .jsonl, .ndjson, .parquet.

    Raises:
        ConfigurationError: the file is not there, is of no known kind, or has no usable header.
    """
    suffix = path.suffix.lower()
    with opened(path) as file:
        if suffix in DELIMITERS:
            # Bytes that are no UTF-8 survive as surrogates, so that their row is rejected and not the file.
            with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as decoded:
                yield delimited(decoded, path.stat().st_size, file.tell, DELIMITERS[suffix])
        elif suffix in JSON_LINES:
            yield Rows(columns=None, total=path.stat().st_size, position=file.tell, rows=json_rows(file))
        elif suffix in PARQUET:
            yield parquet(file)
        else:
            raise ConfigurationError(
                f"{path.name}: unknown kind of file", hint="Known are .csv, .tsv, .jsonl, .ndjson and .parquet."
            )


@contextmanager
def open_facts(path: Path) -> Iterator[Rows]:
    """Opens a file of facts: head, relation and tail with tabs between, and no header.

    Raises:
        ConfigurationError: the file is not there.
    """
    with opened(path) as file, io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="") as decoded:
        reader = csv.reader(decoded, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = delimited_rows(reader, list(FACT))
        yield Rows(columns=frozenset(FACT), total=path.stat().st_size, position=file.tell, rows=rows)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes."""
    try:
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def delimited(lines: Iterable[str], size: int, position: Callable[[], int], delimiter: str) -> Rows:
    """The rows of a CSV or TSV file with a header."""
    reader = csv.reader(lines, delimiter=delimiter)
    header = next(reader, [])
    if not header or len(set(header)) < len(header):
        raise ConfigurationError(
            "The file has no header with distinct names", hint="The first line must name the columns."
        )
    return Rows(columns=frozenset(header), total=size, position=position, rows=delimited_rows(reader, header))


def delimited_rows(reader: Any, header: list[str]) -> Iterator[Row]:
    """Each row by its column names; the line is the one that the row ends in."""
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise PenchantError(f"Line {reader.line_num}: {error}", hint="The file is not CSV from here on.") from None
        if cells is None:
            return
        if len(cells) == len(header):
            yield Row(reader.line_num, dict(zip(header, cells, strict=True)))
        elif cells:
            yield Row(reader.line_num, {}, "the row has another number of cells than the header")


def json_rows(file: BinaryIO) -> Iterator[Row]:
    """Each line's object."""
    line = 0
    while chunk := file.readline(MAX_LINE_BYTES):
        line += 1
        if len(chunk) == MAX_LINE_BYTES:
            while chunk and not chunk.endswith(b"\n"):
                chunk = file.readline(MAX_LINE_BYTES)
            yield Row(line, {}, f"the line is longer than {MAX_LINE_BYTES} bytes")
        elif chunk.strip():
            try:
                yield Row(line, msgspec.json.decode(chunk, type=dict[str, Any]))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                yield Row(line, {}, "the line is no JSON object")


def parquet(file: BinaryIO) -> Rows:
    """The rows of a Parquet file, read in batches."""
    try:
        from pyarrow import ArrowInvalid  # noqa: PLC0415  an optional package
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415  an optional package
    except ImportError:
        raise ConfigurationError(
            "Parquet needs the package pyarrow", hint='`pip install "penchant[parquet]"` installs it.'
        ) from None
    try:
        opened = ParquetFile(file)
    except ArrowInvalid:
        raise ConfigurationError("The file is not Parquet") from None
    done = 0

    def rows() -> Iterator[Row]:
        nonlocal done
        for batch in opened.iter_batches(batch_size=PARQUET_ROWS):
            for values in batch.to_pylist():
                done += 1
                yield Row(done, values)

    return Rows(
        columns=frozenset(opened.schema_arrow.names),
        total=opened.metadata.num_rows,
        position=lambda: done,
        rows=rows(),
    )


def movielens_entities(path: Path) -> dict[str, str]:
    """The entities of films in a knowledge graph, by their ids: lines of both, with a tab between.

    Raises:
        ConfigurationError: the file is not there, or a line is of another kind.
    """
    try:
        pairs = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
        return {film: entity for film, entity in pairs}  # noqa: C416  a line of another kind does not unpack
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'a line is no film and its entity'}"
        ) from None


def movielens_fact(row: Row) -> Triple:
    """A fact of a graph of films."""
    return Triple(**row.values)


def movielens_item(row: Row, entities: Mapping[str, str] | None = None) -> Item:
    """A film of MovieLens' `movies.csv`: the title, the genres as tags, the year.

    Title and tags are embedded; the same words once more as text would only cost time.

    Args:
        row: of the file.
        entities: of films in a knowledge graph, by their ids.

    Raises:
        InvalidEvent: the row lacks a column.
    """
    try:
        item_id, title, listed_genres = (row.values[name] for name in ("movieId", "title", "genres"))
    except KeyError:
        raise InvalidEvent("the row lacks movieId, title or genres") from None
    genres = () if listed_genres == NO_GENRES else words(listed_genres, "|")
    year = YEAR.search(title)
    return Item(
        item_id=item_id,
        title=title,
        tags=genres,
        attributes={"year": year[1]} if year else {},
        entity=(entities or {}).get(item_id),
    )


def movielens_click(row: Row) -> Click:
    """A rating of MovieLens' `ratings.csv`, at its own time and with an id of its own.

    Raises:
        InvalidEvent: the row lacks a column, or a number is none.
    """
    try:
        user, item = row.values["userId"], row.values["movieId"]
        value, at = float(row.values["rating"]), 1_000 * int(row.values["timestamp"])
    except (KeyError, ValueError):
        raise InvalidEvent("the row lacks userId, movieId, rating or timestamp, or a number is none") from None
    return Click(event_id=f"ml-{user}-{item}", user_id=user, item_id=item, action=ClickAction.RATE, value=value, at=at)
