import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from typer.testing import CliRunner

from penchant.cli import app
from penchant.encoders.base import Host, Undecodable
from penchant.encoders.image import ColourHistogram, OrientedGradients
from penchant.encoders.options.image import ColourHistogramOptions, OrientedGradientsOptions, SiftWordsOptions
from penchant.encoders.registry import build, identity
from penchant.encoders.sift import SiftWords, fit_vocabulary, load_vocabulary, save_vocabulary
from penchant.errors import ConfigurationError

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png")


def photos():
    """Photographs that come with scikit-image, encoded; the last two of one scene, by two eyes."""
    return [(Path(skimage.__file__).parent / "data" / name).read_bytes() for name in PHOTOS]


def encode(encoder, pictures):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in pictures]))


def turned(picture):
    """A picture upside down, half as large and paler."""
    changed = Image.open(io.BytesIO(picture)).convert("RGB").rotate(180)
    changed = changed.resize((changed.width // 2, changed.height // 2)).point(lambda value: 60 + value * 0.7)
    encoded = io.BytesIO()
    changed.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A file of 64 words, of the photographs."""
    path = tmp_path_factory.mktemp("vocabulary") / "words.npy"
    save_vocabulary(fit_vocabulary(photos(), words=64, host=Host()), path)
    return path


@pytest.fixture(scope="module", params=["histogram", "hog", "sift"])
def encoder(request, vocabulary):
    """Each of the encoders without a network."""
    return {
        "histogram": lambda: ColourHistogram(ColourHistogramOptions(), Host()),
        "hog": lambda: OrientedGradients(OrientedGradientsOptions(), Host()),
        "sift": lambda: SiftWords(SiftWordsOptions(vocabulary=vocabulary), Host()),
    }[request.param]()


def test_a_picture_has_one_unit_vector_whatever_its_batch(encoder):
    """Alone or in a batch a photograph has the same unit vector of float32, time and again."""
    together = encode(encoder, photos())
    assert together.dtype == np.float32
    assert together.shape == (len(PHOTOS), encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, np.vstack([encode(encoder, [one]) for one in photos()]), atol=1e-6)


def test_two_views_of_a_scene_are_nearest_to_each_other(encoder):
    """Of six photographs, the two of one scene are each other's nearest."""
    vectors = encode(encoder, photos())
    similarity = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert similarity[4].argmax() == 5
    assert similarity[5].argmax() == 4


def test_hostile_bytes_are_refused(encoder):
    """What is no picture is refused with a reason, not with another error."""
    for data in (b"", b"no picture", photos()[0][:5_000]):
        with pytest.raises(Undecodable):
            encoder.prepare(data)


def test_visual_words_know_a_picture_turned_and_pale(vocabulary):
    """A photograph upside down, half as large and pale is nearest to itself: what counts is the patterns in it."""
    encoder = SiftWords(SiftWordsOptions(vocabulary=vocabulary), Host())
    upright = encode(encoder, photos()[:5])
    upside_down = encode(encoder, [turned(one) for one in photos()[:5]])
    assert ((upside_down @ upright.T).argmax(axis=1) == np.arange(5)).all()


@pytest.mark.parametrize("size", [(60, 40), (1, 1), (4_000, 1), (1, 500)])
def test_a_picture_without_features_says_so(vocabulary, size):
    """A picture of one colour, of whatever shape, has no point that stands out."""
    encoder = SiftWords(SiftWordsOptions(vocabulary=vocabulary), Host())
    flat = io.BytesIO()
    Image.new("RGB", size, "teal").save(flat, "PNG")
    with pytest.raises(Undecodable) as refused:
        encoder.prepare(flat.getvalue())
    assert refused.value.reason == "featureless"


def test_the_same_pictures_give_the_same_vocabulary(vocabulary):
    """Fitting draws from a seed: the same pictures give the same words, and another seed gives others."""
    again = fit_vocabulary(photos(), words=64, host=Host())
    np.testing.assert_array_equal(load_vocabulary(vocabulary), again)
    assert not np.array_equal(fit_vocabulary(photos(), words=64, host=Host(), seed=1), again)


def test_a_vocabulary_is_part_of_the_fingerprint(vocabulary, tmp_path):
    """Another vocabulary is another encoder, known before it is built."""
    other = tmp_path / "other.npy"
    save_vocabulary(load_vocabulary(vocabulary)[:48], other)
    options = [SiftWordsOptions(vocabulary=path) for path in (vocabulary, other)]
    known = [identity(one) for one in options]
    assert [one.dimension for one in known] == [64, 48]
    assert known[0].fingerprint != known[1].fingerprint
    assert build(options[0], Host()).fingerprint == known[0].fingerprint


def test_a_vocabulary_is_written_by_a_command(tmp_path, monkeypatch):
    """`penchant encoders vocabulary` finds words in a folder, passes over what is no picture, and tells errors."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures" / "below"
    folder.mkdir(parents=True)
    for name, picture in zip(PHOTOS, photos(), strict=True):
        (folder / name).write_bytes(picture)
    (folder / "notes.txt").write_text("no picture")
    command = ["encoders", "vocabulary", "pictures", "--words", "64", "--output", "found.npy"]
    assert CliRunner().invoke(app, command).exit_code == 0
    expected = fit_vocabulary([(folder / name).read_bytes() for name in sorted(PHOTOS)], words=64, host=Host())
    np.testing.assert_array_equal(load_vocabulary(tmp_path / "found.npy"), expected)
    for wrong, words in (
        (["nowhere"], "no files"),
        (["pictures", "--words", "64", "--output", "nowhere/found.npy"], "cannot be written"),
        (["pictures", "--words", "4096"], "less than 4096 words"),
    ):
        result = CliRunner().invoke(app, ["encoders", "vocabulary", *wrong])
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())


def test_what_is_no_vocabulary_is_refused_with_what_to_do(tmp_path):
    """A missing file, pickled objects, an array of another shape, and too few pictures are clear errors."""
    pickled, square = tmp_path / "pickled.npy", tmp_path / "square.npy"
    np.save(pickled, np.array([{"an": "object"}]), allow_pickle=True)
    np.save(square, np.zeros((3, 3), np.float32))
    for path in (tmp_path / "nothing.npy", pickled, square):
        with pytest.raises(ConfigurationError, match="holds no vocabulary"):
            identity(SiftWordsOptions(vocabulary=path))
    with pytest.raises(ConfigurationError, match="less than 9999 words"):
        fit_vocabulary([*photos()[:1], b"no picture"], words=9_999, host=Host())


@pytest.mark.parametrize(("name", "floor"), [("histogram", 0.2), ("hog", 0.27), ("sift", 0.12)])
def test_classical_features_find_their_kind(real_data, measured, tmp_path, name, floor):
    """On natural images each tells classes apart better than chance; visual words hardly, at 32 by 32 pixels.

    Measured: colours 0.25, gradients 0.32, and visual words on half of the images 0.20; chance is 0.10.
    """
    files = real_data("cifar10-sample", "*/*.jpg")[:: 2 if name == "sift" else 1]
    classes = np.array([file.parent.name for file in files])
    pictures = [file.read_bytes() for file in files]
    if name == "sift":
        save_vocabulary(fit_vocabulary(pictures[::4], words=128, host=Host()), tmp_path / "words.npy")
    options = {
        "histogram": ColourHistogramOptions(),
        "hog": OrientedGradientsOptions(),
        "sift": SiftWordsOptions(vocabulary=tmp_path / "words.npy"),
    }[name]
    encoder = build(options, Host())
    usable, prepared = [], []
    for index, picture in enumerate(pictures):
        with contextlib.suppress(Undecodable):  # a few have no point that stands out
            prepared.append(encoder.prepare(picture))
            usable.append(index)
    assert len(usable) > 0.9 * len(pictures)
    vectors = encoder.finish(encoder.forward(prepared))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    accuracy = (classes[usable][similarity.argmax(axis=1)] == classes[usable]).mean()
    measured(f"CIFAR-10 sample, {name}, nearest neighbour: {accuracy:.2f}")
    assert accuracy > floor
