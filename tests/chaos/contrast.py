"""The contrast: the same traffic and faults strike an ordinary Faust agent. It shows what being exact is worth."""

import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from msgspec import Struct

from penchant.broker import LocalBroker
from penchant.streams.codec import decode
from penchant.streams.connection import common_options
from penchant.streams.events import Click
from penchant.streams.topics import Topic
from tests.chaos.ordinary import Ordinary, Tally, group_of, tally
from tests.chaos.traffic import Traffic
from tests.stage import Stage, new_stage

__all__ = ["Contrast", "contrast"]

USERS, ITEMS = 500, 100
PAUSE_S = 8.0  # longer than the agent's session
SETTLE_TIMEOUT_S = 300.0


class Contrast(Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        strikes: faults, by kind.
        again: records that said what one before had said.
        tally: of the events.
    """

    again: int
    strikes: Mapping[str, int]
    tally: Tally


class Scene:
    """The agent under traffic."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.broker = LocalBroker.start(folder / "broker", 0, "kafka")
        self.stage = new_stage(self.broker, folder)
        self.traffic = Traffic(
            self.stage, seed=seed, users=USERS, items=ITEMS, start_ms=time.time_ns() // 1_000_000 - 2 * 86_400_000
        )
        self.topic = self.stage.topic(Topic.CLICKS)
        self.agent = Ordinary(self.broker.bootstrap_servers, self.topic, folder / "agent")
        self.sent: dict[str, set[str]] = defaultdict(set)

    def flow(self, count: int) -> None:
        """Sends events."""
        outputs = self.traffic.events(count)
        for output in outputs:
            if output.topic == self.topic:
                click = decode(Click, output.value)
                self.sent[click.user_id].add(click.event_id)
        self.stage.send(outputs)

    def kill(self) -> None:
        """The agent is killed (-9), and started again."""
        self.agent.kill()
        self.agent.start()

    def pause(self) -> None:
        """The agent is stopped (SIGSTOP) for longer than its session, and continues."""
        self.agent.process.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        self.agent.process.send_signal(signal.SIGCONT)

    def kill_broker(self) -> None:
        """The broker is killed (-9), and started again."""
        port = int(self.broker.bootstrap_servers.rpartition(":")[2])
        self.broker.kill()
        self.broker = LocalBroker.start(self.folder / "broker", port, "kafka")

    def settle(self) -> None:
        """Waits until the agent has committed everything."""
        options = {"group.id": group_of(self.topic), "enable.auto.commit": False}
        onlooker = Consumer({**common_options(self.stage.settings), **options})
        parts = [TopicPartition(self.topic, number) for number in range(self.stage.settings.kafka.partitions)]
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            try:
                committed = onlooker.committed(parts, 10)
                ends = [onlooker.get_watermark_offsets(part, 10, cached=False)[1] for part in parts]
                if all(part.offset == end for part, end in zip(committed, ends, strict=True) if end):
                    break
            except KafkaException:
                pass
            assert time.monotonic() < deadline, "the ordinary agent does not get to the end"
            time.sleep(0.5)
        onlooker.close()


def contrast(folder: Path, *, seed: int, events: int, faults: int) -> Contrast:
    """Has faults strike an ordinary agent under traffic; gives what it lost and counted twice.

    Args:
        folder: for everything; empty.
        seed: of traffic and faults.
        events: to send.
        faults: to strike with.
    """
    rng = random.Random(seed)
    kinds: dict[str, Callable[[Scene], None]] = {
        "worker killed": Scene.kill,
        "worker paused": Scene.pause,
        "broker killed": Scene.kill_broker,
    }
    names = [name for _ in range(-(-faults // len(kinds))) for name in rng.sample(sorted(kinds), len(kinds))][:faults]
    scene = Scene(folder, seed)
    try:
        scene.agent.start()
        for name in names:
            scene.flow(events // faults)
            time.sleep(rng.uniform(3, 6))  # it takes that long to join its group
            kinds[name](scene)
        scene.settle()
        scene.agent.stop()
        found = tally(scene.folder / "agent", scene.sent)
    finally:
        scene.agent.kill()
        Stage.__exit__(scene.stage)
        scene.broker.kill()
    return Contrast(again=scene.traffic.again, strikes={name: names.count(name) for name in kinds}, tally=found)
