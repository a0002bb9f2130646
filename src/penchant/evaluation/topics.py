"""penchant's own topics as a stream: every signal that they hold, as the lanes read it.

The history is that of the log, not of any store: what retention has removed is not evaluated. A signal counts once
however often it was sent, and bounds of profiles do not apply, for they truncate what a profile keeps and not what was.
"""

from collections.abc import Iterable

from penchant.evaluation.protocol import Progress
from penchant.evaluation.stream import UNKNOWN_TIME, Listing, Moment, Stream, arranged
from penchant.profile.affinity import is_positive
from penchant.profile.identity import Identity
from penchant.profile.signals import Signal, Strength, merge
from penchant.settings import Settings
from penchant.streams.codec import Unusable
from penchant.streams.interpret import Draft, Reader
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from penchant.verify.log import Log

__all__ = ["read_topics"]

PROGRESS_RECORDS = 5_000

Signals = dict[tuple[str, Strength], list[Signal]]


def read_topics(settings: Settings, *, progress: Progress | None = None) -> Stream:
    """The stream of a namespace's topics, up to where they end now. Workers may run meanwhile.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigurationError: it refuses, or a topic does not exist.
    """
    tell = progress or (lambda *_: None)
    reader = Reader(Identity(settings.id_key.get_secret_value()), settings.profile)
    signals: Signals = {}
    drafts: dict[str, Draft] = {}
    with Log(settings) as log:
        extents = log.extents()
        total = sum(extent.end - extent.low for extent in extents.values() if extent.end is not None)
        starts = {source: extent.low for source, extent in extents.items()}
        for count, record in enumerate(log.read(starts, extents)):
            take(reader, log.topics[record.topic], record, signals, drafts)
            if count % PROGRESS_RECORDS == 0:
                tell("reading the log", count, total)
    tell("reading items", 0, 0)
    with TopicReader(settings, Topic.ITEMS, from_beginning=True) as items:
        for record in items.to_end():
            take(reader, Topic.ITEMS, record, signals, drafts)
    moments = (
        Moment(one.time, user, one.item_id, one.weight, is_positive(one))
        for (user, _), sent in signals.items()
        for one in merge(sent, limit=len(sent))
    )
    return arranged(moments, listings(drafts.values()))


def take(reader: Reader, topic: Topic, record: Record, signals: Signals, drafts: dict[str, Draft]) -> None:
    """Adds what a record says; what the lanes would put among the dead letters says nothing."""
    user, signal, draft = "", None, None
    try:
        if topic is Topic.CLICKS:
            user, signal = reader.click(record)
        elif topic is Topic.POSTS:
            user, signal, draft = reader.post(record)
        elif topic is Topic.MEDIA_UPLOADS:
            user, signal, draft = reader.upload(record)
        else:
            draft = reader.item(record)
    except Unusable:
        return
    if signal is not None:
        signals.setdefault((user, signal.strength), []).append(signal)
    if draft is not None:
        known = drafts.get(draft.item.item_id)
        if known is None or draft.item.version > known.item.version:
            drafts[draft.item.item_id] = draft


def listings(drafts: Iterable[Draft]) -> list[Listing]:
    """Items as they are now: recommendable ones are listed. When one came up is known where a user made it."""
    return [
        Listing(
            item=draft.item.item_id,
            text=draft.text,
            categories=draft.item.tags,
            listed=not (draft.item.private or draft.item.withdrawn),
            released=UNKNOWN_TIME if draft.author is None else draft.item.version[0],
        )
        for draft in drafts
    ]
