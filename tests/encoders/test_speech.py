import json
import string

import numpy as np
import pytest
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.embedder import Content, Embedder, space
from penchant.encoders.options.speech import SpeechOptions
from penchant.encoders.speech import SpeechToText, identify_speech
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

RATE_HZ = 16_000


def noises(seconds):
    """Sounds of so many seconds at 16 kHz, each of a rising tone of its own."""
    draw = np.random.default_rng(4)
    found = []
    for place, length in enumerate(seconds):
        time = np.arange(int(length * RATE_HZ)) / RATE_HZ
        tone = 0.3 * np.sin(2 * np.pi * (100 + 400 * time) * (place + 1) * time)
        found.append((tone + draw.normal(0, 0.02, len(time))).astype(np.float32))
    return found


@pytest.fixture
def whisper(tmp_path):
    """A tiny Whisper with random weights, in a folder."""
    alphabet = sorted(ByteLevel.alphabet())
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    vocabulary = {word: place for place, word in enumerate([*alphabet, *special])}
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[])
    end, start, english, transcribe, translate, plain = (vocabulary[word] for word in special)
    torch.manual_seed(11)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(vocabulary),
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_target_positions=64,
            init_std=0.3,
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=start,
        )
    ).eval()
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        is_multilingual=True,
        lang_to_id={"<|en|>": english},
        task_to_id={"transcribe": transcribe, "translate": translate},
        no_timestamps_token_id=plain,
    )
    extractor = transformers.WhisperFeatureExtractor()
    for part in (model, tokenizer, extractor):
        part.save_pretrained(tmp_path / "whisper")
    return tmp_path / "whisper", model, tokenizer, extractor


@pytest.fixture
def speller(tmp_path):
    """A tiny wav2vec 2.0 that spells, with random weights, in a folder."""
    folder = tmp_path / "speller"
    folder.mkdir()
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase]
    (folder / "letters.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "letters.json"))
    torch.manual_seed(12)
    model = transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(
            vocab_size=len(letters),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(16, 16, 16),
            conv_kernel=(10, 8, 4),
            conv_stride=(5, 8, 4),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            initializer_range=0.5,
        )
    ).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor()
    for part in (model, tokenizer, extractor):
        part.save_pretrained(folder)
    return folder, model, tokenizer, extractor


def transcripts(speech, sounds):
    """Both steps."""
    return speech.forward([speech.prepare(one) for one in sounds])


