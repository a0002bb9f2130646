import asyncio
import sys
import threading

import numpy as np
import pytest

from penchant.encoders import embedder as module
from penchant.encoders.audio import MfccStatistics
from penchant.encoders.base import fingerprint
from penchant.encoders.embedder import Content, Embedder, space
from penchant.encoders.image import ColourShape
from penchant.encoders.options.audio import MfccOptions
from penchant.encoders.options.image import ColourShapeOptions
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.text import MiniLM
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

MODALITIES = ["text", "image", "audio"]
DEFAULTS = ((MiniLM, MiniLMOptions()), (ColourShape, ColourShapeOptions()), (MfccStatistics, MfccOptions()))


@pytest.fixture
async def embedder(settings):
    """An embedder of its own, closed afterwards."""
    async with Embedder(settings) as embedder:
        yield embedder


async def test_contents_become_unit_vectors_in_order(embedder, picture, sound):
    """Each content has a unit vector for each modality that it has, and for no other."""
    contents = [
        Content(text="a red disc", images=(picture(),), sounds=(sound(),)),
        Content(text="a red disc"),
        Content(images=(picture(),)),
        Content(sounds=(sound(),)),
        Content(text=" \n\t"),
        Content(),
    ]
    results = await embedder.embed(contents)
    assert [list(result.slices) for result in results] == [MODALITIES, ["text"], ["image"], ["audio"], [], []]
    for result in results:
        assert result.refusals == ()
        for modality, vector in result.slices.items():
            assert vector.shape == (embedder.dimensions[modality],)
            assert vector.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)
            np.testing.assert_allclose(vector, results[0].slices[modality], atol=1e-6)


async def test_nothing_is_embedded_from_nothing(embedder):
    """No contents, no results."""
    assert await embedder.embed([]) == []


async def test_a_corrupt_input_changes_nothing_for_its_neighbours(embedder, picture, sound):
    """What cannot be used is refused with modality and reason; everything beside it is embedded as if alone."""
    good = Content(text="a lake", images=(picture(),), sounds=(sound(),))
    mixed = Content(text="\u200b", images=(b"no picture", picture()), sounds=(sound()[:1_000], b""))
    alone = (await embedder.embed([good]))[0]
    before, bad, after = await embedder.embed([good, mixed, good])
    assert [(refusal.modality, refusal.reason) for refusal in bad.refusals] == [
        ("text", "empty"),
        ("image", "unsupported-format"),
        ("audio", "corrupt"),
        ("audio", "empty"),
    ]
    assert list(bad.slices) == ["image"]
    np.testing.assert_allclose(bad.slices["image"], alone.slices["image"], atol=1e-5)
    for result in (before, after):
        assert result.refusals == ()
        for modality in MODALITIES:
            np.testing.assert_allclose(result.slices[modality], alone.slices[modality], atol=1e-5)


async def test_a_modality_may_be_absent_everywhere_or_refused_everywhere(embedder):
    """A batch with no usable picture or sound at all is no special case."""
    results = await embedder.embed([Content(images=(b"?",)), Content(sounds=(b"?",)), Content(text="a word")])
    assert [list(result.slices) for result in results] == [[], [], ["text"]]
    assert [len(result.refusals) for result in results] == [1, 1, 0]


async def test_several_pictures_are_their_mean_direction(embedder, picture):
    """A content with several pictures has the normalised mean of their unit vectors."""
    first, second = picture(hue=0), picture("JPEG", hue=250)
    one, other, both = await embedder.embed(
        [Content(images=(first,)), Content(images=(second,)), Content(images=(first, second))]
    )
    mean = one.slices["image"] + other.slices["image"]
    np.testing.assert_allclose(both.slices["image"], mean / np.linalg.norm(mean), atol=1e-6)


async def test_more_inputs_than_one_pass_takes_keep_their_order(embedder, picture):
    """Inputs beyond what waits for one pass come out with their own contents."""
    pictures = [picture(hue=hue) for hue in range(ColourShape.ahead + 5)]
    together = await embedder.embed([Content(images=(one,)) for one in pictures])
    last = (await embedder.embed([Content(images=(pictures[-1],))]))[0]
    np.testing.assert_allclose(together[-1].slices["image"], last.slices["image"], atol=1e-5)


