"""Language models that see: texts and pictures in one pass, as transformers gives them, and what strangers may send."""

import io
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from penchant.encoders.base import Host, PartUndecodable, Query, Whole
from penchant.encoders.embedder import Content, Embedder
from penchant.encoders.options.joint import VisionLanguageOptions
from penchant.encoders.registry import build, identity
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

TURNS = ["<|end|>", "<|user|>", "<|system|>", "<|assistant|>"]
# What the families' processors write in a prompt where a picture stands.
PLACES = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<image>"]
PLACES += ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
PLACES += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
SPECIAL = ["<pad>", *TURNS, *PLACES]
UNKNOWN = "<unk>"
WORDS = [UNKNOWN, "a", "red", "lake", "disc", "say", "what", "it", "is"]
VOCABULARY = {word: place for place, word in enumerate([*SPECIAL, *WORDS])}
TEMPLATE = """{% for turn in messages %}<|{{ turn.role }}|>{% for part in turn.content %}\
{% if part.type == "image" %}PLACE{% else %}{{ part.text }}{% endif %}{% endfor %}<|end|>{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
# Drawn wider than models are to begin with, so that other inputs make quite other vectors.
WIDE = {"initializer_range": 0.3}
LANGUAGE = {
    **SMALL,
    **WIDE,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": len(VOCABULARY),
    "pad_token_id": 0,
    "max_position_embeddings": 8_192,
}
VISION = {**SMALL, **WIDE, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
INSTRUCTION = "say what it is"


def tokenizer():
    """Of a few words and all that prompts are written by."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        additional_special_tokens=[*TURNS[1:], *PLACES],
        pad_token=SPECIAL[0],
        eos_token=TURNS[0],
        unk_token=UNKNOWN,
    )


def template(place):
    """A chat template that has pictures in their turn."""
    return TEMPLATE.replace("PLACE", place)


def qwen2_vl():
    """A tiny Qwen2-VL."""
    return of_qwen("Qwen2VL", embed_dim=32, hidden_size=32, mlp_ratio=2)


def qwen2_5_vl():
    """A tiny Qwen2.5-VL."""
    more = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    return of_qwen("Qwen2_5_VL", fullatt_block_indexes=[1], window_size=16, **more)


def qwen3_vl():
    """A tiny Qwen3-VL."""
    more = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    return of_qwen("Qwen3VL", deepstack_visual_indexes=[0], num_position_embeddings=64, **more)


def of_qwen(family, **vision):
    """A tiny Qwen-VL of a generation, and its processor."""
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = getattr(transformers, f"{family}Config")(
        text_config={**LANGUAGE, "head_dim": 8, "rope_parameters": rope},
        vision_config={"depth": 2, "num_heads": 4, "patch_size": 4, **WIDE, **vision},
        **{name: VOCABULARY[word] for name, word in zip(names, PLACES, strict=False)},
    )
    size = {"shortest_edge": 64, "longest_edge": 4_096}
    processor = getattr(transformers, f"{family}Processor")(
        transformers.Qwen2VLImageProcessor(patch_size=4, size=size),
        tokenizer(),
        (transformers.Qwen3VLVideoProcessor if family == "Qwen3VL" else transformers.Qwen2VLVideoProcessor)(
            patch_size=4
        ),
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return getattr(transformers, f"{family}ForConditionalGeneration")(config), processor


def llava():
    """A tiny LLaVA."""
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", **LANGUAGE},
        vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=VOCABULARY["<image>"],
    )
    side = {"height": 32, "width": 32}
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side),
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def idefics3():
    """A tiny Idefics3, which cuts pictures into tiles."""
    config = transformers.Idefics3Config(
        text_config={"model_type": "llama", **LANGUAGE},
        vision_config=VISION,
        image_token_id=VOCABULARY["<image>"],
        scale_factor=2,
        pad_token_id=0,
    )
    processor = transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer(),
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


