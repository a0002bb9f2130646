"""A trained model as a file of safetensors, whose header says what the model is and what it was trained on.

Nothing in it is ever run: no pickles.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from penchant.deep.model import DeepFusion, Form
from penchant.deep.training import Trained
from penchant.encoders.base import extra
from penchant.errors import ConfigurationError

__all__ = ["load", "save"]

HEADER = "penchant"  # the key of the header's one entry: safetensors' own are kept apart by such


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the tensors are."""

    kind: Literal["deep fusion 1"] = "deep fusion 1"
    form: Form
    trained: Trained


def save(path: Path, model: DeepFusion, trained: Trained) -> None:
    """Writes a model; a file of that name is replaced, whole or not at all.

    Raises:
        ConfigurationError: it cannot be written, or safetensors is not installed.
    """
    header = msgspec.json.encode(Header(form=model.form, trained=trained)).decode()
    content = extra("safetensors.torch").save(dict(model.parameters), metadata={HEADER: header})
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def load(path: Path) -> tuple[DeepFusion, Trained]:
    """Reads a model, and how it came about.

    Raises:
        ConfigurationError: there is none, or it is of another form than its header says or than is known here.
    """
    safetensors = extra("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = msgspec.json.decode((file.metadata() or {})[HEADER], type=Header)
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        check(header.form, parameters)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ConfigurationError(
            f"{path} is no model of deep fusion: {error}", hint="`penchant.deep.kept.save` writes one."
        ) from None
    return DeepFusion(header.form, parameters), header.trained


def check(form: Form, parameters: dict[str, Any]) -> None:
    """Refuses parameters that are not of the form.

    Raises:
        ValueError: the form cannot be, or one is missing, not known, of another shape or type, or not finite.
    """
    torch = extra("torch")
    if form.heads < 1 or form.dimension % form.heads:
        raise ValueError(f"{form.heads} heads cannot share {form.dimension} dimensions")
    wanted = form.shapes()
    for name in sorted(wanted.keys() ^ parameters.keys()):
        raise ValueError(f"{name} is {'missing' if name in wanted else 'not known'}")
    for name, value in parameters.items():
        if tuple(value.shape) != wanted[name] or value.dtype != torch.float32:
            raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}, not float32 of {wanted[name]}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is not finite")
