"""The command line: `penchant`.

A module a family of commands. What is large (the broker, the worker, the encoders) is imported by the command
that needs it, so that `penchant --help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from penchant import __version__
from penchant.cli import (
    ask,
    dead_letters,
    deep,
    encoders,
    evaluate,
    files,
    graph,
    reindex,
    run,
    send,
    show,
    verify,
    weights,
)
from penchant.cli.frame import Commands, Flags

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Live, exact user-interest profiles and recommendations from Kafka events.\n\n"
    "A first look: `penchant demo`. By hand: `penchant broker`, `penchant topics create`, `penchant worker`, then "
    "`penchant send item film-1 --title Metropolis`, `penchant send click ada film-1`, `penchant watch ada`.",
)


def print_version(asked: bool) -> None:  # noqa: FBT001  typer's signature
    """Prints the version and ends."""
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(help="The settings file; by default `PENCHANT_CONFIG`, else penchant.toml if it is there."),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Prefixes topics, groups and collections.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka's brokers: host:port,host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Of the embedded store and the local broker.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    version: Annotated[  # noqa: ARG001  acts in its callback
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Takes the global options, which override the environment and the settings file."""
    given = {"namespace": namespace, "data_dir": data_dir, "log_level": log_level}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if bootstrap_servers is not None:
        overrides["kafka"] = {"bootstrap_servers": bootstrap_servers}
    ctx.obj = Flags(config=config, overrides=overrides)


for family in (show, run, send, ask, files, encoders, verify, reindex, evaluate, graph, deep, weights):
    family.add_to(app)
app.add_typer(dead_letters.commands)


def main() -> None:
    """The entry point of the `penchant` command."""
    app()
