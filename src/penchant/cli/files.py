"""Whole files: import a catalogue or a history, replay MovieLens."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from penchant.cli.frame import Json, command_group, print_json, printable, say, settings_of, stderr, stdout
from penchant.errors import ConfigurationError
from penchant.importing import (
    ImportReport,
    Kind,
    Row,
    Rows,
    import_rows,
    make_plan,
    movielens_click,
    movielens_entities,
    movielens_fact,
    movielens_item,
    open_facts,
    open_rows,
)
from penchant.settings import Settings
from penchant.streams.client import Event, InvalidEvent, Publisher, checked
from penchant.streams.codec import Unusable, decode, encode
from penchant.streams.events import Triple
from penchant.streams.knowledge import triple_key
from penchant.streams.records import Output
from penchant.streams.topics import Topic

__all__ = ["add_to"]

PROGRESS_ROWS = 200
FACTS, ENTITIES = "kg.txt", "item_index2entity_id.txt"

importing = command_group("import", "Import a catalogue or a history: CSV, TSV, JSON Lines or Parquet, by suffix.")
replay = command_group("replay", "Replay a known data set.")

File = Annotated[Path, typer.Argument(help="By suffix .csv, .tsv, .jsonl, .ndjson or .parquet.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map", help="FIELD=COLUMN; a time's unit behind it (at=when:s), or the separator of tags (tags=genres:|)."
    ),
]
Set = Annotated[list[str] | None, typer.Option("--set", help="FIELD=TEXT, in which {COLUMN} stands for its value.")]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Rows that give no event are no reason for a failing exit code.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check every row, and send nothing.")]


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.add_typer(importing)
    app.add_typer(replay)


@importing.command()
def items(
    ctx: typer.Context,
    *,
    file: File,
    mapped: Map = None,
    constant: Set = None,
    skip_invalid: SkipInvalid = False,
    dry_run: DryRun = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Import a catalogue. Columns named like a field are taken as they are; `--map` names the others.

    Fields: item_id, title, text, tags, entity, at, attributes.NAME, media.image and media.audio (URIs).

    Example: `penchant import items movies.csv --map item_id=movieId --map tags=genres:| --set "text={title}"`
    """
    import_file(
        settings_of(ctx),
        "items",
        file,
        mapped=mapped,
        constant=constant,
        skip_invalid=skip_invalid,
        dry_run=dry_run,
        as_json=as_json,
    )


