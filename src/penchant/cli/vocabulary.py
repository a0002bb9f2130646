"""Visual words: found once in the pictures of a folder, for the encoder that looks for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.frame import Json, print_json, printable, say, settings_of, stderr
from penchant.errors import ConfigurationError

__all__ = ["add_to"]


def add_to(commands: typer.Typer) -> None:
    """Adds the command to the encoders'."""
    commands.command()(vocabulary)


def vocabulary(
    ctx: typer.Context,
    *,
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures, searched through.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("words.npy"),
    words: Annotated[int, typer.Option(min=8, max=4_096, help="How many, and so the vector's components.")] = 256,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Find the local patterns that tell pictures apart, for encoders of kind sift.

    The same pictures give the same words. They become part of the encoder's fingerprint: keep the file.

    Example: `penchant encoders vocabulary catalogue/pictures --output words.npy`
    """
    from penchant.encoders.base import Host  # noqa: PLC0415  loads numpy
    from penchant.encoders.sift import fit_vocabulary, save_vocabulary  # noqa: PLC0415  loads scikit-image

    settings = settings_of(ctx).encoders
    with stderr().status(f"Looking at the pictures in {printable(str(pictures))} …"):
        found = fit_vocabulary(
            read_pictures(pictures, settings.max_media_bytes),
            words=words,
            host=Host(max_pixels=settings.max_pixels),
        )
    try:
        save_vocabulary(found, output)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}") from None
    if as_json:
        print_json({"words": len(found), "file": str(output)})
        return
    say(f"{len(found)} visual words: {printable(str(output))}")


def read_pictures(folder: Path, max_bytes: int) -> Iterator[bytes]:
    """The files under a folder, in order of their names; those larger than a picture may be are passed over.

    Raises:
        ConfigurationError: there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ConfigurationError(f"There are no files under {folder}", hint="Name a folder with pictures.")
    return (path.read_bytes() for path in files if path.stat().st_size <= max_bytes)