async def test_forward_runs_once_per_distinct_input_in_one_thread_off_the_loop(embedder, picture, monkeypatch):
    """Equal inputs, also of calls at one time, are encoded once, in the device's thread and not the loop's."""
    seen = []
    original = ColourShape.forward

    def recording(self, batch):
        seen.append((threading.get_ident(), len(batch)))
        return original(self, batch)

    monkeypatch.setattr(ColourShape, "forward", recording)
    contents = [Content(images=(picture(), picture()))] * 10
    await asyncio.gather(embedder.embed(contents), embedder.embed(contents))
    assert [size for _, size in seen] == [1]
    assert len({thread for thread, _ in seen} | {threading.get_ident()}) == 2


async def test_the_same_picture_is_encoded_once(embedder, picture, monkeypatch):
    """What was encoded lately comes from memory, also after a pass that failed; without room for it, it does not."""
    passes = []
    original = ColourShape.forward

    def recording(self, batch):
        passes.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(ColourShape, "forward", recording)
    content = Content(images=(picture(),))
    [first] = await embedder.embed([content])
    [again] = await embedder.embed([content])
    assert passes == [1]
    np.testing.assert_array_equal(first.slices["image"], again.slices["image"])
    async with Embedder(EncoderSettings(cache_bytes=0)) as forgetful:
        await forgetful.embed([content])
        await forgetful.embed([content])
    assert passes == [1, 1, 1]


async def test_whoever_stops_waiting_takes_nothing_from_others(embedder, picture):
    """Of two who asked for the same picture one may be cancelled: the other has its vector."""
    content = Content(images=(picture(hue=13),))
    await embedder.warm_up()
    impatient = asyncio.create_task(embedder.embed([content]))
    patient = asyncio.create_task(embedder.embed([content]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    impatient.cancel()
    assert list((await patient)[0].slices) == ["image"]
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_failing_forward_pass_reaches_the_caller(embedder, picture, monkeypatch):
    """A forward pass that fails is no input's fault: its exception is raised, and no refusal made of it."""

    def failing(self, batch):
        raise RuntimeError("the device is lost")

    with monkeypatch.context() as patch:
        patch.setattr(ColourShape, "forward", failing)
        with pytest.raises(RuntimeError, match="the device is lost"):
            await embedder.embed([Content(text="a word", images=(picture(),))])
    assert list((await embedder.embed([Content(images=(picture(),))]))[0].slices) == ["image"]


async def test_warming_up_encodes_every_modality(embedder):
    """The warm-up's example is usable in all modalities."""
    await embedder.warm_up()
    [result] = await embedder.embed([module.example()])
    assert list(result.slices) == MODALITIES


async def test_a_missing_optional_part_is_told(settings, monkeypatch):
    """Without the optional part the embedder says what to install, as soon as it is warmed up."""
    monkeypatch.setitem(sys.modules, "skimage.color", None)
    async with Embedder(settings) as embedder:
        with pytest.raises(ConfigurationError) as refused:
            await embedder.warm_up()
    assert 'pip install "penchant[encoders]"' in str(refused.value)


async def test_limits_come_from_the_settings(picture, sound):
    """The bounds on pixels and seconds are those of the settings."""
    async with Embedder(EncoderSettings(max_pixels=100, max_audio_s=1, threads=1)) as embedder:
        [result] = await embedder.embed([Content(images=(picture(),), sounds=(sound(),))])
    assert [refusal.reason for refusal in result.refusals] == ["too-large", "too-large"]


def test_the_space_is_known_without_the_models(settings):
    """Dimensions and fingerprints are in slice order, and those of the encoders themselves."""
    identities = [kind.identify(options) for kind, options in DEFAULTS]
    known = space(settings)
    assert list(known.dimensions) == list(known.fingerprints) == MODALITIES
    assert list(known.dimensions.values()) == [one.dimension for one in identities]
    assert Embedder(settings).fingerprints == dict(
        zip(MODALITIES, [one.fingerprint for one in identities], strict=True)
    )


def test_fingerprints_are_stable(settings):
    """Vectors in stores rely on these: whoever changes what an encoder computes changes its fingerprint here too."""
    assert space(settings).fingerprints == {
        "text": "635d80eb4d68d115",
        "image": "05d5da6b601b9372",
        "audio": "631e6402fb395439",
    }


def test_fingerprints_are_sensitive():
    """Any part that differs, in value, order or type, gives another fingerprint."""
    parts = [("a", 1), ("a", 2), (1, "a"), ("a", "1"), ("a", 1.5), ("a",), ()]
    assert len({fingerprint(*some) for some in parts}) == len(parts)
    assert fingerprint("a", 1) == fingerprint("a", 1)
