import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchaudio
import transformers
from safetensors.torch import load_file, save_file

from penchant.encoders.audio import LogMelStatistics
from penchant.encoders.base import Host, Undecodable
from penchant.encoders.listening import TorchaudioPipeline, TransformersAudio, windows
from penchant.encoders.options.audio import LogMelOptions, TorchaudioOptions, TransformersAudioOptions
from penchant.encoders.registry import build, identity
from penchant.errors import ConfigurationError

RATE_HZ = 16_000
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STEPS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
CONFIGURATIONS = {
    "wav2vec2": lambda: transformers.Wav2Vec2Config(**TINY, **STEPS),
    "wav2vec2, layers normalised": lambda: transformers.Wav2Vec2Config(
        **TINY, **STEPS, feat_extract_norm="layer", do_stable_layer_norm=True
    ),
    "hubert": lambda: transformers.HubertConfig(**TINY, **STEPS),
    "wavlm": lambda: transformers.WavLMConfig(**TINY, **STEPS),
    "ast": lambda: transformers.ASTConfig(**TINY, max_length=1_024),
}


def encode(encoder, sounds):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in sounds]))


def cosines(first, second):
    """Of the rows of two matrices."""
    return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


def noises(seconds):
    """Sounds of so many seconds, at the rate that the models know, each of another pitch and loudness."""
    draw = np.random.default_rng(4)
    found = []
    for place, length in enumerate(seconds):
        time = np.arange(int(length * RATE_HZ)) / RATE_HZ
        tone = 0.3 / (1 + place) * np.sin(2 * np.pi * 200 * (place + 1) * time)
        found.append((tone + draw.normal(0, 0.02, len(time))).astype(np.float32))
    return found


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny model with random weights, and its feature extractor, to a folder."""

    def save(name):
        torch.manual_seed(3)
        model = transformers.AutoModel.from_config(CONFIGURATIONS[name]()).eval()
        extractor = transformers.ASTFeatureExtractor() if name == "ast" else transformers.Wav2Vec2FeatureExtractor()
        model.save_pretrained(tmp_path / name)
        extractor.save_pretrained(tmp_path / name)
        return tmp_path / name, model, extractor

    return save


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_vectors_are_those_of_transformers(saved, sound, name):
    """Of sounds of one window, the vectors are the model's own averaged over time: cosine 0.9999 and more."""
    folder, model, extractor = saved(name)
    samples = noises([1.3, 0.7, 2.0, 0.7])
    expected = []
    for one in samples:
        with torch.inference_mode():
            inputs = extractor(one, sampling_rate=RATE_HZ, return_tensors="pt")
            expected.append(model(**inputs).last_hidden_state[0].mean(dim=0).numpy())
    encoder = TransformersAudio(TransformersAudioOptions(model=str(folder)), Host())
    found = encode(encoder, [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in samples])
    assert found.shape == (4, 32)
    assert cosines(found, np.array(expected)).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_model_may_pool_by_itself(saved, sound):
    """Where the model has a way of its own to pool, it can be asked for."""
    folder, model, extractor = saved("ast")
    samples = noises([2.0])
    with torch.inference_mode():
        expected = model(**extractor(samples[0], sampling_rate=RATE_HZ, return_tensors="pt")).pooler_output.numpy()
    encoder = TransformersAudio(TransformersAudioOptions(model=str(folder), pooling="pooler"), Host())
    found = encode(encoder, [sound("WAV", "FLOAT", samples=samples[0], rate=RATE_HZ)])
    assert cosines(found, expected).min() > 0.9999


def test_a_long_sound_is_the_mean_of_its_windows(saved, sound):
    """A sound longer than the window counts whole: its vector is the mean of its parts', each heard by itself."""
    folder, _, _ = saved("wav2vec2")
    long = np.concatenate(noises([3.0, 3.0, 3.0]))
    encoder = TransformersAudio(TransformersAudioOptions(model=str(folder), window_s=3), Host())
    parts = [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in np.array_split(long, 3)]
    raw = encoder.forward([encoder.prepare(one) for one in [*parts, sound("WAV", "FLOAT", samples=long, rate=RATE_HZ)]])
    np.testing.assert_allclose(raw[3], raw[:3].mean(axis=0), atol=1e-5)


def test_the_rate_of_a_sound_is_brought_to_the_models(saved, sound):
    """A tone recorded at another rate is nearly the same vector."""
    folder, _, _ = saved("hubert")
    encoder = TransformersAudio(TransformersAudioOptions(model=str(folder)), Host())
    recorded = [
        sound("WAV", "FLOAT", samples=0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate), rate=rate)
        for rate in (16_000, 44_100, 8_000)
    ]
    vectors = encode(encoder, recorded)
    assert (vectors @ vectors[0]).min() > 0.999