def test_a_transcript_is_what_whisper_writes(whisper, sound):
    """A model of Whisper's kind writes, of each sound, what it writes by transformers alone."""
    folder, model, tokenizer, extractor = whisper
    samples = noises([2.0, 3.0])
    expected = []
    for one in samples:
        given = extractor(one, sampling_rate=RATE_HZ, return_tensors="pt").input_features
        ids = model.generate(given, language="en", max_new_tokens=20, do_sample=False)
        expected.append(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    speech = SpeechToText(SpeechOptions(model=str(folder), language="en", max_tokens=20), Host())
    found = transcripts(speech, [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in samples])
    assert found == expected
    assert all(found)


def test_a_transcript_is_what_a_model_spells(speller, sound):
    """A model that spells by CTC gives, of each sound, the likeliest letters by transformers alone."""
    folder, model, tokenizer, extractor = speller
    samples = noises([0.5, 0.8])
    expected = []
    for one in samples:
        with torch.inference_mode():
            logits = model(**extractor(one, sampling_rate=RATE_HZ, return_tensors="pt")).logits
        expected.append(tokenizer.decode(logits[0].argmax(dim=-1)).strip())
    speech = SpeechToText(SpeechOptions(model=str(folder)), Host())
    found = transcripts(speech, [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in samples])
    assert found == expected
    assert len(set(found)) == len(found)
    assert all(found)


def test_a_long_sound_is_heard_whole(speller, sound):
    """Of a sound longer than the window, the windows' transcripts follow each other."""
    folder, *_ = speller
    parts = noises([1.0, 1.0, 1.0])
    speech = SpeechToText(SpeechOptions(model=str(folder), window_s=1), Host())
    of_parts = transcripts(speech, [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in parts])
    whole = transcripts(speech, [sound("WAV", "FLOAT", samples=np.concatenate(parts), rate=RATE_HZ)])
    assert whole == [" ".join(of_parts)]


def test_what_cannot_be_heard_is_refused_as_by_encoders(speller, sound):
    """Silence and damage have the reasons that encoders of sound give."""
    speech = SpeechToText(SpeechOptions(model=str(speller[0])), Host())
    for data, reason in ((b"no sound", "unsupported-format"), (sound(samples=np.zeros(16_000)), "silent")):
        with pytest.raises(Undecodable) as refused:
            speech.prepare(data)
        assert refused.value.reason == reason


def test_what_changes_a_transcript_changes_the_fingerprint(speller, whisper):
    """Model, language and bounds each make another fingerprint, known before loading; a pin stands for it."""
    options = SpeechOptions(model=str(whisper[0]))
    others = [
        options,
        SpeechOptions(model=str(speller[0])),
        options.model_copy(update={"language": "en"}),
        options.model_copy(update={"max_tokens": 9}),
        options.model_copy(update={"window_s": 9.0}),
    ]
    known = [identify_speech(one) for one in others]
    assert len(set(known)) == len(known)
    assert SpeechToText(options, Host()).fingerprint == known[0]
    assert identify_speech(SpeechOptions(model="/nowhere", pin=known[0])) == known[0]
    config = whisper[0] / "generation_config.json"
    config.write_text(config.read_text().replace('"is_multilingual": true', '"is_multilingual": false'))
    assert identify_speech(options) != known[0]


def test_a_model_that_writes_nothing_is_refused(tmp_path):
    """A model of texts is no model of speech: a clear error says what to do."""
    transformers.BertModel(
        transformers.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be loaded") as refused:
        SpeechToText(SpeechOptions(model=str(tmp_path)), Host())
    assert refused.value.hint


async def test_what_is_said_joins_the_text(speller, sound, picture):
    """The text slice of a content is that of its text and of what is said in its sounds; nothing else changes."""
    options = SpeechOptions(model=str(speller[0]))
    samples = noises([0.5, 0.8])
    sounds = tuple(sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in samples)
    first, second = transcripts(SpeechToText(options, Host()), sounds)
    contents = [
        Content(text="a red disc", sounds=sounds),
        Content(sounds=sounds[:1]),
        Content(text="a lake", images=(picture(),)),
        Content(text="a lake", sounds=(b"no sound", sounds[0])),
    ]
    async with Embedder(EncoderSettings(speech=options)) as embedder:
        found = await embedder.embed(contents)
        again = await embedder.embed(contents)
    async with Embedder(EncoderSettings()) as embedder:
        texts = [f"a red disc\n{first}\n{second}", first, "a lake", f"a lake\n{first}"]
        expected = await embedder.embed([Content(text=text) for text in texts])
        others = await embedder.embed(contents)
    for one, repeated, wanted, other in zip(found, again, expected, others, strict=True):
        np.testing.assert_allclose(one.slices["text"], wanted.slices["text"], atol=1e-6)
        np.testing.assert_allclose(one.slices["text"], repeated.slices["text"], atol=1e-6)
        assert one.refusals == other.refusals
        for modality in ("image", "audio"):
            assert (modality in one.slices) == (modality in other.slices)
    assert [refusal.modality for refusal in found[3].refusals] == ["audio"]


def test_a_text_with_speech_is_of_another_space(speller):
    """Vectors of texts with what is said are never mixed with those of texts alone."""
    plain = space(EncoderSettings())
    with_speech = space(EncoderSettings(speech=SpeechOptions(model=str(speller[0]))))
    assert with_speech.dimensions == plain.dimensions
    differing = [name for name, known in plain.fingerprints.items() if with_speech.fingerprints[name] != known]
    assert differing == ["text"]
