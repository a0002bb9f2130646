import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.frequencies import Frequencies, save_frequencies
from penchant.encoders.options.text import WordVectorsOptions
from penchant.encoders.registry import build, identity
from penchant.encoders.word_vectors import load_word_table
from penchant.errors import ConfigurationError

WORDS = ["film", "heist", "lisbon", "jazz", "puppy", "soupe", "oignon", "寺", "NASA"]
TEXTS = ["heist film lisbon", "jazz jazz film unheard", "puppy", "soupe oignon grand"]
DIMENSION = 20


def written(path, rows, *, header):
    """A file of words and their vectors, with word2vec's first line or without."""
    lines = [f"{word} {' '.join(f'{value:.6f}' for value in row)}" for word, row in rows]
    path.write_text("\n".join(([f"{len(rows)} {DIMENSION}"] if header else []) + lines) + "\n")
    return path


@pytest.fixture(scope="session")
def rows():
    """Words and their vectors, drawn."""
    return list(zip(WORDS, np.random.default_rng(3).normal(0.3, 1, (len(WORDS), DIMENSION)), strict=True))


@pytest.fixture(params=[True, False], ids=["word2vec", "glove"])
def file(request, tmp_path, rows):
    """The vectors as a file, in both formats."""
    return written(tmp_path / "vectors.txt", rows, header=request.param)


def load(path, **options):
    """The encoder of a file."""
    return build(WordVectorsOptions(vectors=path, **options), Host())


def encode(encoder, texts):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in texts]))


def upstream(path, weights=None):
    """Sentence-transformers over the same file, and over the weights of words."""
    embeddings = modules.WordEmbeddings.from_text_file(str(path))
    weighing = [modules.WordWeights(embeddings.tokenizer.get_vocab(), weights, 1.0)] if weights else []
    return SentenceTransformer(modules=[embeddings, *weighing, modules.Pooling(DIMENSION, "mean")], device="cpu")


def test_means_equal_those_of_sentence_transformers(tmp_path, rows):
    """A text's vector is the mean that sentence-transformers takes over its known words."""
    path = written(tmp_path / "vectors.txt", rows, header=False)
    expected = upstream(path).encode(TEXTS, normalize_embeddings=True)
    assert (encode(load(path), TEXTS) * expected).sum(axis=1).min() >= 0.9999


def test_weighed_means_equal_those_of_sentence_transformers(tmp_path, rows):
    """Weighed by how rare words are, likewise."""
    path = written(tmp_path / "vectors.txt", rows, header=False)
    counts = Frequencies(texts=1_000, words={word.lower(): 1 + 100 * place for place, word in enumerate(WORDS)})
    save_frequencies(counts, tmp_path / "words.json")
    expected = upstream(path, {word: counts.weight(word) for word in WORDS}).encode(TEXTS, normalize_embeddings=True)
    found = encode(load(path, frequencies=tmp_path / "words.json"), TEXTS)
    assert (found * expected).sum(axis=1).min() >= 0.9999
    assert (found[0] * encode(load(path), TEXTS)[0]).sum() < 0.999


def test_both_formats_are_read(file, rows):
    """With word2vec's first line or without, the words and their vectors are those of the file."""
    table = load_word_table(file, 100)
    assert list(table.places) == WORDS
    np.testing.assert_allclose(table.vectors, [row for _, row in rows], atol=1e-6)


def test_words_are_found_as_they_stand_or_in_lower_case(file, rows):
    """Case is the file's where it has it, and lower otherwise; marks around words are none of them."""
    encoder = load(file)
    vectors = dict(rows)
    np.testing.assert_allclose(encoder.prepare("«Heist», (FILM)!"), (vectors["heist"] + vectors["film"]) / 2, atol=1e-5)
    np.testing.assert_allclose(encoder.prepare("NASA"), vectors["NASA"], atol=1e-5)
    with pytest.raises(Undecodable):
        encoder.prepare("nasa")


def test_only_first_words_are_read(file):
    """No more words than allowed are read, and that is part of the fingerprint."""
    assert list(load_word_table(file, 3).places) == WORDS[:3]
    assert load(file, max_words=3).fingerprint != load(file).fingerprint


