"""Weights on their way: the newest that can be read is in force, with the pins of the settings over it."""

import asyncio
import contextlib

import msgspec
import numpy as np
import pytest

from penchant.errors import ConfigurationError
from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.weights import Learned, Weights
from penchant.settings import load_settings
from penchant.streams.codec import Unusable, encode
from penchant.streams.events import MAX_FEATURES, LearnedWeights, Reset
from penchant.streams.publish import Courier
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from penchant.streams.weights import Standing, follow, last_learned, learned_in, learned_of, newest, told

NAMES = ("text_long", "popularity", "age")


def record(value, offset=0):
    """A record of the topic."""
    value = value if isinstance(value, bytes) else encode(value)
    return Record(topic="weights", partition=0, offset=offset, timestamp=0, key=b"weights", value=value)


def learned(age=0.0, next_offset=1, topic_id="t", names=NAMES):
    """Weights of which one says where they are from."""
    found = Learned(weights=Weights.of({"age": age}, {"age": 0.5}, names), squares=np.ones((2, len(names))), examples=7)
    output = told(found, as_of=5_000, topic_id=topic_id, next_offset=next_offset, topic="weights")
    return msgspec.msgpack.decode(output.value, type=LearnedWeights)


@pytest.fixture
def send(settings):
    """Publishes values on the topic."""
    courier = Courier(settings, delivery_timeout_ms=20_000)
    topic = settings.prefixed(Topic.WEIGHTS)

    async def sending(*values):
        outputs = [told(learned_of(learned()), as_of=0, topic_id="", next_offset=0, topic=topic) for _ in values]
        encoded = [value if isinstance(value, bytes) else encode(value) for value in values]
        await courier.send(
            [msgspec.structs.replace(output, value=value) for output, value in zip(outputs, encoded, strict=True)]
        )

    yield sending
    courier.close()


def standing(taken, **recommend):
    """Weights in force in a process of some settings, and where it is told of them."""
    return Standing(load_settings(recommend=recommend), NAMES, taken.append)


def test_what_was_learned_is_in_force():
    """As soon as it is taken; features of which nothing was learned count what they start with."""
    taken = []
    one = standing(taken)
    one.take(learned(age=0.75, names=("age", "gone")))
    assert taken[0].names == NAMES
    assert taken[0].base.tolist() == [*prior_weights(NAMES).base[:2], 0.75]
    view = one.view()
    assert (view.examples, view.as_of, view.learning) == (7, 5_000, True)
    assert [feature.base.in_force for feature in view.features] == taken[0].base.tolist()
    assert view.features[2].returning.learned == 0.5


def test_pins_stay_over_whatever_is_learned():
    """Of the weight that they pin; the others follow."""
    taken = []
    one = standing(taken, weights={"age": -2.0}, returning={"popularity": 0.25})
    for age in (0.5, 0.75):
        one.take(learned(age=age))
        assert taken[-1].base.tolist() == [0.0, 0.0, -2.0]
        assert taken[-1].returning.tolist() == [0.0, 0.25, 0.5]
    [_, popularity, age] = one.view().features
    assert (age.base.pinned, age.base.learned, age.base.in_force) == (True, 0.75, -2.0)
    assert (age.returning.pinned, popularity.returning.pinned, popularity.base.pinned) == (False, True, False)


@pytest.mark.parametrize("sections", [{"recommend": {"learn": False}}, {"fusion": {"mode": "concat"}}])
def test_where_nothing_is_learned_the_priors_rank(sections):
    """Where the settings say so, and where content alone ranks: what was learned is shown, and not in force."""
    one = Standing(load_settings(**sections), NAMES)
    one.take(learned(age=0.75))
    assert not one.learning
    assert one.view().features[2].base.in_force == prior_weights(NAMES).base[2]
    assert one.view().features[2].base.learned == 0.75


def test_a_pin_of_no_feature_is_refused():
    """With the name of the setting."""
    with pytest.raises(ConfigurationError, match="weights"):
        standing([], weights={"aeg": 1.0}).view()


def test_who_was_overtaken_sets_nobody_back():
    """Of one log the weights that have taken in more of it are the newer; another log begins anew."""
    ahead, behind, other = learned(0.1, 9), learned(0.2, 8), learned(0.3, 1, topic_id="u")
    assert newest([record(ahead), record(behind)]).base == ahead.base
    assert newest([record(behind)], ahead).base == ahead.base
    assert newest([record(ahead), record(other)]).base == other.base


def forged(**changes):
    """Weights with some fields as nobody should send them."""
    return msgspec.msgpack.encode(msgspec.to_builtins(learned()) | changes)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x81",
        encode(Reset()),
        forged(base=[0.0, 0.0]),
        forged(base_squares=[0.0, 0.0]),
        forged(names=["age", "age", "text_long"]),
        forged(base=[0.0, 0.0, float("nan")]),
        forged(returning=[0.0, 0.0, float("inf")]),
        forged(base=[0.0, 0.0, 1e300]),
        forged(returning_squares=[0.0, 0.0, -1.0]),
        forged(next_offset=-1),
        forged(names=[f"f{number}" for number in range(MAX_FEATURES + 1)]),
    ],
)
def test_what_is_no_weights_changes_nothing(value):
    """It is refused before anything is computed of it, and the weights before it stay."""
    with pytest.raises(Unusable):
        learned_in(record(value))
    assert newest([record(learned(0.5)), record(value, 1)]).base[2] == 0.5


def test_weights_come_back_from_the_wire_as_they_were():
    """To the last bit, squares and all."""
    rng = np.random.default_rng(0)
    base, returning = rng.standard_normal((2, 3)) / 3
    one = Learned(weights=Weights(names=NAMES, base=base, returning=returning), squares=rng.random((2, 3)), examples=3)
    output = told(one, as_of=1, topic_id="t", next_offset=2, topic="weights")
    back = learned_of(learned_in(record(output.value)))
    assert (back.weights.base == base).all()
    assert (back.weights.returning == returning).all()
    assert (back.squares == one.squares).all()


async def test_the_last_record_is_found_wherever_it_is(settings, send):
    """On an empty topic none; at its end; and far before it, where only what cannot be read came later."""
    assert await asyncio.to_thread(last_learned, settings) is None
    await send(*(learned(number / 1_000, number) for number in range(150)))
    assert (await asyncio.to_thread(last_learned, settings)).next_offset == 149
    await send(*[b"\x81"] * 200)
    assert (await asyncio.to_thread(last_learned, settings)).next_offset == 149


async def test_a_follower_is_told_of_what_was_there_and_of_what_comes(settings, send):
    """In order, past what cannot be read, until it is cancelled."""
    taken = asyncio.Queue()
    await send(learned(0.1, 1), learned(0.2, 2))
    following = asyncio.create_task(follow(settings, taken.put_nowait))
    async with asyncio.timeout(60):
        while (await taken.get()).next_offset != 2:
            pass
        await send(b"\x81", learned(0.3, 3))
        while (await taken.get()).next_offset != 3:
            pass
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    assert following.cancelled()


async def test_a_follower_outlives_a_broker_that_is_away(monkeypatch):
    """It tries again and again; the weights before stay, and nobody is bothered."""
    monkeypatch.setattr("penchant.streams.onlooker.REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr("penchant.streams.weights.RETRY_S", 0.05)
    nowhere = load_settings(kafka={"bootstrap_servers": "127.0.0.1:1"})
    taken = []
    following = asyncio.create_task(follow(nowhere, taken.append))
    done, _ = await asyncio.wait({following}, timeout=1.5)
    assert not done
    assert taken == []
    following.cancel()
