"""What is published of a graph is taken as it is meant, or refused with a reason."""

import msgspec
import numpy as np
import pytest

from penchant.profile.entities import GraphModel
from penchant.streams.codec import Unusable, encode
from penchant.streams.entities import MODEL_KEY, model_event, model_in, vector_event, vector_in
from penchant.streams.records import Record

NAME = "0123456789abcdef"
VECTOR = np.array([1, 2, 3, 4], np.float32)


def record(value, key=MODEL_KEY):
    """A record of either topic."""
    return Record(topic="t", partition=0, offset=5, timestamp=7, key=key, value=value)


def model(**changes):
    """A model as it is published."""
    found = GraphModel(
        fingerprint=NAME,
        operation="multiply",
        mean=VECTOR,
        components=np.eye(4, dtype=np.float32)[:3],
        forward={"r": VECTOR},
        backward={"r": -VECTOR},
    )
    return msgspec.structs.replace(model_event(found), **changes)


def test_a_vector_arrives_as_it_was_sent():
    """With the version of its record; a null value takes back the one that the key names."""
    found = vector_in(record(encode(vector_event("ada", NAME, VECTOR)), b"ada"))
    assert (found.entity, found.model, found.version) == ("ada", NAME, (7, 5))
    np.testing.assert_array_equal(found.vector, VECTOR)
    gone = vector_in(record(None, b"ada"))
    assert (gone.entity, gone.model) == ("ada", "")


def test_a_model_arrives_as_it_was_sent():
    """Projection and relations; a null value: from now on there is none."""
    found = model_in(record(encode(model())), 3)
    assert (found.fingerprint, found.operation) == (NAME, "multiply")
    np.testing.assert_array_equal(found.components, np.eye(4)[:3])
    np.testing.assert_array_equal(found.backward["r"], -VECTOR)
    assert model_in(record(None), 3) is None


@pytest.mark.parametrize(
    ("event", "key", "reason"),
    [
        (vector_event("ada", NAME, VECTOR), b"bob", "key-mismatch"),
        (None, None, "key-mismatch"),
        (None, b"\xff", "key-mismatch"),
        (vector_event("ada", "no fingerprint", VECTOR), b"ada", "invalid"),
        (vector_event("ada", NAME, VECTOR[:0]), b"ada", "invalid"),
        (vector_event("ada", NAME, np.array([np.nan], np.float32)), b"ada", "invalid"),
        (msgspec.structs.replace(vector_event("ada", NAME, VECTOR), vector=b"12345"), b"ada", "invalid"),
        (vector_event("ada", NAME, np.zeros(9_000, np.float32)), b"ada", "invalid"),
    ],
)
def test_what_is_no_vector_is_refused(event, key, reason):
    """With a reason, and never half of it."""
    with pytest.raises(Unusable) as refused:
        vector_in(record(event and encode(event), key))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"components": np.eye(4, dtype=np.float32).tobytes()}, "dimension"),
        ({"mean": VECTOR[:3].tobytes(), "components": bytes(36)}, "invalid"),
        ({"forward": {"r": VECTOR[:2].tobytes()}}, "invalid"),
        ({"backward": {"r": np.full(4, np.inf, np.float32).tobytes()}}, "invalid"),
        ({"operation": "divide"}, "invalid"),
    ],
)
def test_what_is_no_model_is_refused(changes, reason):
    """A projection to another slice, and whatever does not belong together."""
    with pytest.raises(Unusable) as refused:
        model_in(record(encode(model(**changes))), 3)
    assert refused.value.reason == reason