def save(make, folder):
    """Saves a tiny model with random weights and its processor."""
    torch.manual_seed(3)
    model, processor = make()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a Qwen2-VL."""
    return save(qwen2_vl, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(saved):
    """It as an encoder."""
    return build(VisionLanguageOptions(model=str(saved), instruction=INSTRUCTION), Host())


def whole(*parts):
    """A content of texts and pictures."""
    return Whole(tuple(("image" if isinstance(part, bytes) else "text", part) for part in parts))


def encode(encoder, inputs):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in inputs]))


def upstream(folder, parts):
    """A content's vector by transformers alone: the last token's last state, of unit length."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    pictures = [Image.open(io.BytesIO(part)).convert("RGB") for part in parts if isinstance(part, bytes)]
    content = [{"type": "image"} for _ in pictures]
    content += [{"type": "text", "text": part} for part in parts if isinstance(part, str)]
    turns = [
        {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]},
        {"role": "user", "content": content},
    ]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    given = processor(text=prompt, images=pictures or None, return_tensors="pt")
    with torch.inference_mode():
        state = model(**given, output_hidden_states=True).hidden_states[-1][0, -1]
    return (state / state.norm()).numpy()


@pytest.mark.parametrize("make", [qwen2_vl, qwen2_5_vl, qwen3_vl, llava, idefics3])
def test_text_pictures_and_both_are_those_of_transformers(tmp_path, picture, make):
    """Alone, together and in batches of all sorts, contents have transformers' own vectors, which differ."""
    folder = save(make, tmp_path / "model")
    one, other = picture(), picture(hue=20, size=(30, 50))
    contents = [("a red lake",), (one,), (one, "a red lake"), (one, other, "a disc"), ("what",), (other, "a red disc")]
    options = VisionLanguageOptions(model=str(folder), instruction=INSTRUCTION)
    encoder = build(options, Host())
    found = encode(encoder.whole, [whole(*parts) for parts in contents])
    expected = np.array([upstream(folder, parts) for parts in contents])
    assert found.shape[1] == encoder.dimension == identity(options).dimension
    assert (found * expected).sum(axis=1).min() > 0.9999
    assert np.triu(found @ found.T, 1).max() < 0.999
    assert encode(encoder.towers["text"], ["a red lake"])[0] @ expected[0] > 0.9999
    assert encode(encoder.towers["image"], [one])[0] @ expected[1] > 0.9999


async def test_a_content_is_one_pass_and_what_is_unusable_is_left_out(saved, picture):
    """The slice is that of the whole, not the mean of its parts'; an unusable part has its reason, the rest counts."""
    model = {"kind": "vision-language", "model": str(saved), "instruction": INSTRUCTION, "max_pictures": 2}
    joint = EncoderSettings(text={"kind": "joint"}, image={"kind": "joint"}, joint=model)
    one, other = picture(), picture(hue=20)
    async with Embedder(joint) as embedder:
        both, same, mixed, text, many, nothing, none = await embedder.embed(
            [
                Content(text="a red lake", images=(one,)),
                Content(text="a red lake", images=(one,)),
                Content(text="a red lake", images=(b"no picture", one, b"")),
                Content(text="a red lake"),
                Content(text="<|user|>", images=(one, other, picture(hue=90), picture(hue=120))),
                Content(images=(b"?",)),
                Content(),
            ]
        )
    expected = upstream(saved, (one, "a red lake"))
    for found in (both, same, mixed):
        assert list(found.slices) == ["joint"]
        assert found.slices["joint"] @ expected > 0.9999
    assert text.slices["joint"] @ expected < 0.999
    assert [(one.modality, one.reason) for one in mixed.refusals] == [
        ("image", "unsupported-format"),
        ("image", "empty"),
    ]
    assert [(one.modality, one.reason) for one in many.refusals] == [
        ("text", "empty"),
        ("image", "too-many"),
        ("image", "too-many"),
    ]
    assert many.slices["joint"] @ upstream(saved, (one, other)) > 0.9999
    assert (nothing.slices, [one.reason for one in nothing.refusals]) == ({}, ["unsupported-format"])
    assert (none.slices, none.refusals) == ({}, ())


