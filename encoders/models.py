"""Where a model's files are, and what they are: a folder, or a commit of a model on the Hugging Face hub.

A commit names its files for good, so that it stands for them in a fingerprint; a folder's files are digested.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from penchant.encoders.base import extra
from penchant.encoders.options.base import ModelOptions
from penchant.errors import ConfigurationError

__all__ = ["contents", "digest_of", "model_folder"]


def model_folder(options: ModelOptions, patterns: Sequence[str], *, fetch: bool) -> Path:
    """The folder that a model's files lie in.

    Args:
        options: name the model.
        patterns: of the files wanted, such as "*.safetensors".
        fetch: from the hub what is not here yet.

    Raises:
        ConfigurationError: there is none here, or the hub does not give it.
    """
    folder = Path(options.model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or options.model.startswith((".", "~")) or options.model.count("/") != 1:
        raise ConfigurationError(
            f"{options.model} is no folder, and no name of a model on the hub",
            hint="In a process that embeds nothing, set `pin` to what `penchant encoders check` says where it is.",
        )
    if not options.revision:
        raise ConfigurationError(
            f"{options.model} is no folder here, and as a hub's model it lacks a revision",
            hint="Set `revision` to a commit (40 hexadecimal digits): what stands under a name may change.",
        )
    hub = extra("huggingface_hub")
    try:
        return Path(
            hub.snapshot_download(
                options.model, revision=options.revision, allow_patterns=list(patterns), local_files_only=not fetch
            )
        )
    except Exception as error:  # the hub's own errors, and those of its HTTP client and of the disk
        raise ConfigurationError(
            f"{options.model} at {options.revision[:12]} cannot be had ({type(error).__name__})",
            hint="Fetch it where there is a network (`penchant encoders check`), or give a folder; in a process that "
            "embeds nothing, set `pin` to what that command says.",
        ) from error


def contents(options: ModelOptions, folder: Path, names: Sequence[str]) -> tuple[object, ...]:
    """Stands for a model's files in a fingerprint.

    Args:
        options: name the model.
        folder: where its files are.
        names: of the files that vectors depend on.

    Raises:
        ConfigurationError: one cannot be read, or a revision is named of what has none.
    """
    if options.revision and Path(options.model).expanduser().exists():
        raise ConfigurationError(
            f"{options.model} lies on the disk and has no revisions",
            hint="Leave `revision` out: files are known by their digests.",
        )
    if options.revision:
        return (options.model, options.revision)
    return tuple((name, digest_of(folder / name)) for name in sorted(names))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal; taken again only where size or time of change differ.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        status = path.stat()
        return digest(path.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=256)
def digest(path: Path, _size: int, _changed_ns: int) -> str:
    """The SHA-256 of a file as it was at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
