"""What all commands share: settings from the global options, what a person sees, and how errors end a command."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from penchant.errors import PenchantError
from penchant.log import configure_logging
from penchant.settings import Settings, load_settings

__all__ = [
    "INTERRUPTED",
    "Commands",
    "Flags",
    "Json",
    "command_group",
    "ending_the_process",
    "print_json",
    "print_table",
    "printable",
    "say",
    "settings_of",
    "stderr",
    "stdout",
]

INTERRUPTED = 130

Json = typer.Option("--json", help="One JSON value a line, for programs.")


class Flags(Struct, frozen=True, kw_only=True):
    """The global options: which settings file, and what overrides the settings."""

    config: Path | None
    overrides: dict[str, Any]


class Commands(TyperGroup):
    """The root command: ends with a message and an exit code where a command raises, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command given."""
        try:
            return super().invoke(ctx)
        except PenchantError as error:
            raise typer.Exit(reported(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def reported(error: PenchantError) -> int:
    """Tells a person what went wrong; gives the exit code for it."""
    stderr().print(f"Error: {printable(str(error.args[0]), lines=True)}", style="red")
    if error.hint:
        stderr().print(printable(error.hint, lines=True))
    return error.exit_code


@contextlib.contextmanager
def ending_the_process() -> Iterator[None]:
    """Ends the process with the block, by its exit code, and waits for nobody.

    For a worker: when it has stopped all that matters is done, and a Kafka client that hangs may keep the interpreter
    from ending for good.
    """
    status = 1
    try:
        yield
        status = 0
    except PenchantError as error:
        status = reported(error)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception:  # noqa: BLE001  as the interpreter would
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def command_group(name: str, help_text: str) -> typer.Typer:
    """A group of commands under one name."""
    return typer.Typer(name=name, help=help_text, no_args_is_help=True, rich_markup_mode="markdown")


def settings_of(ctx: typer.Context) -> Settings:
    """The settings in force for a command, and the logging that they ask for.

    Raises:
        ConfigurationError: they cannot be used.
    """
    flags: Flags = ctx.obj
    settings = load_settings(flags.config, **flags.overrides)
    configure_logging(settings.log_level, json=settings.log_json)
    return settings


def stdout() -> Console:
    """Where results go. Nothing in a text is taken for markup: much of it comes from elsewhere."""
    return Console(markup=False, highlight=False, emoji=False)


def stderr() -> Console:
    """Where everything that is not a result goes."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """Tells a person something that is not a result."""
    stderr().print(text)


def printable(text: str, *, lines: bool = False) -> str:
    """Text without anything that a terminal would obey; `lines` keeps line breaks."""
    return "".join(
        character if character.isprintable() or (lines and character == "\n") else "\ufffd" for character in text
    )


def print_json(value: object) -> None:
    """Writes one JSON value as one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, styles: Mapping[str, str] | None = None
) -> None:
    """Writes a table; a row whose first cell is in `styles` is shown in that style."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        cells = [printable(str(cell), lines=True) for cell in row]
        table.add_row(*cells, style=(styles or {}).get(cells[0], ""))
    stdout().print(table)