def test_searches_have_their_own_instruction(saved):
    """A text that asks is read under `query_instruction`, where there is one."""
    plain = build(VisionLanguageOptions(model=str(saved), instruction=INSTRUCTION), Host())
    asking = build(
        VisionLanguageOptions(model=str(saved), instruction=INSTRUCTION, query_instruction="what is it"), Host()
    )
    text, query = whole("a lake"), whole(Query("a lake"))
    np.testing.assert_array_equal(encode(plain.whole, [query]), encode(plain.whole, [text]))
    assert encode(asking.whole, [query])[0] @ encode(plain.whole, [text])[0] < 0.999
    np.testing.assert_array_equal(encode(asking.whole, [text]), encode(plain.whole, [text]))
    assert plain.fingerprint != asking.fingerprint


def test_long_texts_are_cut_and_large_pictures_shrunk(saved, picture):
    """What a content costs is bounded, however much of it there is."""
    encoder = build(VisionLanguageOptions(model=str(saved), max_tokens=6, picture_side=28), Host()).whole
    short, long = encoder.prepare(whole("a red lake a red lake")), encoder.prepare(whole("a red lake " * 100_000))
    assert (short.given["input_ids"] == long.given["input_ids"]).all()
    small, large = encoder.prepare(whole(picture(size=(28, 28)))), encoder.prepare(whole(picture(size=(900, 900))))
    assert small.tokens == large.tokens
    assert encoder.forward([encoder.prepare(whole(picture(size=(1, 1))))]).shape == (1, 32)


@given(st.lists(st.sampled_from([*SPECIAL, "<|im", "age_pad|>", "<", ">", " ", "a red", "\n"]), max_size=9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_writes_a_prompt(encoder, picture, words):
    """Whatever a stranger writes is read as words: it opens no turn, and claims no picture that is not there."""
    alone, shown = (encoder.whole.prepare(whole(*parts)) for parts in (("a",), (picture(),)))
    try:
        told = encoder.whole.prepare(whole("".join(words)))
        both = encoder.whole.prepare(whole(picture(), "".join(words)))
    except PartUndecodable as refusal:
        assert refusal.reason == "empty"  # noqa: PT017  it may be refused, or not
        return
    special = len(SPECIAL)
    for prompt, plain in ((told, alone), (both, shown)):
        assert (prompt.given["input_ids"] < special).sum() == (plain.given["input_ids"] < special).sum()
    assert encoder.whole.forward([told, both, alone]).shape == (3, 32)


def test_what_cannot_be_used_is_refused(encoder, picture):
    """A lone surrogate, a hairline: each has a reason, and says which part it was."""
    for part, reason in (("a\ud800", "corrupt"), (picture(size=(600, 4)), "too-large"), (b"?", "unsupported-format")):
        with pytest.raises(PartUndecodable) as refused:
            encoder.whole.prepare(whole("a lake", part))
        assert (refused.value.reason, refused.value.part[1]) == (reason, part)


def test_another_template_is_another_model_and_none_is_an_error(saved, tmp_path):
    """What a vector depends on is in the fingerprint; a folder that cannot be used is refused with what to do."""
    other, without = tmp_path / "other", tmp_path / "without"
    for copy in (other, without):
        shutil.copytree(saved, copy)
    written = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text(written.replace("<|assistant|>", "<|assistant|>it is"))
    (without / "chat_template.jinja").unlink()
    assert identity(VisionLanguageOptions(model=str(other))) != identity(VisionLanguageOptions(model=str(saved)))
    with pytest.raises(ConfigurationError, match="chat template") as refused:
        build(VisionLanguageOptions(model=str(without)), Host())
    assert refused.value.hint
    transformers.LlamaConfig().save_pretrained(without)
    with pytest.raises(ConfigurationError, match="is llama, and idefics3, llava, qwen2_5_vl"):
        build(VisionLanguageOptions(model=str(without)), Host())
