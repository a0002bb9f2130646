"""Loading transformers' models, and what goes with them, from a folder, as safely as they allow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penchant.encoders.base import extra
from penchant.errors import ConfigurationError

__all__ = ["load_model", "load_part"]

SAFELY = {"local_files_only": True, "trust_remote_code": False}
# Weights that a model may lack: they are used in training alone, or not by what is asked of it here.
UNUSED = ("masked_spec_embed", "pooler.")


def load_model(folder: Path, kind: str = "AutoModel", unused: Sequence[str] = UNUSED, **more: Any) -> Any:
    """A model ready for inference, on the CPU, its weights from safetensors.

    Args:
        folder: checked by `find_checkpoint`.
        kind: transformers' class that loads it.
        unused: what names of weights end or begin with that it may lack.
        more: is handed to transformers, such as `dtype`.

    Raises:
        ConfigurationError: it cannot be loaded, or lacks weights.
    """
    transformers = extra("transformers")
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, kind).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **SAFELY, **more
        )
    except Exception as error:  # whatever transformers makes of files that are not what they seem
        raise failure("model", folder, error) from error
    # What is not in the files is drawn at random: vectors of it would mean nothing.
    absent = sorted(
        name
        for name in report["missing_keys"]
        if not any(name.startswith(part) or name.endswith(part) for part in unused)
    )
    if absent or report["mismatched_keys"]:
        raise ConfigurationError(
            f"The weights in {folder} are not all of the model's: {', '.join(absent[:3]) or 'shapes'} differ",
            hint="Fetch the model again, whole.",
        )
    return model.eval()


def load_part(folder: Path, kind: str) -> Any:
    """What goes with a model: what prepares its inputs, or reads what it says.

    Args:
        folder: checked by `find_checkpoint`.
        kind: transformers' class that loads it, such as "AutoTokenizer".

    Raises:
        ConfigurationError: it cannot be loaded.
    """
    try:
        return getattr(extra("transformers"), kind).from_pretrained(folder, **SAFELY)
    except ConfigurationError:
        raise
    except Exception as error:  # as above
        raise failure(kind.removeprefix("Auto"), folder, error) from error


def failure(what: str, folder: Path, error: Exception) -> ConfigurationError:
    """What is said of files that are not what they seem."""
    text = (str(error).splitlines() or [""])[0][:200]
    return ConfigurationError(
        f"The {what} in {folder} cannot be loaded ({type(error).__name__}: {text})",
        hint="Is the folder whole, and its architecture one that the installed transformers has?",
    )
