"""What penchant knows: watch the recommendations, or ask a running worker for a profile or a list."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer
from rich.text import Text

from penchant.cli.frame import Json, print_json, print_table, printable, settings_of, stdout
from penchant.errors import ConfigurationError, PenchantError, Unavailable
from penchant.settings import Settings
from penchant.streams.events import ANYONE, Recommendations, Recommended
from penchant.streams.subscriber import Subscriber

__all__ = ["add_to"]

HTTP_TIMEOUT_S = 10.0
NOT_FOUND = 404
BAR = 10
NAMED = 5  # features by name; the others together
# What a list of a generic answer is called by, if it has such a column: for the eye, it comes first.
FIRST = ("item_id", "name", "time")


class UnknownUser(PenchantError):
    """The worker has no profile of that user."""


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.command()(watch)
    app.command()(profile)
    app.command()(recommendations)


def watch(
    ctx: typer.Context,
    *,
    user: Annotated[str | None, typer.Argument(help="Whose lists; by default everybody's.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="First what the topic holds.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many lists.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="End after so many seconds without one.")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show recommendations as they are published, until Ctrl-C.

    Each item with its score, the features that give most of it, and the past events that speak for it.
    Example: `penchant watch ada`, or for a program `penchant watch --json --from-beginning --timeout 2`
    """
    users = [user] if user is not None else []
    given = 0
    with Subscriber(settings_of(ctx), users=users, from_beginning=from_beginning, timeout_s=timeout) as lists:
        for one in lists:
            if as_json:
                print_json(msgspec.to_builtins(one))
            else:
                print_list(one, now_ms=round(1_000 * time.time()))
            given += 1
            if given == limit:
                break


def recommendations(ctx: typer.Context, *, user: str, as_json: Annotated[bool, Json] = False) -> None:
    """Ask the running worker what it would recommend to USER now.

    To a user of whom it knows nothing, that is what trends and what is new.
    Example: `penchant recommendations ada`
    """
    answer = ask(settings_of(ctx), "recommendations", user)
    if as_json:
        print_json(answer)
        return
    try:
        found = msgspec.convert(answer, Recommendations)
    except msgspec.ValidationError:
        raise PenchantError(
            "The worker's answer is no list of recommendations", hint="Is it of another version of penchant?"
        ) from None
    if found.user_id == ANYONE:
        stdout().print(Text(f"Nothing is known of {printable(user)} yet: this is for anyone", "dim"))
    print_list(found, now_ms=None)


def profile(ctx: typer.Context, *, user: str, as_json: Annotated[bool, Json] = False) -> None:
    """Ask the running worker what it knows of USER: the signals, and what they add up to.

    Example: `penchant profile ada --json`
    """
    answer = ask(settings_of(ctx), "profiles", user)
    if as_json:
        print_json(answer)
    else:
        print_answer(answer)


def ask(settings: Settings, what: str, user: str) -> Any:
    """A running worker's answer about a user.

    Raises:
        ConfigurationError: the worker's port is not known.
        Unavailable: no worker answers.
        UnknownUser: it has no profile of the user.
    """
    import httpx  # noqa: PLC0415  takes longer to import than most commands run

    if not settings.worker.http_port:
        raise ConfigurationError("worker.http_port is 0, so that the worker cannot be found", hint="Set it to a port.")
    address = f"http://{settings.worker.http_host}:{settings.worker.http_port}"
    try:
        answer = httpx.get(f"{address}/{what}/{quote(user, safe='')}", timeout=HTTP_TIMEOUT_S, trust_env=False)
        if answer.status_code == NOT_FOUND:
            raise UnknownUser("The worker knows no such user", hint="A profile begins with a user's first event.")
        answer.raise_for_status()
        return answer.json()
    except httpx.HTTPStatusError as error:
        raise Unavailable(f"The worker at {address} answers with status {error.response.status_code}") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise Unavailable(
            f"No worker answers at {address}",
            hint="`penchant worker` starts one; worker.http_host and worker.http_port say where it listens.",
        ) from None
    except ValueError:
        raise Unavailable(f"What answers at {address} is no penchant worker") from None


def print_list(one: Recommendations, *, now_ms: int | None) -> None:
    """Shows a list: a line a recommended item, and under it why."""
    head = [f"{printable(one.user_id)}  version {one.profile_version}  {clock(one.as_of)}"]
    if one.timings is not None and now_ms is not None:
        head.append(f"{max(0, now_ms - one.timings.recorded)} ms after the event")
    out = stdout()
    out.print(Text("  ".join(head), "bold"))
    highest = max((abs(item.score) for item in one.items), default=1.0) or 1.0
    for place, item in enumerate(one.items, 1):
        out.print(item_line(place, item, highest), soft_wrap=True)
        if item.because:
            said = ", ".join(f"{why.action} {why.item_id} {why.part:+.3f}" for why in item.because)
            out.print(Text(f"        because of {printable(said)}", "dim"), soft_wrap=True)
    if not one.items:
        out.print("    nothing to recommend yet")


def item_line(place: int, item: Recommended, highest: float) -> Text:
    """An item with its score, as a number and a bar, and the largest parts of it."""
    loudest = sorted(item.parts.items(), key=lambda one: -abs(one[1]))
    named = dict(loudest[:NAMED])
    if len(loudest) > NAMED:
        named["others"] = sum(part for _, part in loudest[NAMED:])
    parts = "  ".join(f"{name} {part:+.3f}" for name, part in named.items())
    bar = "█" * max(0, round(BAR * item.score / highest))
    line = Text(f"  {place:>3}. ")
    line.append(f"{item.score:.3f} {bar:<{BAR}} ", "cyan")
    line.append(printable(item.item_id), "bold")
    line.append(f"  {printable(parts)}", "dim")
    if item.explored:
        line.append("  new, to be tried", "yellow")
    return line


def clock(time_ms: int) -> str:
    """A time of day, UTC, as far as a year has one."""
    try:
        return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)


def print_answer(answer: Any) -> None:
    """Shows any JSON object: single values first, then a table for each list of objects."""
    if not isinstance(answer, Mapping):
        stdout().print(printable(str(answer)))
        return
    tables = {name: value for name, value in answer.items() if is_table(value)}
    print_table(("", ""), [(name, plain(value)) for name, value in answer.items() if name not in tables])
    for name, rows in tables.items():
        stdout().print(Text(f"\n{printable(name)} ({len(rows)})", "bold"))
        names = dict.fromkeys(key for row in rows for key in row)
        columns = [*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST)]
        print_table(columns, [[plain(row.get(column, "")) for column in columns] for row in rows])


def is_table(value: Any) -> bool:
    """Whether a value is a list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def plain(value: Any) -> str:
    """A value in a cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {plain(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return str(value)
