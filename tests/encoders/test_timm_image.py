import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.embedder import Content, Embedder
from penchant.encoders.options.image import TimmOptions
from penchant.encoders.registry import build, identity
from penchant.encoders.timm_image import TimmFeatures
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
# Of the families' true shape, as small as they come.
SMALL = {
    "mobilenetv3_small_050": {},
    "resnet10t": {},
    "vit_tiny_patch16_224": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
}


def photos():
    """Photographs that come with scikit-image, encoded."""
    return [(Path(skimage.__file__).parent / "data" / name).read_bytes() for name in PHOTOS]


def encode(encoder, pictures):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in pictures]))


def upstream(model, data_config, pictures):
    """What timm itself makes of pictures, unit length."""
    transform = timm.data.create_transform(**data_config, is_training=False)
    opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in pictures]
    with torch.inference_mode():
        features = model.eval()(torch.stack([transform(one) for one in opened])).numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.fixture
def saved(tmp_path):
    """Saves a model with random weights to a folder, as timm does."""

    def save(name, **arguments):
        torch.manual_seed(5)
        model = timm.create_model(name, **arguments)
        for statistics in model.modules():  # as if it were trained, else to normalise by batch does nothing
            if hasattr(statistics, "running_var"):
                statistics.running_var.uniform_(0.5, 1.5)
                statistics.running_mean.normal_(0, 0.1)
        timm.models.save_for_hf(model, tmp_path / name, safe_serialization=True, model_args=arguments)
        return tmp_path / name, model

    return save


@pytest.mark.parametrize("name", SMALL)
def test_vectors_are_those_of_timm(saved, name):
    """A CNN or a ViT from a folder gives timm's pooled features, by timm's transform: cosine 0.9999 and more."""
    folder, model = saved(name, **SMALL[name])
    model.reset_classifier(0)
    encoder = TimmFeatures(TimmOptions(model=str(folder)), Host())
    expected = upstream(model, timm.data.resolve_model_data_config(model), photos())
    found = encode(encoder, photos())
    assert found.shape == (len(PHOTOS), encoder.dimension)
    assert (found * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_large_photograph_is_read_in_full(saved):
    """A photograph of nine megapixels gives timm's features too: nothing is shrunk beforehand."""
    folder, model = saved("mobilenetv3_small_050")
    model.reset_classifier(0)
    large = io.BytesIO()
    Image.open(io.BytesIO(photos()[0])).resize((3_000, 3_000)).save(large, "JPEG")
    encoder = TimmFeatures(TimmOptions(model=str(folder)), Host())
    expected = upstream(model, timm.data.resolve_model_data_config(model), [large.getvalue()])
    assert encode(encoder, [large.getvalue()])[0] @ expected[0] > 0.9999


async def test_an_embedder_gives_the_same_whole_or_refuses(saved):
    """Through the processes that decode, and in batches, vectors are the same; what is no picture is refused."""
    folder, _ = saved("mobilenetv3_small_050")
    options = TimmOptions(model=str(folder))
    expected = encode(TimmFeatures(options, Host()), photos())
    async with Embedder(EncoderSettings(image=options)) as embedder:
        found = await embedder.embed([Content(images=(one,)) for one in (*photos(), b"no picture")])
    for one, wanted in zip(found, expected, strict=False):
        np.testing.assert_allclose(one.slices["image"], wanted, atol=1e-5)
    assert [refusal.reason for refusal in found[-1].refusals] == ["unsupported-format"]


def test_what_is_known_before_loading_is_what_is_loaded(saved):
    """Dimension and fingerprint are known without weights, and are those of the encoder that is built."""
    for name, arguments in SMALL.items():
        options = TimmOptions(model=str(saved(name, **arguments)[0]))
        before = identity(options)
        encoder = build(options, Host())
        assert (encoder.dimension, encoder.fingerprint) == (before.dimension, before.fingerprint)
        assert len(encode(encoder, photos()[:1])[0]) == before.dimension


def test_what_changes_a_vector_changes_the_fingerprint(saved):
    """Other weights, another crop or another mean are another encoder."""
    folder, _ = saved("mobilenetv3_small_050")
    options = TimmOptions(model=str(folder))
    others = [
        options.model_copy(update=one) for one in ({"crop_pct": 0.9}, {"mean": (0.5, 0.5, 0.5)}, {"input_size": 96})
    ]
    fingerprints = [identity(one).fingerprint for one in (options, *others)]
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, folder / "model.safetensors")
    fingerprints.append(identity(options).fingerprint)
    assert len(set(fingerprints)) == len(fingerprints)