@importing.command()
def clicks(
    ctx: typer.Context,
    *,
    file: File,
    mapped: Map = None,
    constant: Set = None,
    skip_invalid: SkipInvalid = False,
    dry_run: DryRun = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Import a history. Columns named like a field are taken as they are; `--map` names the others.

    Fields: user_id, item_id, event_id, action, value, dwell_ms, at, context.NAME. Without an event_id, one is
    made of what the row says: importing a file twice counts once.

    Example: `penchant import clicks ratings.csv --map user_id=userId --map item_id=movieId --map value=rating
    --map at=timestamp:s --set action=rate`
    """
    import_file(
        settings_of(ctx),
        "clicks",
        file,
        mapped=mapped,
        constant=constant,
        skip_invalid=skip_invalid,
        dry_run=dry_run,
        as_json=as_json,
    )


@replay.command()
def movielens(
    ctx: typer.Context,
    *,
    folder: Annotated[Path, typer.Argument(help="With movies.csv and ratings.csv.")],
    graph: Annotated[
        Path | None,
        typer.Option(help="A folder with kg.txt (facts) and item_index2entity_id.txt (films and their entities)."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many ratings.")] = None,
    dry_run: DryRun = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Replay a MovieLens folder: the films as items, the ratings as clicks at their own times.

    A rating's event id is made of user and film, so that replaying twice counts once. With a knowledge graph, its facts
    are sent too, and the films name their entities.

    Example: `penchant replay movielens ml-latest-small --limit 1000`
    """
    settings = settings_of(ctx)
    entities = None if graph is None else movielens_entities(graph / ENTITIES)
    parts: tuple[tuple[str, Callable[[Row], Event], int | None], ...] = (
        ("movies.csv", partial(movielens_item, entities=entities), None),
        ("ratings.csv", movielens_click, limit),
    )
    for name, _, _ in parts:
        if not (folder / name).is_file():
            raise ConfigurationError(f"{folder} is no MovieLens folder: it has no {name}")
    reports = {}
    if graph is not None:
        with open_facts(graph / FACTS) as rows:
            reports[FACTS] = transfer(settings, rows, FACTS, movielens_fact, limit=None, dry_run=dry_run)
        show(reports[FACTS], FACTS, dry_run=dry_run, as_json=as_json)
    for name, to_event, most in parts:
        with open_rows(folder / name) as rows:
            reports[name] = transfer(settings, rows, name, to_event, limit=most, dry_run=dry_run)
        show(reports[name], name, dry_run=dry_run, as_json=as_json)
    if any(report.rejected for report in reports.values()):
        raise typer.Exit(1)


def import_file(
    settings: Settings,
    kind: Kind,
    file: Path,
    *,
    mapped: list[str] | None,
    constant: list[str] | None,
    skip_invalid: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Imports one file, and ends with a failing exit code where a row was rejected and nobody asked to skip it."""
    with open_rows(file) as rows:
        plan = make_plan(kind, rows.columns, mapped or (), constant or ())
        report = transfer(settings, rows, file.name, plan, limit=None, dry_run=dry_run)
    show(report, file.name, dry_run=dry_run, as_json=as_json)
    if report.rejected and not skip_invalid:
        raise typer.Exit(1)


def transfer(
    settings: Settings,
    rows: Rows,
    name: str,
    to_event: Callable[[Row], Event | Triple],
    *,
    limit: int | None,
    dry_run: bool,
) -> ImportReport:
    """Sends what the rows say, or only checks it, with a progress bar."""
    with ExitStack() as stack:
        publisher = None if dry_run else stack.enter_context(Publisher(settings))
        return import_rows(with_progress(rows, name, limit), to_event, partial(deliver, publisher))


def deliver(publisher: Publisher | None, event: Event | Triple) -> None:
    """Sends an event or a fact; without a publisher only checks it."""
    if isinstance(event, Triple):
        key, value = triple_record(event)
        if publisher is not None:
            publisher.publish(Output(topic=publisher.topic(Topic.TRIPLES), key=key, value=value), event.head)
    elif publisher is None:
        checked(event)
    else:
        publisher.send(event)


def triple_record(fact: Triple) -> tuple[bytes, bytes]:
    """A fact's key and value.

    Raises:
        InvalidEvent: it is not within the contract.
    """
    try:
        value = encode(fact)
        decode(Triple, value)
    except (Unusable, ValueError) as error:
        raise InvalidEvent(f"Triple: {error.args[0]}") from None
    return triple_key(fact), value


def with_progress(rows: Rows, name: str, limit: int | None) -> Iterator[Row]:
    """The first `limit` rows, with a bar that shows how much of the file has been read."""
    console = stderr()
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]} rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(printable(name), total=rows.total if limit is None else limit, rows=0)
        for count, row in enumerate(itertools.islice(rows.rows, limit), 1):
            yield row
            if count % PROGRESS_ROWS == 0:
                bar.update(task, completed=rows.position() if limit is None else count, rows=count)


def show(report: ImportReport, name: str, *, dry_run: bool, as_json: bool) -> None:
    """Prints what became of a file's rows."""
    if as_json:
        print_json(
            {
                "file": name,
                "dry_run": dry_run,
                "accepted": report.sent,
                "rejected": report.rejected,
                "reasons": report.reasons,
                "first": [{"line": line, "reason": reason} for line, reason in report.first],
            }
        )
        return
    for line, reason in report.first:
        say(f"{name}:{line}: {reason}")
    if report.rejected > len(report.first):
        say(f"… and {report.rejected - len(report.first)} more rejected:")
        for reason, count in report.reasons.most_common():
            say(f"{count:>9} {reason}")
    done = "would be sent" if dry_run else "sent"
    stdout().print(f"{name}: {report.sent} {done}, {report.rejected} rejected")
