"""What the tests of commands look at a command with, and at the topics behind it."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from typer.testing import Result

from penchant.settings import Settings
from penchant.streams.codec import decode
from penchant.streams.connection import open_producer
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Output
from penchant.streams.topics import Topic

T = TypeVar("T")

PENCHANT = [sys.executable, "-m", "penchant.cli"]
WAIT_S = 60.0


def ok(result: Result) -> str:
    """The output of a command that must have succeeded."""
    assert result.exit_code == 0, result.output
    return result.stdout


def values(settings: Settings, topic: Topic, kind: type[T]) -> list[T]:
    """What a topic holds."""
    with TopicReader(settings, topic, from_beginning=True) as reader:
        return [decode(kind, record.value) for record in reader.to_end()]


def produce(settings: Settings, outputs: Iterable[Output]) -> None:
    """Publishes records as they are."""
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    for output in outputs:
        producer.produce(output.topic, output.value, output.key, headers=dict(output.headers))
    assert producer.flush(WAIT_S) == 0
