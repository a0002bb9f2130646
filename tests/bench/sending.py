"""Sends clicks when they are due, whatever becomes of those before: an open loop, in a process of its own.

What is due when is read from a file, which also takes what was sent when, and where it stands.
"""

import time
from pathlib import Path

import numpy as np
from confluent_kafka import Message, Producer

from penchant.settings import Settings, load_settings
from penchant.streams.connection import producer_options
from tests.bench.rig import answer, asked
from tests.bench.world import HEADERS, Clicks

LINGER_MS = 1
AHEAD_S = 1.0  # to begin
SPIN_S = 0.0005  # not slept, for sleeping takes longer than it is asked to
NS = 1_000_000_000


def send_plan(settings: Settings, *, topic: str, plan: str, sent: str) -> int:
    """Sends what is planned; gives how much that was.

    Args:
        settings: name the broker.
        topic: to send to.
        plan: file with the clicks and `due`, seconds from the beginning, ascending.
        sent: file for the moments, nanoseconds, monotonic; partitions and offsets.
    """
    with np.load(plan) as planned:
        due = (planned["due"] * NS).astype(np.int64)
        clicks = Clicks(
            prefix=str(planned["prefix"]), users=planned["users"], items=planned["items"], actions=planned["actions"]
        )
    records = list(clicks.encoded())
    moments = np.zeros(len(records), np.int64)
    partitions = np.full(len(records), -1, np.int64)
    offsets = np.full(len(records), -1, np.int64)
    options = producer_options(settings, delivery_timeout_ms=60_000)
    producer = Producer({**options, "linger.ms": LINGER_MS, "queue.buffering.max.messages": len(records) + 1})
    producer.list_topics(topic, timeout=10)

    def delivered(number: int, message: Message) -> None:
        partitions[number], offsets[number] = message.partition(), message.offset()

    begin = time.monotonic_ns() + int(AHEAD_S * NS)
    for number, ((key, value), at) in enumerate(zip(records, (begin + due).tolist(), strict=True)):
        while (left := (at - time.monotonic_ns()) / NS) > 0:
            producer.poll(0)
            if left > SPIN_S:
                time.sleep(min(left - SPIN_S, 0.01))
        moments[number] = time.monotonic_ns()
        producer.produce(
            topic, value, key, headers=HEADERS, on_delivery=lambda _, message, number=number: delivered(number, message)
        )
        producer.poll(0)
    producer.flush(60)
    np.savez(Path(sent), moments=moments, partitions=partitions, offsets=offsets)
    return len(records)


if __name__ == "__main__":
    answer(send_plan(load_settings(), **asked()))
