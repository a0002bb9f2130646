"""The comparison is fair: the ordinary agent is right where nothing fails, and wrong for the reasons that are given."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from penchant.broker import LocalBroker
from penchant.streams.codec import encode
from penchant.streams.events import Click, ClickAction
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.chaos.ordinary import Ordinary, Tally, compare, group_of, interests_of, stored_events, tally
from tests.stage import Place, Stage

PATIENCE_S = 60.0
USERS = 7


@pytest.fixture
def agent(kafka: LocalBroker, stage: Stage, tmp_path: Path) -> Iterator[Ordinary]:
    """An ordinary agent on the stage's clicks, running."""
    with Ordinary(kafka.bootstrap_servers, stage.topic(Topic.CLICKS), tmp_path / "ordinary") as started:
        yield started


def user_of(number: int) -> str:
    """Who an event is of."""
    return f"user-{number % USERS}"


def click(stage: Stage, number: int) -> Output:
    """One event, the same for the same number."""
    user = user_of(number)
    event = Click(event_id=f"e{number}", user_id=user, item_id=f"item-{number % 5}", action=ClickAction.LIKE)
    return Output(topic=stage.topic(Topic.CLICKS), key=user.encode(), value=encode(event))


def ids(numbers: range) -> dict[str, set[str]]:
    """The events by user."""
    return {
        user_of(one): {f"e{number}" for number in numbers if user_of(number) == user_of(one)} for one in range(USERS)
    }


class Onlooker:
    """What the agent's group has committed, and what it has published."""

    def __init__(self, agent: Ordinary) -> None:
        self._clicks = [TopicPartition(agent.topic, number) for number in range(3)]
        self._consumer = Consumer({"bootstrap.servers": agent.bootstrap, "group.id": group_of(agent.topic)})
        self._published: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def committed(self) -> dict[int, int]:
        """The next offset by partition; 0 where nothing is committed."""
        return {part.partition: max(part.offset, 0) for part in self._consumer.committed(self._clicks, 10)}

    def covered(self, places: list[Place]) -> bool:
        """Whether all of these records are committed."""
        committed = self.committed()
        return all(place.offset < committed[place.partition] for place in places)

    def published(self, event: str) -> bool:
        """Whether the agent has published what it made of an event."""
        if not self._consumer.assignment():
            self._consumer.assign([TopicPartition(interests_of(self._clicks[0].topic), 0, OFFSET_BEGINNING)])
        for message in self._consumer.consume(1_000, 0.1):
            if not message.error():  # the topic may not be there yet
                self._published.add(msgspec.json.decode(message.value() or b"")["because"])
        return event in self._published


@pytest.fixture
def onlooker(agent: Ordinary) -> Iterator[Onlooker]:
    """Of this test's agent."""
    with Onlooker(agent) as made:
        yield made


def wait(agent: Ordinary, condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds; fails if the agent ends or the time is over."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert agent.process
        assert agent.process.poll() is None, f"the agent ended before {what}:\n{agent.log_file.read_text()[-4_000:]}"
        assert time.monotonic() < deadline, f"not in time: {what}\n{agent.log_file.read_text()[-4_000:]}"
        time.sleep(0.1)


def test_without_faults_it_is_right(agent: Ordinary, onlooker: Onlooker, stage: Stage) -> None:
    """Every event once, through an orderly stop in the midst of the stream and a new start."""
    first = stage.send(click(stage, number) for number in range(200))
    wait(agent, lambda: any(onlooker.committed().values()), "anything is committed")
    assert agent.stop() == 0
    second = stage.send(click(stage, number) for number in range(200, 400))
    agent.start()
    wait(agent, lambda: onlooker.covered([*first, *second]), "everything is committed")
    assert agent.stop() == 0
    assert tally(agent.folder, ids(range(400))) == Tally(events=400, lost=0, double=0)


def test_what_is_sent_twice_counts_twice(agent: Ordinary, onlooker: Onlooker, stage: Stage) -> None:
    """A producer that sends again what it does not know to have arrived: the agent knows no event again."""
    places = stage.send(click(stage, number) for number in (*range(100), *range(25)))
    wait(agent, lambda: onlooker.covered(places), "everything is committed")
    assert agent.stop() == 0
    assert tally(agent.folder, ids(range(100))) == Tally(events=100, lost=0, double=25)


def test_a_crash_counts_twice_what_was_stored_and_not_committed(
    agent: Ordinary, onlooker: Onlooker, stage: Stage
) -> None:
    """Killed between its writes and its next commit: after a new start exactly these events are there doubly."""
    count, ahead = 0, set[int]()
    places: list[Place] = []
    stored: dict[str, list[str]] = {}
    while not ahead:  # a commit may have come just before the kill: then once more
        assert count < 500, "the agent commits with every event"
        places += stage.send(click(stage, number) for number in range(count, count + 100))
        count += 100
        last = f"e{count - 1}"
        wait(agent, partial(onlooker.published, last), "the last event is published")
        agent.kill()
        committed = onlooker.committed()
        stored = asyncio.run(stored_events(agent.folder))
        ahead = {
            number
            for number, place in enumerate(places)
            if place.offset >= committed[place.partition] and f"e{number}" in stored[user_of(number)]
        }
        agent.start()
    before = compare(stored, ids(range(count)))
    wait(agent, lambda: onlooker.covered(places), "everything is committed")
    assert agent.stop() == 0
    after = tally(agent.folder, ids(range(count)))
    assert after.double == before.double + len(ahead)


def test_the_tally_counts_events() -> None:
    """Missing ones and those that count more than once, each as one; what nobody sent is no matter."""
    sent = {"ann": {"a", "b", "c"}, "bob": ["d", "d"], "cy": {"e"}}
    assert compare({"ann": ["a", "c", "c", "c"], "bob": ["d", "x"]}, sent) == Tally(events=5, lost=2, double=1)
