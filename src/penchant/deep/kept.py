"""A trained model as a file of safetensors, whose header says what the model is and what it was trained on.

A file is whole: beside the model it has the whitening that its slices went through, and says which encoders filled
them. So whoever has the same encoders can rank by it, whatever their own catalogue is calibrated by. Nothing in it is
ever run: no pickles.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from penchant.deep.model import DeepFusion, Form
from penchant.deep.training import Trained
from penchant.encoders.base import extra
from penchant.errors import ConfigurationError
from penchant.profile.ranking.whitening import Calibration, Whitening

__all__ = ["Kept", "check_writable", "load", "save"]

HEADER = "penchant"  # the key of the header's one entry: safetensors' own are kept apart by such
MEAN, MAP = "content.{}.mean", "content.{}.map"
HINT = "`penchant deep train` writes one."


class Kept(Struct, frozen=True, kw_only=True, eq=False):
    """A model with all that it needs of the world.

    Attributes:
        model: of attention over whitened slices.
        trained: how it came about.
        calibration: whitens its slices; those without a whitening are taken as they are.
        encoders: by slice, the fingerprint of what filled it: vectors of another are foreign to the model.
    """

    model: DeepFusion
    trained: Trained
    calibration: Calibration
    encoders: Mapping[str, str]

    @property
    def dimensions(self) -> dict[str, int]:
        """Components of its slices as encoders and graph give them, by name."""
        whitenings = self.calibration.slices
        return {
            name: len(whitenings[name].mean) if name in whitenings else dimension
            for name, dimension in self.model.form.slices.items()
        }


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the tensors are."""

    kind: Literal["deep fusion 2"] = "deep fusion 2"
    form: Form
    trained: Trained
    encoders: dict[str, str]


def check_writable(path: Path) -> None:
    """Makes sure, before anything is trained, that a model can be written.

    Raises:
        ConfigurationError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder", hint="Name a file in it.")
        unfinished(path).touch()
        unfinished(path).unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def save(path: Path, kept: Kept) -> None:
    """Writes a model; a file of that name is replaced, whole or not at all.

    Raises:
        ConfigurationError: it cannot be written, or safetensors is not installed.
    """
    torch = extra("torch", what="Deep fusion")
    form = kept.model.form
    header = Header(form=form, trained=kept.trained, encoders={name: kept.encoders[name] for name in form.slices})
    tensors = dict(kept.model.parameters)
    for name in form.slices.keys() & kept.calibration.slices.keys():
        whitening = kept.calibration.slices[name]
        tensors[MEAN.format(name)] = torch.tensor(whitening.mean)
        tensors[MAP.format(name)] = torch.tensor(whitening.map).contiguous()
    metadata = {HEADER: msgspec.json.encode(header).decode()}
    content = extra("safetensors.torch", what="Deep fusion").save(tensors, metadata=metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished(path).write_bytes(content)
        unfinished(path).replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def unfinished(path: Path) -> Path:
    """Where a model is written until it is whole."""
    return path.with_name(path.name + ".part")


def load(path: Path) -> Kept:
    """Reads a model, and how it came about.

    Raises:
        ConfigurationError: there is none, or it is of another form than its header says or than is known here.
    """
    safetensors = extra("safetensors", what="Deep fusion")
    if not path.is_file():
        raise ConfigurationError(f"There is no model of deep fusion at {path}", hint=HINT)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = msgspec.json.decode((file.metadata() or {})[HEADER], type=Header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        calibration = calibration_in(tensors, header)
        check(header, tensors)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ConfigurationError(f"{path} is no model of deep fusion: {error}", hint=HINT) from None
    return Kept(
        model=DeepFusion(header.form, tensors),
        trained=header.trained,
        calibration=calibration,
        encoders=header.encoders,
    )


def calibration_in(tensors: dict[str, Any], header: Header) -> Calibration:
    """Takes the whitening of slices out of a file's tensors.

    Raises:
        ValueError: one is of another shape or type than its slice's, or not finite.
    """
    found = {}
    for name, dimension in header.form.slices.items():
        parts = [tensors.pop(part.format(name), None) for part in (MEAN, MAP)]
        if parts == [None, None]:
            continue
        mean, columns = (np.zeros(0, np.float32) if part is None else part.numpy() for part in parts)
        fits = mean.ndim == 1 and columns.shape == (len(mean), dimension)
        if not fits or {mean.dtype, columns.dtype} != {np.dtype(np.float32)}:
            raise ValueError(f"the whitening of {name} is {columns.dtype} of shape {columns.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(columns).all()):
            raise ValueError(f"the whitening of {name} is not finite")
        found[name] = Whitening(mean=mean, map=columns)
    return Calibration(found)


def check(header: Header, parameters: dict[str, Any]) -> None:
    """Refuses parameters that are not of the form.

    Raises:
        ValueError: the form cannot be, or one is missing, not known, of another shape or type, or not finite.
    """
    torch = extra("torch", what="Deep fusion")
    form = header.form
    if form.heads < 1 or form.dimension % form.heads:
        raise ValueError(f"{form.heads} heads cannot share {form.dimension} dimensions")
    if header.encoders.keys() != form.slices.keys():
        raise ValueError("its encoders are not those of its slices")
    wanted = form.shapes()
    for name in sorted(wanted.keys() ^ parameters.keys()):
        raise ValueError(f"{name} is {'missing' if name in wanted else 'not known'}")
    for name, value in parameters.items():
        if tuple(value.shape) != wanted[name] or value.dtype != torch.float32:
            raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}, not float32 of {wanted[name]}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is not finite")
