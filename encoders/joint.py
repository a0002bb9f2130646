"""Models that put several modalities into one space, so that a text finds a picture or a sound: CLIP, SigLIP, CLAP.

Each is two towers that were trained to agree. Their vectors share a slice: what somebody wrote about is near what
shows it, or sounds like it.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021); Zhai et al., "Sigmoid
Loss for Language Image Pre-Training" (2023); Wu et al., "Large-scale Contrastive Language-Audio Pretraining" (2023).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import (
    Encoder,
    Host,
    Identity,
    JointEncoder,
    Undecodable,
    Vectors,
    extra,
    fingerprint,
    unit_rows,
)
from penchant.encoders.checkpoint import Checkpoint, find_checkpoint, of_family
from penchant.encoders.image import pixels_of
from penchant.encoders.listening import heard, windows
from penchant.encoders.options.base import JointOptions
from penchant.encoders.pooled import CHARACTERS_PER_TOKEN, TOKEN_BUDGET, Tokens
from penchant.encoders.pretrained import load_model, load_part
from penchant.errors import ConfigurationError

__all__ = ["Towers"]

# Trained on texts of one length: these see the padding, and pool behind it.
PADDED = frozenset({"siglip", "siglip2"})
# As long on each side as the default bound lets through: the model's own processor scales a picture, from all of it.
WHOLE = 8_192
# Where a configuration does not say, transformers has these.
PROJECTED_DIMENSION, SIGLIP_DIMENSION = 512, 768
MAX_ASPECT = 50  # times longer than wide: processors that scale the shorter side make the longer one as long

Raw = NDArray[np.float32]


class Tower(Encoder[Any, Any, Raw]):
    """Half of a model.

    Args:
        known: what the whole is.
        model: of transformers.
        host: the device, and what pictures and sounds may be.
        folder: of the model, with what prepares its inputs.

    Attributes:
        features: names the model's method whose output pools what the space has.
    """

    features: str

    def __init__(self, known: Identity, model: Any, host: Host, folder: Path) -> None:  # noqa: ARG002  halves load theirs
        self.dimension, self.fingerprint = known.dimension, known.fingerprint
        self._features = getattr(model, self.features)
        self._host = host
        self._torch = extra("torch")

    @classmethod
    def identify(cls, options: JointOptions) -> Identity:
        """That of the whole."""
        return identified(options)

    def finish(self, raw: Raw) -> Vectors:
        """Unit vectors: shape (inputs, dimension)."""
        return unit_rows(raw)

    def _forward(self, **inputs: NDArray[Any]) -> Raw:
        """Features, shape (inputs, dimension), of arrays as the model names them."""
        given = {name: self._torch.from_numpy(array).to(self._host.device) for name, array in inputs.items()}
        with self._torch.inference_mode():
            features: Raw = self._features(**given).pooler_output.float().cpu().numpy()
        return features


class TextTower(Tower):
    """The half that reads."""

    features = "get_text_features"
    budget = TOKEN_BUDGET
    ahead = 512

    def __init__(self, known: Identity, model: Any, host: Host, folder: Path) -> None:
        super().__init__(known, model, host, folder)
        config = model.config.text_config
        around = load_part(folder, "AutoTokenizer")
        self._tokenizer = around.backend_tokenizer
        self._longest = positions(around, config)
        self._padded = config.model_type.removesuffix("_text_model") in PADDED
        self._padding = int(around.pad_token_id or 0)
        self._tokenizer.enable_truncation(self._longest)
        self._tokenizer.no_padding()
        self._nothing: Tokens = self._tokenizer.encode("").ids

    def prepare(self, one: str) -> Tokens:
        """The ids of a text's first tokens.

        Raises:
            Undecodable: the text holds nothing to read, or is not text ("empty", "corrupt").
        """
        try:
            tokens: Tokens = self._tokenizer.encode(one[: CHARACTERS_PER_TOKEN * self._longest]).ids
        except Exception as error:  # noqa: BLE001  as of any text: a lone surrogate, which no UTF-8 can say
            raise Undecodable(f"The text cannot be tokenised ({type(error).__name__})", reason="corrupt") from None
        if not one.strip() or tokens == self._nothing:
            raise Undecodable("The text has no characters to read", reason="empty")
        return tokens

    def size(self, prepared: Tokens) -> int:
        """Tokens, with those of the padding that the model was trained on."""
        return self._longest if self._padded else len(prepared)

    def forward(self, batch: Sequence[Tokens]) -> Raw:
        """Features: shape (texts, dimension)."""
        lengths = np.array([len(tokens) for tokens in batch])
        mask = np.arange(self._longest if self._padded else lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self._padding, np.int64)
        ids[mask] = np.concatenate(batch)
        if self._padded:
            return self._forward(input_ids=ids)
        return self._forward(input_ids=ids, attention_mask=mask.astype(np.int64))


class PictureTower(Tower):
    """The half that sees."""

    features = "get_image_features"

    def __init__(self, known: Identity, model: Any, host: Host, folder: Path) -> None:
        super().__init__(known, model, host, folder)
        self._processor = load_part(folder, "AutoImageProcessor")
        self._from_pixels = extra("PIL.Image").fromarray

    def prepare(self, one: bytes) -> NDArray[np.float32]:
        """A picture as the model takes it: shape (3, height, width).

        Raises:
            Undecodable: as `decode_picture`; or it is far longer than wide ("too-large").
        """
        pixels = pixels_of(one, self._host, side=WHOLE)
        shorter, longer = sorted(pixels.shape[:2])
        if longer > MAX_ASPECT * shorter:
            raise Undecodable(f"The image is more than {MAX_ASPECT} times longer than wide", reason="too-large")
        prepared: NDArray[np.float32] = np.asarray(
            self._processor(self._from_pixels(pixels), return_tensors="np")["pixel_values"][0], np.float32
        )
        return prepared

    def forward(self, batch: Sequence[NDArray[np.float32]]) -> Raw:
        """Features: shape (pictures, dimension)."""
        return self._forward(pixel_values=np.stack(batch))


class SoundTower(Tower):
    """The half that hears; a sound longer than the model's window is the mean of its windows."""

    features = "get_audio_features"
    budget, ahead = 4, 16  # spectrograms of ten seconds

    def __init__(self, known: Identity, model: Any, host: Host, folder: Path) -> None:
        super().__init__(known, model, host, folder)
        self._extractor = load_part(folder, "AutoFeatureExtractor")
        self._rate, self._window_s = int(self._extractor.sampling_rate), float(self._extractor.max_length_s)

    def prepare(self, one: bytes) -> list[NDArray[np.float32]]:
        """A sound's windows as the model takes them: spectrograms of one shape.

        Raises:
            Undecodable: as `heard`.
        """
        # No window is longer than the model's: the extractor would cut a longer one at random.
        parts = windows(heard(one, self._host, self._rate), self._rate, self._window_s)
        given = self._extractor(parts, sampling_rate=self._rate, return_tensors="np")
        return list(np.asarray(given["input_features"], np.float32))

    def size(self, prepared: list[NDArray[np.float32]]) -> int:
        """Windows."""
        return len(prepared)

    def forward(self, batch: Sequence[list[NDArray[np.float32]]]) -> Raw:
        """Features, averaged over windows: shape (sounds, dimension)."""
        together = [window for of_sound in batch for window in of_sound]
        features = self._forward(input_features=np.stack(together), is_longer=np.zeros((len(together), 1), bool))
        ends = np.cumsum([len(of_sound) for of_sound in batch])[:-1]
        return np.array([unit_rows(part).mean(axis=0) for part in np.split(features, ends)], np.float32)


