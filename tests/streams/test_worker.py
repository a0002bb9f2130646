"""A worker: refuses what it cannot work with, outlives hostile records, and stops in order."""

import asyncio
import os
import subprocess
import sys
import time
from typing import get_args

import pytest
from confluent_kafka import Producer

from penchant.errors import ConfigurationError
from penchant.parts import build_parts
from penchant.settings import FusionMode, load_settings
from penchant.streams.codec import Unusable, encode
from penchant.streams.connection import producer_options
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.events import Click
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic
from penchant.streams.worker import serve

WAIT_S = 60.0


async def until(condition, failed):
    """Waits for a condition, asked in a thread; fails as soon as the worker does."""
    failing = asyncio.ensure_future(failed())
    deadline = time.monotonic() + WAIT_S
    try:
        while not await asyncio.to_thread(condition):
            if failing.done():
                failing.result()
            assert time.monotonic() < deadline, "this took too long"
            await asyncio.sleep(0.1)
    finally:
        failing.cancel()


def everything(settings, topic):
    """The records on a topic."""
    with TopicReader(settings, topic, from_beginning=True) as reader:
        return list(reader.to_end())


def send(settings, *records):
    """Sends (key, value) to `clicks`, with room for more than penchant's own producers send."""
    options = producer_options(settings, delivery_timeout_ms=20_000) | {"message.max.bytes": 64 * 2**20}
    producer, errors = Producer(options), []
    for key, value, headers in records:
        producer.produce(
            settings.prefixed(Topic.CLICKS),
            value,
            key,
            headers=headers,
            on_delivery=lambda error, _: errors.append(error),
        )
    assert producer.flush(20) == 0
    assert not any(errors)


def click(number):
    """A good click as key, value and headers."""
    return b"ada", encode(Click(event_id=f"e{number}", user_id="ada", item_id="film")), {}


async def profile(settings, user="ada"):
    """A user's profile in the store, once nobody else has it."""
    parts = build_parts(settings)
    await parts.open()
    found = await parts.profiles.load([user])
    await parts.store.close()
    return found.get(user)


@pytest.mark.parametrize("lanes", [(), ("affinities",), ("content", "interest", "x")])
async def test_lanes_that_do_not_exist_are_refused(lanes):
    """With the names of those that do."""
    with pytest.raises(ConfigurationError, match=r"Unknown lanes.*") as refused:
        async with serve(load_settings(), lanes):
            pass
    assert "content, interest" in refused.value.hint


def test_a_weight_of_no_feature_is_refused(tmp_path):
    """Before anything runs, with the nearest one that there is."""
    settings = load_settings(data_dir=tmp_path, recommend={"weights": {"image_lnog": 0.4}})
    with pytest.raises(ConfigurationError, match="image_long"):
        build_parts(settings)


def test_pinned_weights_are_refused_where_no_features_rank(tmp_path):
    """They would be ignored in silence."""
    settings = load_settings(data_dir=tmp_path, recommend={"weights": {"age": 0.4}}, fusion={"mode": "weighted"})
    with pytest.raises(ConfigurationError, match=r"fusion\.mode weighted ranks by none"):
        build_parts(settings)


@pytest.mark.parametrize("mode", [mode for mode in get_args(FusionMode) if mode != "deep"])
def test_every_mode_of_the_settings_is_one_that_ranks(tmp_path, mode):
    """None but `learned` ranks by features."""
    ranker = build_parts(load_settings(data_dir=tmp_path, fusion={"mode": mode})).ranker
    assert (ranker.mode is None) == (mode == "learned")


async def test_a_worker_without_the_model_that_it_is_to_rank_by_does_not_start(settings, tmp_path):
    """It says what is missing; whoever only reads the store does not ask for it."""
    fusion = settings.fusion.model_copy(update={"mode": "deep", "deep_model": tmp_path / "none.safetensors"})
    lacking = settings.model_copy(update={"fusion": fusion})
    assert await profile(lacking) is None
    with pytest.raises(ConfigurationError, match=r"no model of deep fusion at .*none\.safetensors"):
        async with serve(lacking, ("interest",)):
            pass


