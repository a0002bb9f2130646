"""Images by any model of timm: what it knows of a picture before it names a class.

The features are pooled as the model pools them for its classifier (`num_classes=0`), and a picture is resized, cropped
and normalised by the very transform that timm resolves for the model. Weights are read from safetensors alone.

Wightman, "PyTorch Image Models" (2019).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.base import Encoder, Host, Identity, Undecodable, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.image import pixels_of
from penchant.encoders.models import contents, model_folder
from penchant.encoders.options.image import TimmOptions
from penchant.errors import ConfigurationError

__all__ = ["TimmFeatures"]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
# A picture is resized by the model's transform alone, from all of its pixels: shrunk while it is decoded, which takes a
# third of the time, a photograph gave vectors of cosine 0.9998 with those of timm. This many on each side are more
# than the default bound lets through.
WHOLE = 8_192
# How many times longer than wide a picture may be: models that resize the shorter side make the longer one as long.
MAX_ASPECT = 50

Prepared = NDArray[np.float32]
Raw = NDArray[np.float32]


class Source(Struct, frozen=True):
    """Where a model is, and what it is.

    Attributes:
        name: as timm takes it.
        weights: file of its tensors.
        content: stands for its files in a fingerprint.
    """

    name: str
    weights: Path
    content: tuple[object, ...]


class TimmFeatures(Encoder[bytes, Prepared, Raw]):
    """Encoded pictures (bytes) to as many components as the model pools.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be used.
    """

    def __init__(self, options: TimmOptions, host: Host) -> None:
        self._host = host
        self._torch = extra("torch")
        source = find_source(options, fetch=True)
        timm = extra("timm")
        found = described(options, source)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint
        model = create(options, source, file=source.weights)
        preprocessing = resolved(options, model)
        self._transform = timm.data.create_transform(**preprocessing, is_training=False)
        self._model = model.eval().to(host.device)
        self._from_pixels = extra("PIL.Image").fromarray

    @classmethod
    def identify(cls, options: TimmOptions) -> Identity:
        """See `Encoder`. What a model pools, and how it takes pictures, timm alone can say: it must be installed."""
        return described(options, find_source(options, fetch=False))

    def prepare(self, one: bytes) -> Prepared:
        """A picture as the model takes it: shape (3, height, width), normalised.

        Raises:
            Undecodable: as `decode_picture`; or it is far longer than wide ("too-large").
        """
        pixels = pixels_of(one, self._host, side=WHOLE)
        shorter, longer = sorted(pixels.shape[:2])
        if longer > MAX_ASPECT * shorter:
            raise Undecodable(f"The image is more than {MAX_ASPECT} times longer than wide", reason="too-large")
        prepared: Prepared = self._transform(self._from_pixels(pixels)).numpy()
        return prepared

    def forward(self, batch: Sequence[Prepared]) -> Raw:
        """Pooled features: shape (pictures, dimension)."""
        with self._torch.inference_mode():
            pictures = self._torch.from_numpy(np.stack(batch)).to(self._host.device)
            pooled: Raw = self._model(pictures).float().cpu().numpy()
        return pooled

    def finish(self, raw: Raw) -> Vectors:
        """Unit vectors: shape (pictures, dimension)."""
        return unit_rows(raw)


def find_source(options: TimmOptions, *, fetch: bool) -> Source:
    """The model's files: a folder as timm saves it, or weights alone (or their file), of the architecture named.

    Raises:
        ConfigurationError: they are not there.
    """
    named = Path(options.model).expanduser()
    single = named.suffix == ".safetensors" and named.is_file()
    folder = named.parent if single else model_folder(options, (CONFIG, WEIGHTS), fetch=fetch)
    weights = named if single else folder / WEIGHTS
    if not weights.is_file():
        raise ConfigurationError(
            f"The model folder {folder} has no {WEIGHTS}",
            hint="Only safetensors are read: others may run foreign code. timm.models.save_for_hf writes them.",
        )
    names = [name for name in (CONFIG, weights.name) if (folder / name).is_file()]
    if CONFIG not in names and not options.architecture:
        raise ConfigurationError(
            f"Nothing says what the weights in {folder} are of: there is no {CONFIG}",
            hint="Name timm's architecture: encoders.image.architecture",
        )
    name = options.architecture or f"local-dir:{folder}"
    return Source(name=name, weights=weights, content=contents(options, folder, names))


def described(options: TimmOptions, source: Source) -> Identity:
    """What a model is, from a copy of it without weights."""
    with extra("torch").device("meta"):
        model = create(options, source)
    parts = (options.architecture, sorted(options.arguments.items()), sorted(resolved(options, model).items()))
    return Identity(dimension=model.head_hidden_size, fingerprint=fingerprint("timm", 1, source.content, *parts))


def create(options: TimmOptions, source: Source, *, file: Path | None = None) -> Any:
    """The model without its classifier; with weights where a file is given.

    Raises:
        ConfigurationError: timm knows no such model, or the weights are of another.
    """
    # Named as a file, the weights are read by timm itself, which adapts those of older versions.
    overlay = {"source": "", "file": str(file), "custom_load": False} if file else {}
    try:
        return extra("timm").create_model(
            source.name, pretrained=file is not None, num_classes=0, pretrained_cfg_overlay=overlay, **options.arguments
        )
    except ConfigurationError:
        raise
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise ConfigurationError(
            f"timm cannot make the image model of {source.weights.parent}: {type(error).__name__} {text[:200]}",
            hint="Are the architecture and its arguments those that the weights are of?",
        ) from error


def resolved(options: TimmOptions, model: Any) -> dict[str, Any]:
    """How the model takes pictures: size, crop, interpolation, mean and deviation, by timm and the options over it."""
    wanted = {
        name: value
        for name in ("mean", "std", "interpolation", "crop_pct")
        if (value := getattr(options, name)) is not None
    }
    if options.input_size is not None:
        wanted["input_size"] = (3, options.input_size, options.input_size)
    found: dict[str, Any] = extra("timm.data").resolve_data_config(wanted, model=model)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
