"""How well recommendations would have been on a recorded stream: penchant's, and others'."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penchant.cli.frame import Json, command_group, print_json, print_table, say, settings_of
from penchant.cli.verify import progress_bar
from penchant.errors import ConfigurationError
from penchant.settings import Settings

if TYPE_CHECKING:
    from penchant.evaluation.protocol import Half, Progress, Rules
    from penchant.evaluation.stream import Stream
    from penchant.evaluation.summary import Summary

__all__ = ["add_to"]

SHOWN = 4  # columns that a terminal has room for: the name, NDCG at all times and on return, the hit rate

commands = command_group("evaluate", "Play a recorded stream, test first and then train, and compare recommenders.")

Probes = Annotated[int, typer.Option(min=0, help="Events to rank, sampled; 0: all that are eligible.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the sample, and of whatever starts at random.")]
InHalf = Annotated[str, typer.Option("--half", metavar="first|last", help="Tune on the first half, judge on the last.")]
Only = Annotated[list[str] | None, typer.Option(help="A configuration's name; may be given again. Default: all.")]
Reports = Annotated[
    list[Path] | None, typer.Option("--report", help="Write .html (with plots), .md or .json; may be given again.")
]


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.add_typer(commands)


@commands.command()
def movielens(
    ctx: typer.Context,
    *,
    folder: Annotated[Path, typer.Argument(help="With movies.csv and ratings.csv.")],
    graph: Annotated[Path | None, typer.Option(help="A folder with a knowledge graph of the films.")] = None,
    probes: Probes = 5_000,
    seed: Seed = 0,
    half: InHalf = "last",
    only: Only = None,
    report: Reports = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Evaluate on a MovieLens folder: ratings of 4 and more are what should have been foreseen.

    Needs no broker. Example: `penchant evaluate movielens ml-latest-small --report quality.html`
    """
    from penchant.evaluation.movielens import read_movielens  # noqa: PLC0415  loads what embeds and evaluates

    settings = settings_of(ctx)
    rules = rules_of(probes, seed, half)
    with progress_bar() as tell:
        tell(f"reading {folder.name}", 0, 0)
        stream = read_movielens(folder, settings.profile)
        summary = run(settings, folder.name, stream, rules, graph=graph, only=only, reports=report, tell=tell)
    show(summary, as_json=as_json)


@commands.command()
def topics(
    ctx: typer.Context,
    *,
    probes: Probes = 5_000,
    seed: Seed = 0,
    half: InHalf = "last",
    only: Only = None,
    report: Reports = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Evaluate on what this namespace's topics hold; workers may run meanwhile.

    What weighs as much as a click or more should have been foreseen. Example: `penchant evaluate topics --half first`
    """
    from penchant.evaluation.topics import read_topics  # noqa: PLC0415  loads what embeds and evaluates

    settings = settings_of(ctx)
    rules = rules_of(probes, seed, half)
    with progress_bar() as tell:
        stream = read_topics(settings, progress=tell)
        title = settings.namespace or "topics"
        summary = run(settings, title, stream, rules, graph=None, only=only, reports=report, tell=tell)
    show(summary, as_json=as_json)


def rules_of(probes: int, seed: int, half: str) -> "Rules":
    """The rules that the options ask for."""
    from penchant.evaluation.protocol import Rules  # noqa: PLC0415  loads what evaluates

    halves: dict[str, Half] = {"first": "first", "last": "last"}
    if half not in halves:
        raise ConfigurationError(f"--half {half}: there are a first and a last")
    return Rules(probes=probes, seed=seed, half=halves[half])


def run(
    settings: Settings,
    title: str,
    stream: "Stream",
    rules: "Rules",
    *,
    graph: Path | None,
    only: list[str] | None,
    reports: list[Path] | None,
    tell: "Progress",
) -> "Summary":
    """Evaluates, and writes down what came of it."""
    from penchant.evaluation.features import text_vectors  # noqa: PLC0415  loads what embeds
    from penchant.evaluation.protocol import evaluate  # noqa: PLC0415  loads what evaluates
    from penchant.evaluation.report import writer_for  # noqa: PLC0415  as above
    from penchant.evaluation.roster import Material, chosen, makers  # noqa: PLC0415  as above
    from penchant.evaluation.summary import summarise  # noqa: PLC0415  as above

    writers = [(path, writer_for(path)) for path in reports or ()]  # a suffix that is unknown is told at once
    vectors = text_vectors(stream.texts, settings.data_dir / "evaluation", settings.encoders, progress=tell)
    with contextlib.ExitStack() as at_end:
        given = Material(stream=stream, vectors=vectors, rules=rules, settings=settings, at_end=at_end, graph=graph)
        contestants = chosen([make(given) for make in makers()], only or ())
        outcome = evaluate(stream, contestants, rules, progress=tell).narrowed(only or ())
    tell("comparing", 0, 0)
    summary = summarise(title, stream, outcome, rules, vectors)
    for path, write in writers:
        try:
            path.write_text(write(summary), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    return summary


def show(summary: "Summary", *, as_json: bool) -> None:
    """Prints the table, or everything."""
    from penchant.evaluation.report import as_json as json_of  # noqa: PLC0415  loads what evaluates
    from penchant.evaluation.report import heading, table  # noqa: PLC0415  as above

    if as_json:
        print_json(json.loads(json_of(summary)))
        return
    header, *rows = (row[:SHOWN] for row in table(summary))
    say(heading(summary))
    print_table(header, rows)
