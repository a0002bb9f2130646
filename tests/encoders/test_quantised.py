"""Weights of eight bits: another model, near the first."""

import numpy as np
import pytest

from penchant.encoders.base import Host
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.quantised import quantised
from penchant.encoders.registry import build, identity
from penchant.errors import ConfigurationError

TEXTS = [
    "A heist film set in Lisbon, with an ensemble cast.",
    "Jazz",
    "How do I train a puppy not to bite?",
    "tax law of Norway",
    "a funny film with a pair of police officers",
    "a comedy about two detectives",
]


def encode(encoder, texts):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in texts]))


def test_eight_bits_are_near_and_known_for_what_they_are(minilm):
    """Vectors are near those of float32, and never mixed with them: the fingerprint is another."""
    options = MiniLMOptions(dtype="int8")
    assert identity(options).fingerprint != identity(MiniLMOptions()).fingerprint
    encoder = build(options, Host())
    assert encoder.fingerprint == identity(options).fingerprint
    exact, found = encode(minilm, TEXTS), encode(encoder, TEXTS)
    assert (exact * found).sum(axis=1).min() > 0.96
    assert not np.allclose(exact, found, atol=1e-4)
    assert found[5] @ found[4] > found[5] @ found[3] + 0.2


def test_eight_bits_are_for_processors(minilm):
    """Asked for on another device, they are refused, with what to do."""
    with pytest.raises(ConfigurationError, match=r"encoders\.device"):
        quantised(minilm, "cuda")
