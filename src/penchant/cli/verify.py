"""Whether what is stored is what the log says, and copies of the store to go back to."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from penchant.cli.frame import Json, print_json, print_table, printable, say, settings_of, stderr, stdout
from penchant.errors import ConfigurationError

if TYPE_CHECKING:
    from penchant.verify import Fact, Report, UserReport
    from penchant.verify import Progress as Tell

__all__ = ["add_to", "progress_bar"]

SHOWN = 50

COUNTS = (
    ("lost", "signals that the log says and the store does not"),
    ("doubled", "signals that count more than once"),
    ("foreign", "signals that the store has and the log does not"),
    ("altered", "signals with another item, action, weight or time than the log says"),
    ("forgotten", "items missing from the store that nobody waits for"),
    ("deviating", "profiles whose vectors are not those of their signals"),
    ("lost_users", "users of whom the store has no profile"),
    ("foreign_users", "users whom the log does not know"),
    ("before_log", "signals older than the log: taken as they are"),
    ("stale", "profiles whose items were edited since: not wrong"),
    ("waiting", "profiles that wait for items: not wrong"),
    ("in_flight", "records that the store need not cover yet"),
    ("unusable", "records that are dead letters"),
)


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.command()(verify)
    app.command()(snapshot)


def verify(
    ctx: typer.Context,
    *,
    user: Annotated[list[str] | None, typer.Option(help="Only this user; may be given again.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many users.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample: another one looks at others.")] = 0,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SNAPSHOT",
            help="Where the log no longer reaches back: a snapshot's folder, or the address of a Qdrant server that it "
            "was restored on.",
        ),
    ] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Compare every profile in the store with what the topics say it must be. Workers may run meanwhile.

    Without --user and --sample the items' rows are recounted as well. Ends with 0 if all are exact, and with 1 if a
    signal is lost, foreign, doubled or altered, a vector is off, or a row or its count.
    Example: `penchant verify`, or `penchant verify --user ada --from backup-monday --json`
    """
    from penchant.verify import verify as compare  # noqa: PLC0415  loads the lanes

    if user and sample is not None:
        raise ConfigurationError("--user and --sample exclude each other", hint="Leave one of them out.")
    settings = settings_of(ctx)
    with progress_bar() as tell:
        report = compare(settings, users=user or None, sample=sample, seed=seed, baseline=baseline, progress=tell)
    if as_json:
        print_json(as_dict(report))
    else:
        show(report)
    if not report.exact:
        raise typer.Exit(1)


def snapshot(
    ctx: typer.Context, *, folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")]
) -> None:
    """Copy the embedded store to FOLDER as it is at one moment, whether or not a worker runs on it.

    To go back to it: stop the worker, put the copy in the place of `store` in its `data_dir`, start it. It applies
    again what came since. Example: `penchant snapshot backup-monday`
    """
    from penchant.verify import take_snapshot  # noqa: PLC0415  loads the lanes

    take_snapshot(settings_of(ctx), folder)
    say(f"{printable(str(folder))} holds the store as it was just now")


@contextmanager
def progress_bar() -> Iterator["Tell"]:
    """A bar on the standard error; gives what moves it."""
    console = stderr()
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=min(done, total), total=total or None
        )


def as_dict(report: "Report") -> dict[str, Any]:
    """A report as one JSON value: totals, then what was found by user."""
    totals = {name: getattr(report, name) for name in report.__struct_fields__ if name not in {"findings", "rows"}}
    rows = None if report.rows is None else msgspec.to_builtins(report.rows)
    findings = [
        {
            "user": one.user,
            "signals": [
                {
                    "kind": finding.kind,
                    "event_id": finding.event_id,
                    "expected": finding.expected and finding.expected._asdict(),
                    "stored": finding.stored and finding.stored._asdict(),
                }
                for finding in one.signals
            ],
            "deviation": one.deviation,
            "stale": one.stale,
            "forgotten": one.forgotten,
        }
        for one in report.findings
    ]
    return {"exact": report.exact, **totals, "findings": findings, "rows": rows}


def show(report: "Report") -> None:
    """Shows a report to a person: totals that are not zero, then findings, a bounded number of them."""
    rows = [("users", report.users, "compared"), ("signals", report.signals, "that their profiles must hold")]
    rows += [(name, getattr(report, name), meaning) for name, meaning in COUNTS if getattr(report, name)]
    rows.append(("records", report.records, "read from the log"))
    if report.rows is not None:
        rows += [
            ("rows", report.rows.rows, "of items, recounted"),
            ("transitions", report.rows.transitions, "read from their log"),
            ("wrong rows", len(report.rows.findings), "whose count or sums are not those of the log"),
        ]
        if report.rows.before_log:
            rows.append(("rows before", report.rows.before_log, "rows older than the log: taken as they are"))
    deviation = f"{report.largest_deviation:.1e}"
    print_table(("", "", ""), [*rows, ("deviation", deviation, "the largest of a component of a vector")])
    lines = [line for one in report.findings for line in finding_lines(one)]
    if lines:
        stdout().print("")
        print_table(("user", "what", "event", "the log says", "the store holds"), lines[:SHOWN])
    if len(lines) > SHOWN:
        stdout().print(f"… and {len(lines) - SHOWN} more; --json shows all, --user one user's")
    if report.rows is not None and report.rows.findings:
        wrong = [
            (one.item_id, one.expected, one.stored, f"{one.deviation:.1e}") for one in report.rows.findings[:SHOWN]
        ]
        stdout().print("")
        print_table(("item", "liked by the log", "by its row", "sums off by"), wrong)
    stdout().print("\nexact" if report.exact else "\nnot exact")


def finding_lines(one: "UserReport") -> Iterator[tuple[str, ...]]:
    """What is wrong with a user, a line each."""
    for finding in one.signals:
        yield one.user, finding.kind, finding.event_id, told(finding.expected), told(finding.stored)
    for item_id in one.forgotten:
        yield one.user, "forgotten", "", item_id, "no such item"
    if one.deviation:
        yield one.user, "stale" if one.stale else "deviating", "", "", f"vectors off by {one.deviation:.1e}"


def told(fact: "Fact | None") -> str:
    """A signal in a cell."""
    if fact is None:
        return "nothing"
    try:
        when = datetime.fromtimestamp(fact.time / 1_000, UTC).isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):
        when = str(fact.time)
    return f"{fact.action} {fact.item_id} {fact.weight:+.4g} {when}"
