"""The knowledge graph: train it, and hand what was learned to the workers."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penchant.cli.frame import Json, command_group, print_json, print_table, printable, settings_of, stderr, stdout

__all__ = ["add_to"]

commands = command_group("graph", "The knowledge graph: train it, and hand what was learned to the workers.")


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.add_typer(commands)


@commands.command()
def train(
    ctx: typer.Context,
    *,
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with train, valid and test files; one file of tab-separated facts (head, relation, tail); "
            "or `topic`: what the triples' topic holds now."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("graph"),
    model: Annotated[Literal["complex", "transe", "rotate"], typer.Option(help="What learns.")] = "complex",
    dimension: Annotated[
        int | None, typer.Option(min=1, max=4_096, help="Of an entity's vector; by default the model's own.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many; likewise.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the training.")] = 0,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Train a graph model on facts, and report how it ranks those that it has not seen.

    Training stops early, when held-out facts rank no better. The ranks are filtered: of head and tail among all
    entities, less those that are known to be true.

    Example: `penchant graph train codex-s --model complex --output codex-model`
    """
    from penchant.graph.facts import facts_of  # noqa: PLC0415  loaded when it is needed
    from penchant.graph.folder import save, training_of  # noqa: PLC0415  likewise
    from penchant.graph.train import RECIPES, with_changes  # noqa: PLC0415  likewise
    from penchant.graph.train import train as train_model  # noqa: PLC0415  likewise

    settings = settings_of(ctx)
    facts = facts_of(source, settings, seed=seed)
    recipe = with_changes(RECIPES[model], dimension=dimension, epochs=epochs)
    with bar() as progress:
        task = progress.add_task(model, total=recipe.epochs, shown="")

        def tell(epoch: int, rank: float | None) -> None:
            progress.update(task, completed=epoch)
            if rank is not None:
                progress.update(task, shown=f"held-out MRR {rank:.3f}")

        found = train_model(facts, model, recipe=recipe, seed=seed, progress=tell)
    training = training_of(found, facts, recipe=recipe, seed=seed)
    save(output, found.embedding, training)
    if as_json:
        print_json({"folder": str(output), **msgspec.to_builtins(training)})
        return
    rows = [
        (name, f"{ranks.mrr:.3f}", f"{ranks.hits_at_1:.3f}", f"{ranks.hits_at_3:.3f}", f"{ranks.hits_at_10:.3f}")
        for name, ranks in (("held out", found.valid), ("test", found.test))
        if ranks is not None
    ]
    print_table(("facts", "MRR", "hits@1", "hits@3", "hits@10"), rows)
    stdout().print(
        printable(
            f"{model}: {len(facts.entities)} entities, {len(facts.relations)} relations, best after epoch "
            f"{found.best_epoch} of {found.epochs}, {found.seconds:.0f} s; written to {output}"
        )
    )


@commands.command()
def publish(
    ctx: typer.Context,
    *,
    folder: Annotated[Path, typer.Argument(help="That `penchant graph train` has written.")],
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Hand a trained graph to the workers: items that name an entity get their place in the graph.

    What was published before is replaced as a whole: places of two trainings are never compared.

    Example: `penchant graph publish codex-model`
    """
    from penchant.graph.publish import publish as publish_folder  # noqa: PLC0415  loaded when it is needed

    settings = settings_of(ctx)
    with bar() as progress:
        task = progress.add_task("entities", total=None, shown="")
        found = publish_folder(
            folder, settings, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    if as_json:
        print_json(
            {
                "model": found.model,
                "entities": found.entities,
                "taken_back": found.taken_back,
                "kept_variance": found.kept_variance,
            }
        )
        return
    stdout().print(
        f"model {found.model}: {found.entities} entities published, {found.taken_back} taken back; the slice of "
        f"{settings.fusion.graph_dimension} components keeps {found.kept_variance:.0%} of the variance"
    )


def bar() -> Progress:
    """A progress bar, where somebody watches."""
    console = stderr()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
