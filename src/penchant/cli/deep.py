"""Deep fusion: train a model that workers rank by."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from penchant.cli.frame import Json, command_group, print_json, print_table, printable, say, settings_of
from penchant.cli.verify import progress_bar

if TYPE_CHECKING:
    from penchant.deep.kept import Kept

__all__ = ["add_to"]

commands = command_group("deep", "Deep fusion: train a model of attention over slices, for workers to rank by.")
training = command_group(
    "train",
    "Train a model on recorded likes.\n\n"
    "It learns how to fuse an item's text, image, sound and place in the graph, and which of a user's last likes to "
    "look at for each candidate. Workers rank by it after a restart with the settings\n\n"
    '`[fusion]`  `mode = "deep"`  `deep_model = "FILE"`\n\n'
    "and do not go on training: train again when much has changed. `penchant evaluate` says how such a model ranks.",
)
commands.add_typer(training)

Out = Annotated[Path, typer.Option(metavar="FILE", help="To write; one of that name is replaced.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn: the same gives the same model.")]


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.add_typer(commands)


@training.command()
def movielens(
    ctx: typer.Context,
    *,
    folder: Annotated[Path, typer.Argument(help="With movies.csv and ratings.csv.")],
    out: Out = Path("deep.safetensors"),
    seed: Seed = 0,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Train on a MovieLens folder: by texts alone, on ratings of 4 and more. Needs no broker.

    Workers whose items have other slices besides take no account of those.
    Example: `penchant deep train movielens ml-latest-small --out model.safetensors`
    """
    from penchant.deep.kept import check_writable  # noqa: PLC0415  loads what trains
    from penchant.deep.recorded import by_texts, trained_on  # noqa: PLC0415  likewise
    from penchant.evaluation.movielens import read_movielens  # noqa: PLC0415  likewise

    settings = settings_of(ctx)
    check_writable(out)
    with progress_bar() as tell:
        tell(f"reading {folder.name}", 0, 0)
        stream = read_movielens(folder, settings.profile)
        catalogue = by_texts(stream, settings, progress=tell)
        kept = trained_on(stream, catalogue, seed=seed, progress=tell)
    written(out, kept, as_json=as_json)


@training.command()
def topics(
    ctx: typer.Context,
    *,
    out: Out = Path("deep.safetensors"),
    seed: Seed = 0,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Train on what this namespace's topics hold, by all slices that the store has of the items.

    Workers may run meanwhile. What weighs as much as a click or more is what is learned to be foreseen.
    Example: `penchant deep train topics --out model.safetensors`
    """
    from penchant.deep.kept import check_writable  # noqa: PLC0415  loads what trains
    from penchant.deep.recorded import by_store, trained_on  # noqa: PLC0415  likewise
    from penchant.evaluation.topics import read_topics  # noqa: PLC0415  likewise

    settings = settings_of(ctx)
    check_writable(out)
    with progress_bar() as tell:
        stream = read_topics(settings, progress=tell)
        tell("reading the store", 0, 0)
        catalogue = by_store(stream, settings)
        kept = trained_on(stream, catalogue, seed=seed, progress=tell)
    written(out, kept, as_json=as_json)


def written(out: Path, kept: "Kept", *, as_json: bool) -> None:
    """Writes a model, and says what it is."""
    from penchant.deep.kept import save  # noqa: PLC0415  loads what trains

    save(out, kept)
    trained = kept.trained
    if as_json:
        print_json({"file": str(out), "slices": kept.dimensions, **msgspec.to_builtins(trained)})
        return
    print_table(
        ("epoch", "loss on likes held out"),
        [(epoch or "before", f"{loss:.3f}") for epoch, loss in enumerate(trained.losses)],
    )
    best = min(range(len(trained.losses)), key=trained.losses.__getitem__)
    say(
        printable(
            f"{trained.likes} likes of {trained.events} events, fused from {', '.join(kept.dimensions)}; the model as "
            f"it was after epoch {best} is written to {out}"
        )
    )
    say(f'To rank by it: fusion.mode = "deep" and fusion.deep_model = "{printable(str(out.resolve()))}"')