def test_unknown_words_are_counted(file):
    """Words without a vector are counted, and said once when they are most of many."""
    encoder = load(file)
    encode(encoder, TEXTS)
    assert (encoder.words, encoder.unknown) == (11, 2)
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            encoder.prepare("jazz " + "unheard " * 9_000)
    assert [entry["event"] for entry in said] == ["most words are not among the word vectors"]


def test_fingerprint_and_dimension_are_known_without_loading(file, tmp_path, rows):
    """They are the file's content and its first line's; another content is another encoder."""
    known = identity(WordVectorsOptions(vectors=file))
    encoder = load(file)
    assert (known.dimension, known.fingerprint) == (DIMENSION, encoder.fingerprint)
    other = written(tmp_path / "other.txt", rows[1:], header=False)
    assert identity(WordVectorsOptions(vectors=other)).fingerprint != known.fingerprint


@pytest.mark.parametrize(
    ("one", "reason"), [("", "empty"), (" ?! \n", "empty"), ("a\ud800b", "corrupt"), ("unheard words", "unknown-words")]
)
def test_text_that_says_nothing_is_refused(file, one, reason):
    """No word, no text, or unknown words alone are refused with a reason."""
    with pytest.raises(Undecodable) as refused:
        load(file).prepare(one)
    assert refused.value.reason == reason


def test_megabytes_are_cut(file):
    """Of ten megabytes the beginning is read."""
    encoder = load(file)
    encoder.prepare("jazz " * 2_000_000)
    assert encoder.words == 20_000


@given(one=st.text(st.characters(exclude_categories=("Cs",)), max_size=300))
@settings(max_examples=50, deadline=None)
def test_any_text_beside_a_known_word_is_its_vector(one, tmp_path_factory, rows):
    """Whatever the characters beside a known word, a text has that word's vector."""
    path = written(tmp_path_factory.getbasetemp() / "vectors.txt", rows[:1], header=False)
    np.testing.assert_allclose(load(path).prepare(f"film {one}"), rows[0][1], atol=1e-5)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"2 3\njazz 1 2 3\nfilm 1 2\n", 3),
        (b"jazz 1 2 3\nfilm 1 2 x\n", 2),
        (b"jazz 1 2 3\nfilm 1 nan 2\n", 2),
        (b"jazz 1 2 3\nfilm 1 inf 2\n", 2),
        (b"2 3\njazz \x00\x01\x02\x03\n", 2),
        (b"2 3\njazz " + b"1" * 300_000, 2),
    ],
)
def test_a_damaged_line_is_named(tmp_path, content, line):
    """A line that is not a word with its numbers is a configuration error that says which."""
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"Line {line} of"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"word\n", b"0 300\n", b"10 1000000\n"])
def test_other_files_are_refused(tmp_path, content):
    """A file that begins as none of word vectors does is refused, before anything is loaded."""
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no word vectors"):
        identity(WordVectorsOptions(vectors=path))


def test_a_table_beyond_memory_is_refused(tmp_path):
    """What would take more than the bound is refused by the first line."""
    path = tmp_path / "vectors.txt"
    path.write_text("4000000 4000\njazz 1 2 3\n")
    with pytest.raises(ConfigurationError, match="max_words"):
        load(path, max_words=4_000_000)


def test_a_missing_file_is_named(tmp_path):
    """Both who identifies and who builds say which file is missing."""
    options = WordVectorsOptions(vectors=tmp_path / "none.txt")
    for use in (identity, lambda chosen: build(chosen, Host())):
        with pytest.raises(ConfigurationError, match=r"none\.txt"):
            use(options)


def test_a_word_may_hold_spaces_and_the_first_of_two_stands(tmp_path):
    """Some files have words with spaces, and words twice."""
    path = tmp_path / "vectors.txt"
    path.write_text("jazz 1 2 3\n. . . 4 5 6\njazz 7 8 9\n")
    table = load_word_table(path, 10)
    assert table.places == {"jazz": 0, ". . .": 1}
    np.testing.assert_array_equal(table.vectors, [[1, 2, 3], [4, 5, 6]])
