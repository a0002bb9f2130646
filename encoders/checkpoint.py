"""What a model's folder holds, checked before anything is loaded from it.

A checkpoint is an old way for foreign code to get in: a pickle runs what it likes when it is read, and a folder
may name modules of its own to import. Both are refused. Weights are read from safetensors alone, which hold
tensors and nothing else.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from penchant.encoders.models import contents, model_folder
from penchant.encoders.options.base import ModelOptions
from penchant.errors import ConfigurationError

__all__ = ["Checkpoint", "find_checkpoint", "of_family", "read_json"]

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"})
# Where a model may name code of its own.
PROCESSORS = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
# What a vector depends on beside the weights, where it is there.
DESCRIPTIONS = (
    *(CONFIG, *PROCESSORS, "tokenizer.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
    # What sentence-transformers keeps beside a model.
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
)
WANTED = (*DESCRIPTIONS, WEIGHTS, INDEX, "model-*-of-*.safetensors")
MAX_JSON_BYTES = 8 * 2**20


class Checkpoint(Struct, frozen=True):
    """A model's folder.

    Attributes:
        folder: where its files lie.
        config: what `config.json` says.
        content: stands for the files in a fingerprint.
    """

    folder: Path
    config: dict[str, Any]
    content: tuple[object, ...]


def find_checkpoint(options: ModelOptions, *, fetch: bool, beside: Sequence[str] = ()) -> Checkpoint:
    """The files of a model.

    Args:
        options: name the model.
        fetch: from the hub what is not here yet.
        beside: names of further files that outputs depend on, where they are there.

    Raises:
        ConfigurationError: there is no such model, or none that may be loaded (pickled weights, code of its own).
    """
    folder = model_folder(options, (*WANTED, *beside), fetch=fetch)
    if not (folder / CONFIG).is_file():
        raise ConfigurationError(
            f"The model folder {folder} has no {CONFIG}", hint="Give a folder as `save_pretrained` writes it."
        )
    config = read_json(folder / CONFIG, dict)
    for name in (CONFIG, *PROCESSORS):
        if (folder / name).is_file() and "auto_map" in read_json(folder / name, dict):
            raise ConfigurationError(
                f"The model in {folder} brings code of its own ({name} has `auto_map`), which penchant does not run",
                hint="Choose a model whose architecture is one of transformers' own.",
            )
    names = [*weights(folder), *(name for name in (*DESCRIPTIONS, *beside) if (folder / name).is_file())]
    return Checkpoint(folder=folder, config=config, content=contents(options, folder, names))


def of_family(checkpoint: Checkpoint, families: frozenset[str]) -> Checkpoint:
    """The same.

    Raises:
        ConfigurationError: the model's type is none of these.
    """
    found = checkpoint.config.get("model_type")
    if found not in families:
        raise ConfigurationError(
            f"The model in {checkpoint.folder} is {found or 'of no type'}, and {', '.join(sorted(families))} are taken",
            hint="Choose another kind of encoder (`penchant encoders list`), or another model.",
        )
    return checkpoint


def weights(folder: Path) -> list[str]:
    """The names of the files that hold a model's weights, all of which are there."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / INDEX).is_file():
        if any(file.suffix in PICKLES for file in folder.iterdir()):
            raise ConfigurationError(
                f"The weights in {folder} are no safetensors, and to read others may run foreign code",
                hint=f"Take a revision that has {WEIGHTS}, or convert them where you trust them: "
                'AutoModel.from_pretrained(...).save_pretrained("FOLDER").',
            )
        raise ConfigurationError(f"The model folder {folder} has no {WEIGHTS}", hint="Fetch it again, whole.")
    places = read_json(folder / INDEX, dict).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        raise ConfigurationError(
            f"The model folder {folder} lacks weights that {INDEX} should name: {', '.join(missing[:3]) or 'all'}",
            hint="Fetch it again, whole.",
        )
    return [INDEX, *names]


def read_json(path: Path, kind: type) -> Any:
    """An object or a list from a file of JSON.

    Args:
        path: of the file.
        kind: `dict` or `list`.

    Raises:
        ConfigurationError: the file holds no such thing, or is too large for it.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as JSON ({type(error).__name__})", hint="Fetch the model again, whole."
        ) from None
    if not isinstance(content, kind):
        raise ConfigurationError(f"{path} holds no JSON {kind.__name__}", hint="Fetch the model again, whole.")
    return content
