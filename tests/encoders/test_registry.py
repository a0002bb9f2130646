"""From settings to encoders: slots, pins, and slices that modalities share."""

import numpy as np
import pytest

from penchant.encoders import registry
from penchant.encoders.base import FixedEncoder, Host, Identity, JointEncoder
from penchant.encoders.embedder import Content, Embedder, space
from penchant.encoders.options.joint import ClipOptions
from penchant.encoders.options.text import TransformerTextOptions
from penchant.encoders.registry import build, identity, slots
from penchant.errors import ConfigurationError
from penchant.parts import fusion_of, worker_space
from penchant.settings import EncoderSettings, load_settings

FINGERPRINT = "0123456789abcdef"
JOINED = {
    "text": {"kind": "joint"},
    "image": {"kind": "joint"},
    "joint": {"kind": "clip", "model": "/nowhere", "pin": f"{FINGERPRINT}:2"},
}


class Letters(FixedEncoder):
    """A tower of the joint encoder: what it was built with, whatever the input."""

    dimension = 2
    fingerprint = FINGERPRINT

    def __init__(self, direction):
        self._direction = direction

    def prepare(self, one):
        """Anything."""
        return one

    def forward(self, batch):
        """The same direction for all."""
        return np.array([self._direction] * len(batch), np.float32)

    def finish(self, raw):
        """As it is."""
        return raw


class Pair(JointEncoder):
    """A joint encoder without a model: texts point one way, pictures another."""

    dimension = 2
    fingerprint = FINGERPRINT

    def __init__(self, _options, _host):
        self.towers = {"text": Letters([1, 0]), "image": Letters([0, 1])}

    @classmethod
    def identify(cls, _options):
        """Its own."""
        return Identity(dimension=cls.dimension, fingerprint=cls.fingerprint)


@pytest.fixture
def pair(monkeypatch):
    """Has `Pair` encode whatever is joint."""
    monkeypatch.setattr(
        registry,
        "encoder_class",
        lambda options, known=registry.encoder_class: Pair if isinstance(options, ClipOptions) else known(options),
    )


def test_a_pin_is_enough_where_the_model_is_not():
    """A process that embeds nothing knows dimension and fingerprint from the settings; without them it is told how."""
    assert identity(TransformerTextOptions(model="/nowhere", pin=f"{FINGERPRINT}:384")) == Identity(
        dimension=384, fingerprint=FINGERPRINT
    )
    with pytest.raises(ConfigurationError, match="pin"):
        identity(TransformerTextOptions(model="/nowhere"))


@pytest.mark.usefixtures("pair")
def test_a_model_other_than_the_one_pinned_is_refused():
    """Whoever loads the model compares."""
    options = ClipOptions(model="/nowhere", pin="fedcba9876543210:2")
    with pytest.raises(ConfigurationError, match="fedcba9876543210:2 is pinned"):
        build(options, Host())


def test_modalities_of_one_model_share_a_slice():
    """The joint slice stands where its first modality does, with the shares of all."""
    settings = EncoderSettings(**JOINED)
    assert [(slot.name, slot.modalities) for slot in slots(settings)] == [
        ("joint", ("text", "image")),
        ("audio", ("audio",)),
    ]
    known = space(settings)
    assert known.dimensions == {"joint": 2, "audio": 90}
    assert known.shares({"text": 0.5, "image": 0.3, "audio": 0.2}) == {"joint": 0.8, "audio": 0.2}


def test_a_workers_space_has_the_joint_slice(tmp_path, monkeypatch):
    """Workers open their store with it, whether they have the model or not."""
    monkeypatch.chdir(tmp_path)
    found = worker_space(load_settings(encoders=JOINED))
    assert [(part.name, part.dimension, part.share) for part in found.slices] == [
        ("joint", 2, 0.8),
        ("audio", 90, 0.2),
        ("graph", 64, 0.4),
    ]


@pytest.mark.usefixtures("pair")
async def test_a_text_and_a_picture_of_one_item_meet_in_one_slice(picture):
    """Each alone is where the model puts it, so that one finds the other; together they are their mean direction."""
    async with Embedder(EncoderSettings(**JOINED)) as embedder:
        text, image, both = await embedder.embed(
            [Content(text="a"), Content(images=(picture(),)), Content(text="a", images=(picture(),))]
        )
    assert text.slices["joint"].tolist() == [1, 0]
    assert image.slices["joint"].tolist() == [0, 1]
    assert both.slices["joint"] == pytest.approx([0.5**0.5, 0.5**0.5])


def test_formulas_of_modalities_need_slices_of_their_own(tmp_path, monkeypatch):
    """What names text and image apart cannot rank by a slice of both: a worker says so at its start."""
    monkeypatch.chdir(tmp_path)
    for mode in ("weighted", "average", "concat", "attention"):
        settings = load_settings(encoders=JOINED, fusion={"mode": mode})
        assert fusion_of(settings, worker_space(settings)) is not None
    settings = load_settings(encoders=JOINED, fusion={"mode": "U"})
    with pytest.raises(ConfigurationError, match="joint"):
        fusion_of(settings, worker_space(settings))
