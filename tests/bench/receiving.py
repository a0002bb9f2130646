"""Notes when lists arrive, and what they cover, in a process of its own: a subscriber who reads committed records.

It says when it is there, and ends when its standard input does.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from msgspec import Struct

from penchant.settings import Settings, load_settings
from penchant.streams.codec import decode
from penchant.streams.connection import common_options
from penchant.streams.events import SourcePosition
from tests.bench.rig import answer, asked

WAIT_S = 0.1
MOST = 500


class Covering(Struct):
    """What of a list matters here."""

    inputs: tuple[SourcePosition, ...] = ()


def receive(settings: Settings, *, topic: str, clicks: str, received: str, until: threading.Event) -> int:
    """Notes lists from now on; gives how many there were.

    Args:
        settings: name the broker.
        topic: of the lists.
        clicks: the topic whose records they cover.
        received: file for the moments, nanoseconds, monotonic; keys; and each list's newest click: partition, offset.
        until: ends it.
    """
    options = {"group.id": "bench", "isolation.level": "read_committed", "enable.auto.commit": False}
    consumer = Consumer({**common_options(settings), **options})
    numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, number), 10)[1] for number in numbers]
    consumer.assign([TopicPartition(topic, number, end) for number, end in zip(numbers, ends, strict=True)])
    consumer.poll(WAIT_S)
    answer("there")
    rows: list[tuple[int, bytes, int, int]] = []
    while not until.is_set():
        first = consumer.poll(WAIT_S)
        if first is None:
            continue
        messages = [first, *consumer.consume(MOST, 0)]
        now = time.monotonic_ns()
        lists = [message for message in messages if message.error() is None]
        rows.extend((now, message.key(), *place) for message in lists for place in covered(message, clicks))
    moments, keys, partitions, offsets = zip(*rows, strict=True) if rows else ((), (), (), ())
    np.savez(Path(received), moments=moments, keys=keys, partitions=partitions, offsets=offsets)
    return len(rows)


def covered(message: Message, clicks: str) -> list[tuple[int, int]]:
    """Partition and offset of the newest click that a list covers."""
    inputs = decode(Covering, message.value(), dict(message.headers() or ())).inputs
    return [(one.partition, one.offset) for one in inputs if one.topic == clicks]


if __name__ == "__main__":
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    answer(receive(load_settings(), **asked(), until=ended))
