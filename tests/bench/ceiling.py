"""The ceiling: records taken from Kafka by confluent-kafka, 4,096 at a time, and nothing done with them."""

from typing import Any

from confluent_kafka import Consumer

from penchant.settings import Settings, load_settings
from tests.bench.rig import Meter, answer, asked

BATCH = 4_096
WAIT_S = 0.5


def measure(settings: Settings, *, topic: str, group: str, events: int) -> dict[str, Any]:
    """Consumes a log."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    meter = Meter()
    while meter.count < events:
        messages = consumer.consume(BATCH, WAIT_S)
        if messages:
            meter.add(len(messages))
    consumer.close()
    return {"marks": meter.marks}


if __name__ == "__main__":
    answer(measure(load_settings(), **asked()))
