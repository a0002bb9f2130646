"""The weights of the ranking: show what was learned, or have it learned anew."""

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from penchant.cli.frame import Json, print_json, print_table, settings_of, stdout

if TYPE_CHECKING:
    from penchant.streams.weights import Weighed

__all__ = ["add_to"]

commands = typer.Typer(name="weights", rich_markup_mode="markdown")
DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.add_typer(commands)


@commands.callback(invoke_without_command=True)
def show(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Show what each feature of the ranking counts: where it started, what was learned, and what is pinned.

    The last two columns are added for users who were away, half of it after 8 h. What `recommend.weights` and
    `recommend.returning` pin counts as they say, whatever was learned.
    Examples: `penchant weights`, `penchant weights reset`
    """
    if ctx.invoked_subcommand is not None:
        return
    from penchant.parts import build_parts  # noqa: PLC0415  loads the store
    from penchant.streams.weights import Standing, last_learned  # noqa: PLC0415  loads Kafka's client

    settings = settings_of(ctx)
    standing = Standing(settings, build_parts(settings).ranker.features)
    found = last_learned(settings)
    if found is not None:
        standing.take(found)
    view = standing.view()
    if as_json:
        print_json(msgspec.to_builtins(view))
        return
    rows = [(one.feature, *cells(one.base), *cells(one.returning)) for one in view.features]
    columns = ("prior", "learned", "pinned")
    print_table(("feature", *columns, *(f"away: {name}" for name in columns)), rows)
    stdout().print(summary(view.examples, view.as_of, learning=view.learning))


@commands.command()
def reset(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Have the learner begin anew, from the weights that ranking starts with.

    It counts from its place in the log of examples on; what was learned before is forgotten by all workers.
    Example: `penchant weights reset`
    """
    from penchant.streams.client import Publisher  # noqa: PLC0415  loads Kafka's client
    from penchant.streams.weights import reset_request  # noqa: PLC0415  likewise

    settings = settings_of(ctx)
    with Publisher(settings) as publisher:
        publisher.publish(reset_request(settings), "reset")
    if as_json:
        print_json({"asked": "reset"})
    else:
        stdout().print("asked: the learner begins anew when it has come to this request")


def cells(weight: "Weighed") -> tuple[str, str, str]:
    """A weight as a person reads it: at first, as learned, as pinned."""
    return (
        f"{weight.prior:+.3f}",
        "" if weight.learned is None else f"{weight.learned:+.3f}",
        f"{weight.in_force:+.3f}" if weight.pinned else "",
    )


def summary(examples: int, as_of: int | None, *, learning: bool) -> str:
    """What the weights come from, in a line."""
    if not examples or as_of is None:
        said = "nothing was learned yet"
    else:
        said = f"learned from {examples:,} examples, the newest {ago(time.time() - as_of / 1_000)} ago"
    return said if learning else f"{said}; not in force here: recommend.learn or fusion.mode say so"


def ago(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, name in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0, seconds):.0f} s"