def test_weights_alone_are_enough_where_the_architecture_is_named(saved, tmp_path):
    """A file of weights without a description is of the architecture that the options name, with its arguments."""
    folder, model = saved("mobilenetv3_small_050")
    alone = tmp_path / "alone.safetensors"
    shutil.copy(folder / "model.safetensors", alone)
    named = TimmOptions(model=str(alone), architecture="mobilenetv3_small_050")
    model.reset_classifier(0)
    expected = upstream(model, timm.data.resolve_model_data_config(model), photos())
    assert (encode(TimmFeatures(named, Host()), photos()) * expected).sum(axis=1).min() > 0.9999
    assert len(encode(TimmFeatures(named.model_copy(update={"input_size": 96}), Host()), photos())) == len(PHOTOS)


def test_models_that_cannot_be_used_are_refused_with_what_to_do(saved, tmp_path):
    """Pickled weights, an unknown or another architecture, a missing description, a folder's commit: all are errors."""
    folder, _ = saved("mobilenetv3_small_050")
    pickled, bare = tmp_path / "pickled", tmp_path / "bare"
    for copy in (pickled, bare):
        shutil.copytree(folder, copy)
    (bare / "config.json").unlink()
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"no tensors")
    foreign = tmp_path / "foreign"
    shutil.copytree(folder, foreign)
    (foreign / "config.json").write_text(json.dumps({"architecture": "hf-hub:someone/model"}))
    cases = {
        "Only safetensors": TimmOptions(model=str(pickled)),
        "there is no config.json": TimmOptions(model=str(bare)),
        "cannot make": TimmOptions(model=str(bare), architecture="no_such_model"),
        "timm cannot make the image model": TimmOptions(model=str(bare), architecture="resnet10t"),
        "is no folder": TimmOptions(model=str(tmp_path / "nothing")),
        "timm cannot": TimmOptions(model=str(damaged)),
        "timm cannot make": TimmOptions(model=str(foreign)),
        "has no revisions": TimmOptions(model=str(folder), revision="0" * 40),
        "model.safetensors lies on the disk": TimmOptions(
            model=str(folder / "model.safetensors"), architecture="mobilenetv3_small_050", revision="0" * 40
        ),
    }
    for words, options in cases.items():
        with pytest.raises(ConfigurationError, match=words) as refused:
            TimmFeatures(options, Host())
        assert refused.value.hint, words


def test_a_hairline_is_refused(saved):
    """A picture far longer than wide would become gigabytes when its shorter side is resized."""
    folder, _ = saved("mobilenetv3_small_050")
    encoder = TimmFeatures(TimmOptions(model=str(folder)), Host())
    line = io.BytesIO()
    Image.new("RGB", (60_000, 2), "red").save(line, "PNG")
    with pytest.raises(Undecodable) as refused:
        encoder.prepare(line.getvalue())
    assert refused.value.reason == "too-large"


def test_trained_features_find_their_kind(real_data, shared_data, measured):
    """MobileNetV2's features of natural images are timm's, and tell classes apart far better than pixels do.

    Measured: 0.46, with 39 images a class to compare with; with 150 it is 0.57.
    """
    files = real_data("cifar10-sample", "*/*.jpg")
    classes = np.array([file.parent.name for file in files])
    folder = shared_data / "mobilenetv2_100"
    half = (0.5, 0.5, 0.5)
    options = TimmOptions(
        model=str(folder), architecture="mobilenetv2_100", arguments={"pad_type": "same"}, mean=half, std=half
    )
    encoder = build(options, Host())
    pictures = [file.read_bytes() for file in files]
    vectors = np.concatenate([encode(encoder, pictures[start : start + 25]) for start in range(0, len(pictures), 25)])
    model = timm.create_model("mobilenetv2_100", pad_type="same")
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.reset_classifier(0)
    data_config = timm.data.resolve_model_data_config(model) | {"mean": half, "std": half}
    assert (vectors[::20] * upstream(model, data_config, pictures[::20])).sum(axis=1).min() > 0.9999
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    accuracy = (classes[similarity.argmax(axis=1)] == classes).mean()
    measured(f"CIFAR-10 sample, MobileNetV2 features, nearest neighbour: {accuracy:.2f}")
    assert accuracy > 0.41
