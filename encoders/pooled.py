"""A transformer as an encoder of texts: tokens in, one vector pooled from the last hidden states out.

Three ways of pooling: the mean over a text's tokens, the first token (CLS), or the last one, which is the only
one that has seen the whole text where attention is causal (decoder language models).

Padding goes to the right for all three. A causal model's states cannot depend on what follows, and positions
count from a text's own first token, so the last token's state is the one that padding on the left, with its
position ids put right, would give; and nothing needs to know which kind of model it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders import pretrained
from penchant.encoders.base import Encoder, Fingerprint, Host, Undecodable, Vectors, extra, unit_rows
from penchant.encoders.options.text import DType, Pooling
from penchant.encoders.quantised import quantised
from penchant.errors import ConfigurationError

__all__ = ["PooledTransformer", "Recipe", "Tokens"]

Tokens = list[int]

# Measured on two cores: 512 and 1,024 give 100 GFLOP/s, 4,096 gives 71, 16,384 gives 46 (caches overflow).
TOKEN_BUDGET = 1_024
INT8 = "int8"
# What is read of a text at most, per token that the model takes: a word of any language has a fraction of this, and
# megabytes that would be cut off behind the tokenizer need not pass through it.
CHARACTERS_PER_TOKEN = 128


class Recipe(Struct, frozen=True, kw_only=True):
    """All that makes vectors of a model's files.

    Attributes:
        folder: of the model.
        fingerprint: stands for the files and everything below.
        dimension: components kept, the first ones; as many as the hidden states have, or fewer for models trained so.
        hidden: components of a hidden state.
        pooling: which hidden states become the vector.
        max_tokens: of one text, its prefix and the model's special tokens among them.
        passage_prefix: put before a text.
        query_prefix: put before a text that asks, instead.
        dtype: that the model computes in; int8: most of it.
    """

    folder: Path
    fingerprint: Fingerprint
    dimension: int
    hidden: int
    pooling: Pooling
    max_tokens: int
    passage_prefix: str = ""
    query_prefix: str = ""
    dtype: DType = "float32"


class PooledTransformer(Encoder[str, Tokens, NDArray[np.float32]]):
    """Texts to vectors by a transformer. Building one loads the model.

    Args:
        recipe: what to load, and how to use it.
        host: the device.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be loaded.
    """

    budget = TOKEN_BUDGET
    ahead = 512

    def __init__(self, recipe: Recipe, host: Host) -> None:
        self.dimension, self.fingerprint = recipe.dimension, recipe.fingerprint
        self._recipe = recipe
        self._device = host.device
        self._torch = extra("torch")
        self._tokenizer = load_tokenizer(recipe)
        model = load_model(recipe).to(host.device)
        self._model = quantised(model, host.device) if recipe.dtype == INT8 else model
        # Positions of some models are counted where ids are not this one.
        self._padding = int(getattr(self._model.config, "pad_token_id", None) or 0)
        # What tokens there are where a text has none.
        self._nothing: dict[str, Tokens] = {
            prefix: self._tokenizer.encode(prefix).ids for prefix in (recipe.passage_prefix, recipe.query_prefix)
        }
        if max(map(len, self._nothing.values())) >= recipe.max_tokens:
            raise ConfigurationError(
                f"The prefix leaves no room for a text in {recipe.max_tokens} tokens", hint="Raise `max_tokens`."
            )

    def prepare(self, one: str) -> Tokens:
        """The ids of a text's first tokens.

        Raises:
            Undecodable: the text holds nothing to read, or is not text ("empty", "corrupt").
        """
        return self._tokens(self._recipe.passage_prefix, one)

    def prepare_query(self, one: str) -> Tokens:
        """Likewise, of a text that asks for something."""
        return self._tokens(self._recipe.query_prefix, one)

    def size(self, prepared: Tokens) -> int:
        """Tokens."""
        return len(prepared)

    def forward(self, batch: Sequence[Tokens]) -> NDArray[np.float32]:
        """Pooled hidden states: shape (texts, hidden)."""
        torch = self._torch
        lengths = np.array([len(tokens) for tokens in batch])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self._padding, np.int64)
        ids[mask] = np.concatenate(batch)
        with torch.inference_mode():
            attention = torch.from_numpy(mask.astype(np.int64)).to(self._device)
            output = self._model(input_ids=torch.from_numpy(ids).to(self._device), attention_mask=attention)
            pooled: NDArray[np.float32] = self._pool(output.last_hidden_state.float(), attention).cpu().numpy()
        return pooled

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (texts, dimension)."""
        return unit_rows(raw[:, : self.dimension])

    def _tokens(self, prefix: str, one: str) -> Tokens:
        read = one[: CHARACTERS_PER_TOKEN * self._recipe.max_tokens]
        try:
            tokens: Tokens = self._tokenizer.encode(prefix + read).ids
        except Exception as error:  # noqa: BLE001  TypeError of a lone surrogate, which no UTF-8 can say; bare Exception of some models
            raise Undecodable(f"The text cannot be tokenised ({type(error).__name__})", reason="corrupt") from None
        if not read.strip() or tokens == self._nothing[prefix]:
            raise Undecodable("The text has no characters to read", reason="empty")
        return tokens

    def _pool(self, hidden: Any, mask: Any) -> Any:
        """One state a text, shape (texts, hidden), from states of shape (texts, tokens, hidden)."""
        if self._recipe.pooling == "cls":
            return hidden[:, 0]
        if self._recipe.pooling == "last":
            return hidden[self._torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


def load_tokenizer(recipe: Recipe) -> Any:
    """The Rust tokenizer itself, cutting at so many tokens.

    The class around it sets truncation and padding anew on each call, which fails while another thread encodes. Set
    once here, encoding only reads.
    """
    try:
        around = extra("transformers").AutoTokenizer.from_pretrained(recipe.folder, **safely())
        tokenizer = around.backend_tokenizer
        tokenizer.enable_truncation(recipe.max_tokens)
    except ConfigurationError:
        raise
    except Exception as error:  # whatever transformers and the tokenizer make of files that are not what they seem
        raise ConfigurationError(
            f"The tokenizer of {recipe.folder} cannot be loaded ({type(error).__name__}: {error})",
            hint="A tokenizer.json is needed, as fast tokenizers' `save_pretrained` writes it.",
        ) from error
    tokenizer.no_padding()
    return tokenizer


def load_model(recipe: Recipe) -> Any:
    """The model, ready for inference, on the CPU."""
    dtype = getattr(extra("torch"), "float32" if recipe.dtype == INT8 else recipe.dtype)
    model = pretrained.load_model(recipe.folder, unused=("pooler.",), dtype=dtype)  # the pooler is not used
    if model.config.hidden_size != recipe.hidden:
        raise ConfigurationError(f"The hidden states of {recipe.folder} have {model.config.hidden_size} components")
    model.config.use_cache = False  # nothing is generated
    return model.eval()


def safely() -> dict[str, bool]:
    """What every loading of a folder is told."""
    return {"local_files_only": True, "trust_remote_code": False}
