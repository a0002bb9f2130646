"""Recordings become streams: in order, coded, with the texts that the content lane would embed."""

import numpy as np
import pytest

from penchant.encoders.base import Host
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.text import MiniLM
from penchant.errors import ConfigurationError
from penchant.evaluation.features import text_vectors
from penchant.evaluation.movielens import read_movielens
from penchant.evaluation.stream import UNKNOWN_TIME, Listing, Moment, arranged
from penchant.evaluation.topics import read_topics
from penchant.settings import EncoderSettings, ProfileSettings
from penchant.streams.client import Publisher
from penchant.streams.events import Click, Item, Post

AT = 1_700_000_000_000


@pytest.fixture
def folder(tmp_path):
    """A MovieLens folder of three films and four ratings."""
    movies = (
        "movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n10,M (1931),Crime\n9,Nameless,(no genres listed)\n"
    )
    (tmp_path / "movies.csv").write_text(movies)
    ratings = "userId,movieId,rating,timestamp\n10,2,4.0,200\n9,10,3.5,200\n9,2,5.0,200\n1,77,0.5,100\n"
    (tmp_path / "ratings.csv").write_text(ratings)
    return tmp_path


def test_movielens_is_in_order_of_time_user_and_film(folder):
    """Ids are compared as the numbers that they are; ratings of four and more are positive."""
    stream = read_movielens(folder, ProfileSettings())
    events = [
        (stream.time[at], stream.users[stream.user[at]], stream.items[stream.item[at]], bool(stream.positive[at]))
        for at in range(len(stream))
    ]
    assert events == [
        (100_000, "1", "77", False),
        (200_000, "9", "2", True),
        (200_000, "9", "10", False),
        (200_000, "10", "2", True),
    ]
    assert stream.weight.tolist() == pytest.approx([-2, 2, 2 / 3, 10 / 9])


def test_films_have_the_imports_texts_genres_and_years(folder):
    """What is not known of a film is left out, and one that is in no catalogue is not listed."""
    stream = read_movielens(folder, ProfileSettings())
    assert stream.items == ["2", "9", "10", "77"]
    assert stream.texts == ["Jumanji (1995). Adventure, Children", "Nameless", "M (1931). Crime", ""]
    assert stream.categories == [("Adventure", "Children"), (), ("Crime",), ()]
    assert stream.listed.tolist() == [True, True, True, False]
    assert stream.released.tolist() == [788_918_400_000, UNKNOWN_TIME, -1_230_768_000_000, UNKNOWN_TIME]


def test_a_folder_that_is_none_is_told(folder):
    """A missing file and a row that cannot be read are named."""
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,good,3\n")
    with pytest.raises(ConfigurationError, match=r"ratings\.csv:2"):
        read_movielens(folder, ProfileSettings())
    (folder / "movies.csv").unlink()
    with pytest.raises(ConfigurationError, match=r"no movies\.csv"):
        read_movielens(folder, ProfileSettings())


def test_the_order_in_which_a_recording_is_read_does_not_matter():
    """The same events and items in any order are the same stream."""
    random = np.random.default_rng(0)
    moments = [Moment(number // 3, f"u{number % 7}", f"{number % 11}", 1.0, positive=True) for number in range(60)]
    listings = [Listing(item=str(number)) for number in range(11)]
    one = arranged(moments, listings)
    other = arranged([moments[at] for at in random.permutation(60)], reversed(listings))
    assert (one.users, one.items) == (other.users, other.items)
    for field in ("user", "item", "time"):
        assert np.array_equal(getattr(one, field), getattr(other, field))


def test_texts_are_encoded_once(tmp_path, monkeypatch):
    """The second time they come from the file, without a model; other texts are encoded anew."""
    texts = ["a film about the sea", "", "a film about the law"]
    vectors = text_vectors(texts, tmp_path / "cache", EncoderSettings())
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 0, 1])
    encoder = MiniLM(MiniLMOptions(), Host())
    assert vectors[0] == pytest.approx(encoder.finish(encoder.forward([encoder.prepare(texts[0])]))[0], abs=1e-6)

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(MiniLM, "__init__", refuse)
    assert np.array_equal(text_vectors(texts, tmp_path / "cache", EncoderSettings()), vectors)
    with pytest.raises(AssertionError):
        text_vectors([*texts, "another"], tmp_path / "cache", EncoderSettings())
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]


def test_topics_are_a_stream_of_every_signal_once(settings):
    """What was sent twice counts once, rejections are negative, what a user makes is nothing to foresee."""
    with Publisher(settings) as publisher:
        publisher.send(Item(item_id="film", title="Metropolis", tags=("silent",), at=AT))
        publisher.send(Item(item_id="gone", title="Lost", at=AT))
        for _ in range(2):
            publisher.send(Click(event_id="e1", user_id="ada", item_id="film", action="like", at=AT + 2))
        publisher.send(Click(event_id="e2", user_id="bob", item_id="film", action="dislike", at=AT + 1))
        publisher.send(Click(event_id="e3", user_id="bob", item_id="unheard-of", at=AT + 3))
        publisher.send(Post(event_id="e4", user_id="bob", text="silent films", at=AT + 4))
        publisher.send(Post(event_id="e5", user_id="ada", text="where to see it", recommendable=False, at=AT + 5))
        publisher.withdraw("gone")
    stream = read_topics(settings)
    told = [
        (int(stream.time[at]) - AT, stream.users[stream.user[at]], stream.weight[at].item(), bool(stream.positive[at]))
        for at in range(len(stream))
    ]
    assert told == [
        (1, "bob", -2.0, False),
        (2, "ada", 2.0, True),
        (3, "bob", 1.0, True),
        (4, "bob", 2.0, False),
        (5, "ada", 1.0, False),
    ]
    items = {stream.items[code]: code for code in range(len(stream.items))}
    assert stream.texts[items["film"]] == "Metropolis. silent"
    listed = {stream.texts[code] or name: bool(stream.listed[code]) for name, code in items.items()}
    assert listed == {
        "Metropolis. silent": True,
        "silent films": True,
        "where to see it": False,
        "gone": False,
        "unheard-of": False,
    }
