"""Word frequencies: counted once over a file of texts, for what weighs words by them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.frame import Json, print_json, printable, say, settings_of
from penchant.errors import ConfigurationError

__all__ = ["add_to"]

MAX_LINE_BYTES = 2**20


def add_to(commands: typer.Typer) -> None:
    """Adds the command to the encoders'."""
    commands.command()(frequencies)


def frequencies(
    ctx: typer.Context,
    *,
    texts: Annotated[Path, typer.Argument(help="A text a line, in UTF-8.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("words.json"),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Count in how many texts each word occurs, for encoders that weigh words: tfidf and word-vectors.

    What the file says becomes part of the encoder's fingerprint: keep it.

    Example: `penchant encoders frequencies plots.txt --output words.json`
    """
    from penchant.encoders.frequencies import count_frequencies, save_frequencies  # noqa: PLC0415  loads scikit-learn

    settings_of(ctx)
    found = count_frequencies(lines(texts))
    try:
        save_frequencies(found, output)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}") from None
    if as_json:
        print_json({"texts": found.texts, "words": len(found.words), "file": str(output)})
        return
    say(f"{found.texts} texts with {len(found.words)} words: {printable(str(output))}")


def lines(path: Path) -> Iterator[str]:
    """The lines of a file, those too long for a text in pieces.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line.decode(errors="replace")
    except OSError as error:
        raise ConfigurationError(
            f"The texts {path} cannot be read: {error.strerror}", hint="Give a file with a text a line."
        ) from None
