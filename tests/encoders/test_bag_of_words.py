import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer

from penchant.encoders.bag_of_words import HashedWords, TfIdf
from penchant.encoders.base import Host, Undecodable
from penchant.encoders.frequencies import Frequencies, count_frequencies, load_frequencies, save_frequencies
from penchant.encoders.options.text import HashedWordsOptions, TfIdfOptions
from penchant.encoders.registry import build, identity
from penchant.errors import ConfigurationError

TEXTS = [
    "A heist film set in Lisbon, with an ensemble cast.",
    "A film about a heist in Paris; the cast is small.",
    "Jazz jazz JAZZ, and a documentary about jazz",
    "Recette de soupe à l'oignon, façon grand-mère",
    "How do I train a puppy not to bite? " * 5,
]


@pytest.fixture
def frequencies(tmp_path):
    """The file of word frequencies of the texts."""
    save_frequencies(count_frequencies(TEXTS), tmp_path / "words.json")
    return tmp_path / "words.json"


def encode(encoder, texts):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in texts]))


def upstream(vectorizer, dimension):
    """Scikit-learn's vectors of the texts, with its own hash of each word of the vocabulary."""
    rows = vectorizer.fit_transform(TEXTS)
    words = [[word] for word in vectorizer.get_feature_names_out()]
    dense = (rows @ FeatureHasher(dimension, input_type="string").transform(words)).toarray()
    return dense / np.linalg.norm(dense, axis=1, keepdims=True)


@pytest.mark.parametrize("dimension", [16, 512])
def test_hashed_words_equal_scikit_learns(dimension):
    """The vectors are scikit-learn's counts, damped and hashed."""
    expected = upstream(TfidfVectorizer(use_idf=False, sublinear_tf=True), dimension)
    found = encode(build(HashedWordsOptions(dimension=dimension), Host()), TEXTS)
    assert (found * expected).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize("dimension", [16, 512])
def test_tf_idf_equals_scikit_learns(frequencies, dimension):
    """The vectors are scikit-learn's TF-IDF, hashed; fitted on the same texts."""
    expected = upstream(TfidfVectorizer(sublinear_tf=True), dimension)
    found = encode(build(TfIdfOptions(frequencies=frequencies, dimension=dimension), Host()), TEXTS)
    assert (found * expected).sum(axis=1).min() >= 0.9999


def test_rare_words_tell_texts_apart(frequencies):
    """Two texts that share common words alone are farther apart by TF-IDF than by words alone."""
    texts = ["a heist in Lisbon", "a puppy in Lisbon"]
    counts = Frequencies(texts=1_000, words={"in": 990, "lisbon": 500, "heist": 2, "puppy": 2})
    save_frequencies(counts, frequencies)
    plain, weighed = (
        encode(encoder, texts)
        for encoder in (HashedWords(HashedWordsOptions(), Host()), TfIdf(TfIdfOptions(frequencies=frequencies), Host()))
    )
    assert weighed[0] @ weighed[1] < plain[0] @ plain[1] - 0.2


def test_fingerprints(frequencies):
    """A vector depends on the dimension and the file of frequencies; neither need be loaded to say so."""
    options = TfIdfOptions(frequencies=frequencies)
    first = identity(options)
    assert build(options, Host()).fingerprint == first.fingerprint
    assert first.dimension == 512
    others = [
        identity(HashedWordsOptions()),
        identity(HashedWordsOptions(dimension=64)),
        identity(options.model_copy(update={"dimension": 64})),
    ]
    save_frequencies(count_frequencies(TEXTS[1:]), frequencies)
    others.append(identity(options))
    assert len({first.fingerprint, *(one.fingerprint for one in others)}) == 5
    frequencies.unlink()
    pinned = options.model_copy(update={"pin": f"{first.fingerprint}:512"})
    assert identity(pinned) == first


@pytest.mark.parametrize(
    ("one", "reason"),
    [("", "empty"), (" ?! \n", "empty"), ("a\ud800b", "corrupt"), ("Quetzalcoatl unheard", "unknown-words")],
)
def test_text_that_says_nothing_is_refused(frequencies, one, reason):
    """No word, no text, or unknown words alone are refused with a reason."""
    with pytest.raises(Undecodable) as refused:
        TfIdf(TfIdfOptions(frequencies=frequencies), Host()).prepare(one)
    assert refused.value.reason == reason


def test_megabytes_are_cut():
    """Of ten megabytes the beginning is read, and makes the vector."""
    encoder = HashedWords(HashedWordsOptions(), Host())
    long = "the quick brown fox " * 500_000
    np.testing.assert_array_equal(encoder.prepare(long), encoder.prepare(long[:100_000]))


@given(one=st.text(st.characters(exclude_categories=()), max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_vector_or_refused(one):
    """Whatever the characters, a text has a finite vector that is not zero, or is refused."""
    encoder = HashedWords(HashedWordsOptions(dimension=16), Host())
    try:
        row = encoder.prepare(one)
    except Undecodable:
        return
    assert np.isfinite(row).all()
    np.testing.assert_allclose(np.linalg.norm(encoder.finish(encoder.forward([row]))), 1, atol=1e-5)


def test_frequencies_survive_their_file(frequencies):
    """What is read is what was counted: texts with a word, and in how many of them each occurs."""
    found = load_frequencies(frequencies)
    assert found == count_frequencies([*TEXTS, "", "?!"])
    assert found.texts == 5
    assert (found.words["film"], found.words["jazz"]) == (2, 1)


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", '{"texts": 0, "words": {"a": 1}}', '{"texts": 3, "words": {}}', "[" * 100_000]
)
def test_other_files_are_refused(frequencies, content):
    """A file that holds no frequencies is a configuration error that says what makes one."""
    frequencies.write_text(content)
    with pytest.raises(ConfigurationError, match="penchant encoders frequencies"):
        TfIdf(TfIdfOptions(frequencies=frequencies), Host())


def test_a_missing_file_is_named(tmp_path):
    """Both who identifies and who builds say which file is missing."""
    options = TfIdfOptions(frequencies=tmp_path / "none.json")
    for use in (identity, lambda chosen: build(chosen, Host())):
        with pytest.raises(ConfigurationError, match=r"none\.json"):
            use(options)


def test_no_words_make_no_frequencies():
    """Texts without a word are an error, not an empty file."""
    with pytest.raises(ConfigurationError, match="no word"):
        count_frequencies(["", "?"])


def test_counting_is_bounded(monkeypatch):
    """Of too many words the rarest are let go of, and the most frequent are kept."""
    monkeypatch.setattr("penchant.encoders.frequencies.MAX_COUNTED", 50)
    monkeypatch.setattr("penchant.encoders.frequencies.MAX_WORDS", 3)
    found = count_frequencies(f"common often{number % 2} word{number}" for number in range(1_000))
    assert found.words == {"common": 1_000, "often0": 500, "often1": 500}
