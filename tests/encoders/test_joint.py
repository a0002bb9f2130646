from io import BytesIO

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.embedder import Content, Embedder
from penchant.encoders.options.joint import ClapOptions, ClipOptions
from penchant.encoders.registry import build, identity
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

TEXTS = ["a red disc", "a lake", "a red lake a red lake", "disc"]
UNKNOWN = "<unk>"
WORDS = ["<pad>", "<s>", "</s>", UNKNOWN, "a", "red", "lake", "disc"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {**SMALL, "vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# Drawn wider than models are to begin with, so that other inputs make quite other vectors.
WIDE = {"initializer_range": 0.4}
VISION = {**SMALL, **WIDE, "image_size": 32, "patch_size": 8}
RATE_HZ = 48_000


def words():
    """A tokenizer of a few words."""
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), WORDS, strict=False))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special)


def clip():
    """A tiny CLIP."""
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**TEXT, **WIDE, "max_position_embeddings": 16}, vision_config=VISION, projection_dim=24
        )
    )


def siglip():
    """A tiny SigLIP."""
    return transformers.SiglipModel(
        transformers.SiglipConfig(text_config={**TEXT, "max_position_embeddings": 16}, vision_config=VISION)
    )


def clap():
    """A tiny CLAP."""
    audio = {
        "hidden_size": 32,
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "window_size": 8,
        "spec_size": 256,
        "num_mel_bins": 64,
        "projection_dim": 24,
    }
    return transformers.ClapModel(
        transformers.ClapConfig(
            text_config={**TEXT, "max_position_embeddings": 17, "projection_dim": 24},
            audio_config=audio,
            projection_dim=24,
        )
    )


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny model with random weights and what goes with it; gives the folder, the model and the tokenizer."""

    def save(make, *parts):
        torch.manual_seed(3)
        model, tokenizer = make().eval(), words()
        for one in (model, tokenizer, *parts):
            one.save_pretrained(tmp_path / "model")
        return tmp_path / "model", model, tokenizer

    return save


def scaled(kind):
    """The image processor of a kind, for tiny pictures."""
    size = {"height": 32, "width": 32}
    if kind is siglip:
        return transformers.SiglipImageProcessor(size=size)
    return transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)


def encode(tower, inputs):
    """All three steps."""
    return tower.finish(tower.forward([tower.prepare(one) for one in inputs]))


def cosines(found, expected):
    """Of rows of unit length with rows of any."""
    return (found * expected.numpy()).sum(axis=1) / np.linalg.norm(expected.numpy(), axis=1)


@pytest.mark.parametrize("kind", [clip, siglip])
def test_texts_and_pictures_are_those_of_transformers(saved, picture, kind):
    """Both towers give transformers' own features, normalised, whatever shares the batch: cosine 0.9999 and more."""
    processor = scaled(kind)
    folder, model, tokenizer = saved(kind, processor)
    encoder = build(ClipOptions(model=str(folder)), Host())
    pictures = [picture(hue=hue, size=size) for hue, size in ((0, (60, 40)), (90, (33, 70)), (200, (32, 32)))]
    padding = {"padding": "max_length", "max_length": 16} if kind is siglip else {"padding": True}
    with torch.inference_mode():
        given = tokenizer(TEXTS, return_tensors="pt", truncation=True, **padding)
        given.pop("token_type_ids", None)
        if kind is siglip:
            given.pop("attention_mask")
        of_texts = model.get_text_features(**given).pooler_output
        shown = processor([Image.open(BytesIO(one)).convert("RGB") for one in pictures], return_tensors="pt")
        of_pictures = model.get_image_features(**shown).pooler_output
    found = encode(encoder.towers["text"], TEXTS)
    assert found.shape[1] == encoder.dimension == identity(ClipOptions(model=str(folder))).dimension
    assert cosines(found, of_texts).min() > 0.9999
    assert cosines(encode(encoder.towers["image"], pictures), of_pictures).min() > 0.9999
    assert abs(found[0] @ found[1]) < 0.999


def test_texts_and_sounds_are_those_of_transformers(saved, sound):
    """CLAP's towers give transformers' own features; a long sound is the mean of its windows."""
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", max_length_s=2)
    folder, model, tokenizer = saved(clap, extractor)
    encoder = build(ClapOptions(model=str(folder)), Host())
    draw = np.random.default_rng(2)
    samples = [
        (0.3 * np.sin(np.arange(int(length * RATE_HZ)) * pitch) + draw.normal(0, 0.05, int(length * RATE_HZ)))
        for length, pitch in ((1.0, 0.03), (2.0, 0.11))
    ]
    with torch.inference_mode():
        given = tokenizer(TEXTS, return_tensors="pt", padding=True)
        of_texts = model.get_text_features(given["input_ids"], given["attention_mask"]).pooler_output
        heard = extractor([one.astype(np.float32) for one in samples], sampling_rate=RATE_HZ, return_tensors="pt")
        of_sounds = model.get_audio_features(heard["input_features"], is_longer=heard["is_longer"]).pooler_output
    assert cosines(encode(encoder.towers["text"], TEXTS), of_texts).min() > 0.9999
    clips = [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in samples]
    found = encode(encoder.towers["audio"], clips)
    assert cosines(found, of_sounds).min() > 0.9999
    long = sound("WAV", "FLOAT", samples=np.concatenate([samples[1], samples[1][::-1]]), rate=RATE_HZ)
    mean = encode(encoder.towers["audio"], [clips[1], sound("WAV", "FLOAT", samples=samples[1][::-1], rate=RATE_HZ)])
    together = encode(encoder.towers["audio"], [clips[0], long])
    assert cosines(together[1:], torch.from_numpy(mean.mean(axis=0, keepdims=True))).min() > 0.9999
    assert cosines(together[:1], of_sounds[:1]).min() > 0.9999


async def test_texts_and_pictures_share_a_slice(saved, picture):
    """Chosen in the settings, one model embeds both into the slice `joint`; what remains has its own."""
    folder, _, _ = saved(clip, scaled(clip))
    joint = {"kind": "clip", "model": str(folder)}
    settings = EncoderSettings(text={"kind": "joint"}, image={"kind": "joint"}, joint=joint)
    async with Embedder(settings) as embedder:
        [both] = await embedder.embed([Content(text="a lake", images=(picture(), b"no picture"))])
    assert list(both.slices) == ["joint"]
    assert [(one.modality, one.reason) for one in both.refusals] == [("image", "unsupported-format")]


def test_what_cannot_be_used_is_refused(saved, picture):
    """Empty texts and what is no picture have a reason; a long text is cut."""
    folder, _, _ = saved(clip, scaled(clip))
    towers = build(ClipOptions(model=str(folder)), Host()).towers
    for modality, one, reason in (
        ("text", "", "empty"),
        ("text", "a\ud800", "corrupt"),
        ("image", b"?", "unsupported-format"),
        ("image", picture(size=(600, 4)), "too-large"),
    ):
        with pytest.raises(Undecodable) as refused:
            towers[modality].prepare(one)
        assert refused.value.reason == reason
    assert len(towers["text"].prepare("a red lake " * 1_000_000)) == 16


def test_a_model_of_another_kind_is_refused(saved):
    """A CLAP is no CLIP: the error says what is taken."""
    folder, _, _ = saved(clap)
    with pytest.raises(ConfigurationError, match="is clap, and clip, siglip, siglip2 are taken"):
        build(ClipOptions(model=str(folder)), Host())