async def test_missing_topics_are_named(settings):
    """A worker does not start to work beside a topic that is not there; it says which one, and what creates it."""
    elsewhere = settings.model_copy(update={"namespace": "elsewhere"})
    with pytest.raises(ConfigurationError, match=r"elsewhere\.clicks") as refused:
        async with serve(elsewhere, ("interest",)):
            pass
    assert "penchant topics create" in refused.value.hint


async def test_a_stop_leaves_nothing_undone(settings):
    """What was sent before is in the profile, published and committed when the worker has stopped."""
    await asyncio.to_thread(send, settings, *(click(number) for number in range(50)))
    async with serve(settings, ("interest",)) as failed:
        await until(lambda: everything(settings, Topic.RECOMMENDATIONS), failed)
    stored = await profile(settings)
    assert {signal.event_id for signal in stored.state.signals} == {f"e{number}" for number in range(50)}
    [*_, last] = await asyncio.to_thread(everything, settings, Topic.RECOMMENDATIONS)
    assert last.key == b"ada"
    async with serve(settings, ("interest",)) as failed:
        before = len(await asyncio.to_thread(everything, settings, Topic.RECOMMENDATIONS))
        await asyncio.to_thread(send, settings, click(50))
        await until(lambda: len(everything(settings, Topic.RECOMMENDATIONS)) > before, failed)
    assert (await profile(settings)).version == stored.version + 1


@pytest.mark.parametrize(
    "hostile",
    [
        (b"ada", bytes(20 * 2**20), {}),
        (bytes(20 * 2**20), b"x", {}),
        (b"ada", b"x", {"h": bytes(20 * 2**20)}),
    ],
    ids=["value", "key", "header"],
)
async def test_a_record_too_large_to_be_kept_whole_stops_nobody(settings, hostile):
    """Compressed it passed the broker; a dead letter of it would not: origin and reason are kept, and work goes on."""
    await asyncio.to_thread(send, settings, hostile, click(1))
    async with serve(settings, ("interest",)) as failed:
        await until(lambda: everything(settings, Topic.DEAD_LETTERS), failed)
        await until(lambda: everything(settings, Topic.RECOMMENDATIONS), failed)
    [letter] = [DeadLetter.read(one) for one in await asyncio.to_thread(everything, settings, Topic.DEAD_LETTERS)]
    assert letter.topic == settings.prefixed(Topic.CLICKS)
    assert letter.reason
    assert not letter.whole
    with pytest.raises(Unusable, match="too large to be kept"):
        letter.original()
    assert (await profile(settings)).state.signals


# aiokafka in pure Python asks the name itself for its bytes.
SEND_STRANGE_HEADER = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class NoUtf8(str):
    def encode(self, *_):
        return b"\\xff\\xfe"

async def main():
    async with AIOKafkaProducer(bootstrap_servers=sys.argv[1]) as producer:
        value = sys.argv[3].encode()
        await producer.send_and_wait(sys.argv[2], value, key=b"ada", headers=[(NoUtf8("x"), b"1")])

asyncio.run(main())
"""


async def test_a_header_that_no_client_can_read_stops_nobody(settings):
    """A header's name may be any bytes: the record counts as if it had none."""
    value = encode(Click(event_id="e1", user_id="ada", item_id="film"), json=True).decode()
    command = [sys.executable, "-c", SEND_STRANGE_HEADER, settings.kafka.bootstrap_servers]
    environment = os.environ | {"AIOKAFKA_NO_EXTENSIONS": "1"}
    await asyncio.to_thread(
        subprocess.run, [*command, settings.prefixed(Topic.CLICKS), value], env=environment, check=True
    )
    async with serve(settings, ("interest",)) as failed:
        await until(lambda: everything(settings, Topic.RECOMMENDATIONS), failed)
    assert [signal.event_id for signal in (await profile(settings)).state.signals] == ["e1"]
