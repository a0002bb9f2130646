"""The partitions that are this worker's now, and how far it is with each of them."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from penchant.streams.assignment import LogRecreated, PartitionLog
from penchant.streams.inbox import Batch
from penchant.streams.records import Record, SourceKey

__all__ = ["Held"]


class Held:
    """One lane's partitions.

    Attributes:
        expected: next offset of each.
        committed: how far the group has committed each.
        identities: of topics, by name: the ids that they had when their partitions were assigned.
        revocations: how often partitions have been taken away.
    """

    def __init__(self) -> None:
        self.expected: dict[SourceKey, int] = {}
        self.committed: dict[SourceKey, int] = {}
        self.identities: dict[str, str] = {}
        self.revocations = 0
        self._assignments: dict[SourceKey, int] = {}  # of each partition: which one it is
        self._assignment = 0

    def learn(self, logs: Mapping[SourceKey, PartitionLog]) -> None:
        """Notes what the broker says of partitions that are about to begin."""
        self.identities |= {topic: known.topic_id for (topic, _), known in logs.items()}
        self.committed |= {source: known.committed for source, known in logs.items() if known.committed is not None}

    def begin(self, starts: Mapping[SourceKey, int]) -> None:
        """Partitions are this worker's from now on, and read from given offsets."""
        for source, offset in starts.items():
            self._assignment += 1
            self._assignments[source] = self._assignment
            self.expected[source] = offset
            self.committed.setdefault(source, offset)

    def end(self, partitions: AbstractSet[SourceKey]) -> None:
        """Partitions are this worker's no longer."""
        self.revocations += 1
        for source in partitions:
            for known in (self._assignments, self.expected, self.committed):
                known.pop(source, None)

    def taken(self, records: Iterable[Record]) -> dict[str, Batch]:
        """Records that were taken from the log, by topic; without those of partitions that have gone meanwhile.

        Raises:
            LogRecreated: one has been read before.
        """
        kept: dict[str, list[Record]] = {}
        for record in records:
            source = (record.topic, record.partition)
            expected = self.expected.get(source)
            if expected is None:
                continue
            if record.offset < expected:
                raise LogRecreated(
                    f"{record.topic}[{record.partition}] went back from offset {expected} to {record.offset}"
                )
            self.expected[source] = record.offset + 1
            kept.setdefault(record.topic, []).append(record)
        return {topic: self._batch(topic, batch) for topic, batch in kept.items()}

    def owned(self, batch: Batch) -> dict[int, int]:
        """The batch's next offsets, of those partitions that have been this worker's ever since."""
        return {
            partition: offset
            for partition, offset in batch.next_offsets.items()
            if self._assignments.get((batch.topic, partition)) == batch.assignments[partition]
        }

    def settle(self, offsets: Mapping[SourceKey, int]) -> None:
        """Offsets have been committed."""
        self.committed |= {source: offset for source, offset in offsets.items() if source in self.committed}

    def _batch(self, topic: str, records: Sequence[Record]) -> Batch:
        return Batch(
            topic=topic,
            records=records,
            assignments={record.partition: self._assignments[topic, record.partition] for record in records},
            settled={record.partition: self.committed.get((topic, record.partition), 0) for record in records},
        )