@pytest.mark.parametrize("name", ["wav2vec2", "ast"])
def test_the_shortest_sounds_have_vectors(saved, sound, name):
    """A click of a few samples is continued with silence, which the models' first layers need."""
    folder, _, _ = saved(name)
    encoder = TransformersAudio(TransformersAudioOptions(model=str(folder)), Host())
    click = np.zeros(40)
    click[3] = 0.8
    vectors = encode(encoder, [sound("WAV", "FLOAT", samples=click, rate=RATE_HZ)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_silence_and_damage_are_refused_as_by_every_encoder(saved, sound):
    """What cannot be heard is refused, with the reason that other encoders give; what is far too loud is clipped."""
    folder, _, _ = saved("wav2vec2")
    encoder = TransformersAudio(TransformersAudioOptions(model=str(folder)), Host())
    infinite = np.full(16_000, 0.1)
    infinite[7] = np.inf
    for data, reason in (
        (b"no sound", "unsupported-format"),
        (sound(samples=np.zeros(16_000)), "silent"),
        (sound("WAV", "FLOAT", samples=infinite), "not-finite"),
    ):
        with pytest.raises(Undecodable) as refused:
            encoder.prepare(data)
        assert refused.value.reason == reason
    loud = np.random.default_rng(1).normal(0, 1e30, 16_000)
    assert np.isfinite(encode(encoder, [sound("WAV", "FLOAT", samples=loud)])).all()


@pytest.mark.parametrize(
    ("samples", "longest_s", "lengths"),
    [(8, 1, [10]), (100, 1, [100]), (101, 1, [51, 50]), (350, 1, [88, 88, 87, 87]), (300, 1.5, [150, 150])],
)
def test_windows_are_few_and_alike(samples, longest_s, lengths):
    """Windows cover a sound once, in its order, and differ by a sample at most."""
    whole = np.arange(samples, dtype=np.float32) + 1
    found = windows(whole, 100, longest_s)
    assert [len(one) for one in found] == lengths
    np.testing.assert_array_equal(np.concatenate(found)[:samples], whole)


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    """A tiny pipeline among torchaudio's, with its file of random weights as torchaudio publishes them."""

    def make(*, normalised, kind="Wav2Vec2"):
        bundle = torchaudio.pipelines.WAV2VEC2_BASE if kind == "Wav2Vec2" else torchaudio.pipelines.WAVLM_BASE
        params = bundle._params | {
            "extractor_conv_layer_config": [(16, 10, 5), (16, 8, 8), (16, 4, 4)],
            "encoder_embed_dim": 24,
            "encoder_num_layers": 2,
            "encoder_num_heads": 4,
            "encoder_ff_interm_features": 32,
            "encoder_pos_conv_kernel": 16,
            "encoder_pos_conv_groups": 4,
            "encoder_layer_drop": 0.0,
        }
        tiny = replace(bundle, _path="tiny.pth", _params=params, _normalize_waveform=normalised, _model_type=kind)
        torch.manual_seed(8)
        factory = torchaudio.models.wav2vec2_model if kind == "Wav2Vec2" else torchaudio.models.wavlm_model
        torch.save(factory(**params).state_dict(), tmp_path / "tiny.pth")
        monkeypatch.setattr(torchaudio.pipelines, "TINY", tiny, raising=False)
        return tiny, TorchaudioOptions(model=str(tmp_path), pipeline="TINY")

    return make


@pytest.mark.parametrize(("normalised", "kind"), [(False, "Wav2Vec2"), (True, "Wav2Vec2"), (False, "WavLM")])
def test_vectors_are_those_of_torchaudio(pipeline, sound, tmp_path, normalised, kind):
    """A pipeline's vectors are its last layer's features averaged over time: cosine 0.9999 and more."""
    bundle, options = pipeline(normalised=normalised, kind=kind)
    model = bundle.get_model(dl_kwargs={"model_dir": str(tmp_path), "weights_only": True}).eval()
    samples = noises([1.0, 0.6, 1.0])
    with torch.inference_mode():
        expected = [model.extract_features(torch.from_numpy(one)[None])[0][-1][0].mean(dim=0) for one in samples]
    encoder = build(options, Host())
    assert isinstance(encoder, TorchaudioPipeline)
    found = encode(encoder, [sound("WAV", "FLOAT", samples=one, rate=RATE_HZ) for one in samples])
    assert cosines(found, np.array(expected)).min() > 0.9999


def test_what_is_known_before_loading_is_what_is_loaded(saved, pipeline):
    """Dimension and fingerprint are known without loading, differ with all that matters, and are those loaded."""
    folder, _, _ = saved("wav2vec2")
    options = TransformersAudioOptions(model=str(folder))
    _, of_pipeline = pipeline(normalised=False)
    others = [
        options,
        options.model_copy(update={"window_s": 5.0}),
        TransformersAudioOptions(model=str(saved("hubert")[0])),
        of_pipeline,
        of_pipeline.model_copy(update={"window_s": 5.0}),
    ]
    known = [identity(one) for one in others]
    assert len({one.fingerprint for one in known}) == len(others)
    for one, before in zip(others, known, strict=True):
        encoder = build(one, Host())
        assert (encoder.dimension, encoder.fingerprint) == (before.dimension, before.fingerprint)


def test_models_that_cannot_be_used_are_refused_with_what_to_do(saved, pipeline, tmp_path):
    """An unknown pipeline, a missing or foreign file, a model of texts, lost weights: each is a clear error."""
    _, options = pipeline(normalised=False)
    folder, _, _ = saved("wav2vec2")
    text, deaf, torn = tmp_path / "text", tmp_path / "deaf", tmp_path / "torn"
    transformers.BertModel(transformers.BertConfig(vocab_size=30, **TINY)).save_pretrained(text)
    shutil.copytree(folder, deaf)
    (deaf / "preprocessor_config.json").unlink()
    shutil.copytree(folder, torn)
    weights = load_file(torn / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, torn / "model.safetensors", metadata={"format": "pt"})
    cases = {
        "no pipeline CONVTASNET": options.model_copy(update={"pipeline": "CONVTASNET_BASE_LIBRI2MIX"}),
        "has no tiny.pth": options.model_copy(update={"model": str(text)}),
        "not all of the model's: encoder.layers.1": TransformersAudioOptions(model=str(torn)),
        "FeatureExtractor in": TransformersAudioOptions(model=str(deaf)),
        "The FeatureExtractor": TransformersAudioOptions(model=str(text)),
    }
    for words, case in cases.items():
        with pytest.raises(ConfigurationError, match=words) as refused:
            build(case, Host())
        assert refused.value.hint, words
    (tmp_path / "tiny.pth").write_bytes(b"no tensors")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        build(options, Host())


def test_log_mel_statistics_are_those_of_torchaudio(sound):
    """The statistics are mean and deviation of the logarithms of torchaudio's mel bands, of the sound at one level."""
    samples = noises([1.0])[0]
    level = samples - samples.mean()
    level *= 0.1 / np.sqrt(np.mean(level**2))
    bands = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, n_fft=1_024, hop_length=256, n_mels=64, f_min=50.0, pad_mode="constant"
    )(torch.from_numpy(level))
    loudness = torch.log(bands + 1e-6)
    expected = torch.cat([loudness.mean(dim=1), loudness.std(dim=1, correction=0)]).numpy()[None]
    encoder = LogMelStatistics(LogMelOptions(), Host())
    found = encode(encoder, [sound("WAV", "FLOAT", samples=samples, rate=RATE_HZ)])
    assert found.shape == (1, encoder.dimension)
    assert cosines(found, expected).min() > 0.9999


def test_features_of_sounds_find_their_kind(real_data, mfcc_statistics, measured):
    """On 160 real sounds of ten classes, neighbours from other recordings are mostly of the same class.

    Measured, and where only the other fold may answer: MFCC 0.76 and 0.66; log-mel 0.61 and 0.53; chance is 0.10.
    """
    files = real_data("esc10", "*/*.ogg")
    classes = np.array([file.parent.name for file in files])
    recordings = np.array([file.stem.rsplit("-", 1)[0] for file in files])
    folds = np.array([file.stem.split("-")[0] for file in files])
    sounds = [file.read_bytes() for file in files]
    for name, encoder, floor in (
        ("MFCC", mfcc_statistics, 0.55),
        ("log-mel", LogMelStatistics(LogMelOptions(), Host()), 0.45),
    ):
        vectors = encode(encoder, sounds)
        accuracies = []
        for group in (np.arange(len(files)), recordings, folds):
            similarity = np.where(group[:, None] == group[None, :], -1, vectors @ vectors.T)
            accuracies.append((classes[similarity.argmax(axis=1)] == classes).mean())
        measured(
            f"ESC-10, {name}, nearest neighbour: {accuracies[0]:.2f}; of other recordings {accuracies[1]:.2f}, "
            f"of the other fold {accuracies[2]:.2f}"
        )
        assert min(accuracies) > floor
