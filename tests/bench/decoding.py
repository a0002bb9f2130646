"""The lane with decoding: all that a lane does with clicks, less what they are for.

The real lane as a worker runs it, Faust's channel included: each record becomes a signal, checked as ever, and is then
forgotten; the offsets are committed in transactions.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from penchant.profile.identity import Identity
from penchant.settings import Settings, load_settings
from penchant.streams.app import StreamApp
from penchant.streams.interpret import Reader
from penchant.streams.lane import Batch, Lane
from penchant.streams.ledger import Due, Handled
from penchant.streams.process import tune_process
from penchant.streams.publish import open_publisher
from penchant.streams.records import Output, Record
from tests.bench.rig import Backlog, Meter, answer, asked

NAME = "decoding"
LOOK_S = 0.05


class Decoding:
    """A lane's handler that reads clicks.

    Args:
        reader: reads them.
        meter: told of each batch.
    """

    def __init__(self, reader: Reader, meter: Meter) -> None:
        self._reader = reader
        self._meter = meter

    async def handle(self, batch: Batch) -> Handled:
        """Reads a batch."""
        for record in batch.records:
            self._reader.click(record)
        self._meter.add(len(batch.records))
        return Handled()

    async def refresh(self, due: Sequence[Due]) -> list[Output]:  # noqa: ARG002  the handlers' protocol
        """Nobody is due."""
        return []

    async def release(self) -> None:
        """Remembers nothing."""


async def measure(settings: Settings, *, topic: str, group: str, events: int) -> dict[str, Any]:
    """Reads a log through a lane."""
    tune_process()  # as a worker does
    meter = Meter()
    handler = Decoding(Reader(Identity(settings.id_key.get_secret_value()), settings.profile), meter)
    app = StreamApp(settings, keep)
    app.add(
        Lane(
            NAME,
            group=group,
            topics=(topic,),
            settings=settings,
            handler=handler,
            submit=app.submit_to(handler, NAME, (topic,)),
            positions=None,
            publisher=open_publisher(settings, NAME),
            batch_records=settings.worker.batch_records,
        )
    )
    await app.start()
    with Backlog(settings, settings.prefixed(group), topic) as backlog:
        while meter.count < events or await asyncio.to_thread(backlog.records):  # noqa: ASYNC110  the broker calls nobody
            await asyncio.sleep(LOOK_S)
        committed = time.monotonic()
    await app.stop()
    return {"marks": meter.marks, "committed": committed, "batches": len(meter.marks)}


async def keep(record: Record) -> None:
    """Takes a fact of the graph, of which there are none here."""
    raise AssertionError(f"a record on {record.topic}")


if __name__ == "__main__":
    answer(asyncio.run(measure(load_settings(), **asked())))
