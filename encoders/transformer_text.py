"""Text by any transformer that transformers knows: encoders such as BERT, BGE and E5, and decoder language models.

What a model was trained with stands in its folder, where sentence-transformers saved it: pooling, prefixes, the
longest text. That is what is used unless the settings say otherwise; a vector pooled in another way than the
model was trained for looks like any other, and means little.

Devlin et al., "BERT" (2019); Wang et al., "Text Embeddings by Weakly-Supervised Contrastive Pre-training" (E5,
2022), for prefixes; Wang et al., "Improving Text Embeddings with Large Language Models" (2024), for the last token
of a decoder; Kusupati et al., "Matryoshka Representation Learning" (2022), for keeping the first components.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from penchant.encoders.base import Host, Identity, fingerprint
from penchant.encoders.checkpoint import Checkpoint, find_checkpoint, read_json
from penchant.encoders.options.text import Pooling, TransformerTextOptions
from penchant.encoders.pooled import PooledTransformer, Recipe
from penchant.errors import ConfigurationError

__all__ = ["TransformerText"]

VERSION = 1  # of what is done with the files
# As long as most models' texts are; more must be asked for, since time grows with the square.
USUAL_TOKENS = 512
# Under which names a model's configuration has them.
HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
# These count positions from behind the padding's id.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"})

# What sentence-transformers has pooling modules say, formerly by a flag each.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
POOLING_NAMES = {"lasttoken": "last"}
MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
PASSAGE_PROMPTS, QUERY_PROMPTS = ("document", "passage", "corpus"), ("query",)


class TransformerText(PooledTransformer):
    """Texts to vectors by a model from a folder or a hub."""

    def __init__(self, options: TransformerTextOptions, host: Host) -> None:
        super().__init__(find_recipe(options, fetch=True), host)

    @classmethod
    def identify(cls, options: TransformerTextOptions) -> Identity:
        """See `Encoder`."""
        recipe = find_recipe(options, fetch=False)
        return Identity(dimension=recipe.dimension, fingerprint=recipe.fingerprint)


def find_recipe(options: TransformerTextOptions, *, fetch: bool) -> Recipe:
    """What the options and the model's own folder say, the options first.

    Raises:
        ConfigurationError: there is no such model, it may not be loaded, or they do not fit each other.
    """
    checkpoint = find_checkpoint(options, fetch=fetch)
    folder, config = checkpoint.folder, checkpoint.config
    if config.get("is_encoder_decoder"):
        raise ConfigurationError(
            f"The model in {folder} is an encoder with a decoder", hint="Choose a model that is one of the two."
        )
    if not (folder / "tokenizer.json").is_file():
        raise ConfigurationError(
            f"The model folder {folder} has no tokenizer.json",
            hint='Save it once with AutoTokenizer.from_pretrained(...).save_pretrained("FOLDER").',
        )
    check_modules(folder)
    hidden = first_integer(config, HIDDEN)
    if hidden is None:
        raise ConfigurationError(
            f"{folder}/config.json does not say how many components a hidden state has ({', '.join(HIDDEN)})",
            hint="Is it a model of texts? Those of several modalities are encoders.joint.",
        )
    dimension = options.dimension or hidden
    if dimension > hidden:
        raise ConfigurationError(
            f"encoders.text.dimension is {dimension}, and the model's vectors have {hidden}",
            hint="Lower it, or leave it out to keep them all.",
        )
    pooling = options.pooling or folder_pooling(folder)
    prompts = folder_prompts(folder)
    passage = prompt(prompts, PASSAGE_PROMPTS) if options.passage_prefix is None else options.passage_prefix
    query = prompt(prompts, QUERY_PROMPTS) if options.query_prefix is None else options.query_prefix
    max_tokens = token_limit(options, checkpoint)
    return Recipe(
        folder=folder,
        fingerprint=fingerprint(
            *("transformer-text", VERSION, checkpoint.content, dimension, pooling, max_tokens),
            *(passage, query, options.dtype),
        ),
        dimension=dimension,
        hidden=hidden,
        pooling=pooling,
        max_tokens=max_tokens,
        passage_prefix=passage,
        query_prefix=query,
        dtype=options.dtype,
    )


def check_modules(folder: Path) -> None:
    """Refuses a model whose vectors pass through more than pooling and normalising."""
    if not (folder / "modules.json").is_file():
        return
    for module in read_json(folder / "modules.json", list):
        kind = str(module.get("type")) if isinstance(module, dict) else ""
        if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in MODULES:
            raise ConfigurationError(
                f"The model in {folder} has a module {kind or '?'}, which penchant does not apply",
                hint="Choose a model whose vectors are pooled hidden states: " + ", ".join(sorted(MODULES)),
            )


def folder_pooling(folder: Path) -> Pooling:
    """How the model's own folder says that it is pooled."""
    path = folder / "1_Pooling" / "config.json"
    hint = "Set encoders.text.pooling to what the model was trained with: mean, cls or last (see its documentation)."
    if not path.is_file():
        raise ConfigurationError(f"The model folder {folder} does not say how it is pooled", hint=hint)
    said = read_json(path, dict)
    modes = said.get("pooling_mode") or [mode for flag, mode in POOLING_FLAGS.items() if said.get(flag)]
    named = [POOLING_NAMES.get(mode, mode) for mode in ([modes] if isinstance(modes, str) else modes)]
    poolings: tuple[Pooling, ...] = get_args(Pooling)
    for pooling in poolings:
        if named == [pooling]:
            if said.get("include_prompt") is False:
                raise ConfigurationError(f"The model in {folder} leaves prefixes out of its pooling", hint=hint)
            return pooling
    raise ConfigurationError(f"The model in {folder} is pooled by {modes}, which penchant does not do", hint=hint)


def folder_prompts(folder: Path) -> Mapping[str, Any]:
    """The prefixes that the model's own folder names."""
    path = folder / "config_sentence_transformers.json"
    prompts = read_json(path, dict).get("prompts") if path.is_file() else None
    return prompts if isinstance(prompts, dict) else {}


def prompt(prompts: Mapping[str, Any], names: Iterable[str]) -> str:
    """The first of the prompts that is there; none is none."""
    return next((str(prompts[name]) for name in names if prompts.get(name)), "")


def token_limit(options: TransformerTextOptions, checkpoint: Checkpoint) -> int:
    """The longest text in tokens: as asked for, else as the model's folder says, within what it has positions for."""
    folder, config = checkpoint.folder, checkpoint.config
    positions = first_integer(config, POSITIONS)
    if positions is not None and config.get("model_type") in OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    if options.max_tokens is not None:
        if positions is not None and options.max_tokens > positions:
            raise ConfigurationError(
                f"encoders.text.max_tokens is {options.max_tokens}, and the model has {positions} positions",
                hint="Lower it, or leave it out.",
            )
        return options.max_tokens
    said = [USUAL_TOKENS, positions]
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        said.append(first_integer(read_json(folder / name, dict), (key,)) if (folder / name).is_file() else None)
    return min(limit for limit in said if limit is not None)


def first_integer(config: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """The first of the entries that is a positive integer."""
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)
