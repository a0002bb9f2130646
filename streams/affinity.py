"""The affinity lane: what items have to do with each other. It alone writes rows.

A row notes how far it has taken in each partition of the records that transitions come from, and the interest lane
publishes those of a partition in their order. So a transition that comes again, because this lane's batch is read
again, or the interest lane's was after its store was set back, or because a publisher without transactions has
crashed, is found in its row and changes nothing.
"""

from collections.abc import Sequence

from penchant.profile.affinity import Transition
from penchant.profile.rows import Rows
from penchant.settings import Settings
from penchant.streams import events, metrics
from penchant.streams.codec import Unusable, decode
from penchant.streams.dead_letters import dead_letter
from penchant.streams.interpret import check_key
from penchant.streams.lane import Batch
from penchant.streams.ledger import Due, Handled
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic

__all__ = ["GROUP", "LANE", "TOPICS", "AffinityHandler", "transition_of"]

LANE = "affinity"
GROUP = "penchant-affinity"
TOPICS = (Topic.TRANSITIONS,)


class AffinityHandler:
    """Adds transitions to rows.

    Args:
        settings: names of topics.
        rows: written here.
    """

    def __init__(self, settings: Settings, rows: Rows) -> None:
        self._dead_letters = settings.prefixed(Topic.DEAD_LETTERS)
        self._rows = rows

    async def handle(self, batch: Batch) -> Handled:
        """Adds what a batch says to the rows."""
        transitions: dict[str, list[Transition]] = {}
        outputs: list[tuple[int, Output]] = []
        for record in batch.records:
            try:
                transition = transition_of(record)
            except Unusable as error:
                metrics.DEAD_LETTERS.labels(LANE, error.reason).inc()
                outputs.append((record.partition, dead_letter(record, error, topic=self._dead_letters)))
                continue
            transitions.setdefault(transition.item_id, []).append(transition)
        metrics.CONFLICTS.labels(LANE).inc(await self._rows.apply(transitions))
        return Handled(outputs=outputs)

    async def refresh(self, due: Sequence[Due]) -> list[Output]:  # noqa: ARG002  nobody is ever due
        """No lists."""
        return []

    async def release(self) -> None:
        """Nothing is remembered."""


def transition_of(record: Record) -> Transition:
    """The transition that a record of the `transitions` topic tells of.

    Raises:
        Unusable: the record cannot be used.
    """
    told = decode(events.Transition, record.value, record.headers)
    check_key(record, told.item_id)
    return Transition(
        item_id=told.item_id,
        at=told.at,
        previous=told.previous,
        origin=(told.origin.topic, told.origin.partition),
        offset=told.origin.offset,
    )
