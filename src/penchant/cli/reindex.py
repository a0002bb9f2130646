"""Changing encoders: a store for the new ones, made of the one that there is; and a new calibration for the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from penchant.cli.frame import Flags, Json, print_json, print_table, printable, say, settings_of
from penchant.cli.verify import progress_bar
from penchant.settings import Settings, load_settings

if TYPE_CHECKING:
    from penchant.reindex import Summary

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.command()(reindex)
    app.command()(calibrate)


def reindex(
    ctx: typer.Context,
    *,
    before: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="OLD.toml",
            help="The settings of the store that there is. What it says stands; the environment fills in the rest.",
        ),
    ],
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Make a store for the encoders of the settings in force, from the one that OLD.toml names. Its worker may run.

    Every item is embedded anew from what the store has kept of it, and profiles are computed anew from their signals.
    The new store needs a `data_dir` of its own, or on the same server another `store.generation`. Run it again where it
    was cut short.
    Afterwards start a worker on the new store, and then stop the old one: between them nothing is lost.
    Example: with `PENCHANT_CONFIG=new.toml`, `penchant reindex --from penchant.toml`
    """
    from penchant.reindex import reindex as remake  # noqa: PLC0415  loads the lanes, the store and the encoders

    new = settings_of(ctx)
    old = load_settings(before, file_stands=True)
    with progress_bar() as tell:
        summary = remake(old, new, progress=tell)
    if as_json:
        print_json(msgspec.to_builtins(summary))
    else:
        show(summary)
    flags: Flags = ctx.obj
    worker = f"penchant --config {printable(str(flags.config))} worker" if flags.config else "penchant worker"
    say(f"\nNext: start the new worker (`{worker}`), wait until its /readyz answers 200, then stop the old one.")
    if same_port(old, new):
        say(f"Give it a worker.http_port of its own first: {new.worker.http_port} is the old worker's.")


def calibrate(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Centre and whiten content by the catalogue as it is now; nothing is encoded again, and no worker restarted.

    Rank by a catalogue that has changed much since it was calibrated. Example: `penchant calibrate`
    """
    from penchant.reindex import calibrate as renew  # noqa: PLC0415  loads the lanes and the store

    made = renew(settings_of(ctx))
    if as_json:
        print_json(msgspec.to_builtins(made))
        return
    rows = [
        ("before", made.before or "none"),
        ("now", made.now),
        ("items", made.items),
        ("slices", ", ".join(made.slices)),
    ]
    print_table(("", ""), rows)


def show(summary: "Summary") -> None:
    """Shows to a person what was done."""
    tally = summary.tally
    rows: list[tuple[str, object, str]] = [
        ("items", tally.items, f"written, {rate(tally.items, tally.items_s)}"),
        ("embedded", ", ".join(summary.embedded) or "nothing", "slices made by the new encoders"),
        ("taken over", ", ".join(summary.taken) or "nothing", "slices whose encoders are the same"),
        ("profiles", tally.profiles, f"computed, {rate(tally.profiles, tally.profiles_s)}"),
    ]
    rows += [(reason, number, "could not be had again") for reason, number in sorted(tally.unavailable.items())]
    rows += [(reason, number, "of no use to the new encoders") for reason, number in sorted(tally.refused.items())]
    rows += [
        ("calibration", summary.calibration or "none", "of the new store"),
        ("passes", tally.passes, "over the old store"),
        ("seconds", round(summary.seconds, 1), ""),
    ]
    print_table(("", "", ""), rows)


def rate(number: int, seconds: float) -> str:
    """How fast something went."""
    return f"{number / seconds:.0f}/s" if seconds else "at once"


def same_port(old: Settings, new: Settings) -> bool:
    """Whether two workers would listen at the same place."""
    places = {(one.worker.http_host, one.worker.http_port) for one in (old, new)}
    return len(places) == 1 and new.worker.http_port != 0
