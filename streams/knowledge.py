"""The knowledge agent: facts in from the `triples` topic, kept in the graph.

A record's key is the fact as a JSON array, `["head", "relation", "tail"]`, so that the compacted topic keeps every
fact of a head and a null value takes back the one that its key names.
"""

import asyncio

import msgspec
import structlog

from penchant.errors import Unavailable
from penchant.profile.graph import Fact, Graph
from penchant.streams import metrics
from penchant.streams.codec import Unusable, decode
from penchant.streams.dead_letters import dead_letter
from penchant.streams.events import Id, Triple
from penchant.streams.publish import Courier
from penchant.streams.records import Record

__all__ = ["KnowledgeKeeper", "triple_key"]

log = structlog.get_logger()

LANE = "knowledge"
PAUSE_S = 1.0


class KnowledgeKeeper:
    """Keeps facts.

    Args:
        graph: where they go.
        courier: sends dead letters.
        dead_letters: their topic.
    """

    def __init__(self, graph: Graph, courier: Courier, dead_letters: str) -> None:
        self._graph = graph
        self._courier = courier
        self._dead_letters = dead_letters

    async def keep(self, record: Record) -> None:
        """Keeps what a record says; returns when it is in the store, however long that takes."""
        while True:
            try:
                await self._keep(record)
            except Unavailable as error:
                log.warning("not available; will try again", lane=LANE, error=str(error))
                await asyncio.sleep(PAUSE_S)
            else:
                metrics.RECORDS.labels(LANE, record.topic).inc()
                return

    async def _keep(self, record: Record) -> None:
        try:
            fact = fact_of(record)
        except Unusable as error:
            metrics.DEAD_LETTERS.labels(LANE, error.reason).inc()
            await self._courier.send([dead_letter(record, error, topic=self._dead_letters)])
            return
        version = (record.timestamp, record.offset)
        if record.value is None:
            await self._graph.remove(fact, version)
        else:
            await self._graph.add(fact, version)


def triple_key(triple: Triple) -> bytes:
    """The key of a fact's record."""
    return msgspec.json.encode((triple.head, triple.relation, triple.tail))


def fact_of(record: Record) -> Fact:
    """The fact that a record states, or with a null value takes back."""
    if record.value is None:
        try:
            return Fact(*msgspec.json.decode(record.key or b"", type=tuple[Id, Id, Id]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unusable('the key is no ["head", "relation", "tail"]', reason="key-mismatch") from None
    triple = decode(Triple, record.value, record.headers)
    if record.key is not None and record.key != triple_key(triple):
        raise Unusable('the key is not the ["head", "relation", "tail"] of the value', reason="key-mismatch")
    return Fact(triple.head, triple.relation, triple.tail)