TOWERS: Mapping[str, type[Tower]] = {"text": TextTower, "image": PictureTower, "audio": SoundTower}


class Towers(JointEncoder):
    """CLIP or SigLIP: texts and pictures; or CLAP: texts and sounds.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be loaded.
    """

    def __init__(self, options: JointOptions, host: Host) -> None:
        folder = of_family(find_checkpoint(options, fetch=True), options.families).folder
        known = identified(options)
        self.dimension, self.fingerprint = known.dimension, known.fingerprint
        model = load_model(folder).to(host.device)
        self.towers = {modality: TOWERS[modality](known, model, host, folder) for modality in options.modalities}

    @classmethod
    def identify(cls, options: JointOptions) -> Identity:
        """See `Encoder`."""
        return identified(options)


def identified(options: JointOptions) -> Identity:
    """What a model is, by its files."""
    checkpoint = find_checkpoint(options, fetch=False)
    return Identity(
        dimension=dimension(checkpoint), fingerprint=fingerprint("joint", 1, checkpoint.content, MAX_ASPECT)
    )


def dimension(checkpoint: Checkpoint) -> int:
    """Components of the space that the towers share."""
    config = checkpoint.config
    vision = config.get("vision_config")
    if config.get("model_type") in PADDED:
        found = vision.get("hidden_size", SIGLIP_DIMENSION) if isinstance(vision, dict) else None
    else:
        found = config.get("projection_dim", PROJECTED_DIMENSION)
    if not isinstance(found, int) or found < 1:
        raise ConfigurationError(
            f"The config.json in {checkpoint.folder} does not say how many components its vectors have",
            hint="Is it a CLIP, SigLIP or CLAP model?",
        )
    return found


def positions(tokenizer: Any, config: Any) -> int:
    """The longest text in tokens."""
    said = int(config.max_position_embeddings)
    if config.model_type.startswith("clap"):
        said -= int(config.pad_token_id) + 1  # positions are counted from behind the padding's id
    return min(said, int(tokenizer.model_max_length))
