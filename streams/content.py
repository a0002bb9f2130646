"""The content lane: what an event contains. It embeds items, posts and uploads, and alone writes items.

A part that cannot be embedded is a dead letter with its reason; the rest of the item counts. An item of which
nothing is left becomes a *void* one, so that nobody waits for it. What was refused is kept with the item, because
a crash between store and commit must find it again without embedding anew.

An item that names an entity of the knowledge graph has a place there once a trained graph is published. Items are
written with the place that is known then, and refreshed afterwards: it may have changed meanwhile.
"""

from collections.abc import Iterable, Sequence

import msgspec

from penchant.encoders.embedder import Embedder
from penchant.encoders.media import MediaReader
from penchant.profile.items import Item, Items, Refused
from penchant.settings import Settings
from penchant.streams import metrics
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, Unusable, encode
from penchant.streams.dead_letters import dead_letter
from penchant.streams.entities import EntityKeeper
from penchant.streams.events import ItemReady
from penchant.streams.interpret import Draft, Reader
from penchant.streams.lane import Batch
from penchant.streams.ledger import Due, Handled
from penchant.streams.making import ItemMaker
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic

__all__ = ["GROUP", "LANE", "TOPICS", "ContentHandler"]

LANE = "content"
GROUP = "penchant-content"
TOPICS = (Topic.ITEMS, Topic.POSTS, Topic.MEDIA_UPLOADS, Topic.ENTITY_VECTORS, Topic.GRAPH_MODEL)


class ContentHandler:
    """Embeds items and stores them.

    Args:
        settings: names of topics.
        reader: reads records.
        embedder: embeds.
        items: where they go.
        entities: keeps what is published of the knowledge graph, and gives items their places in it.
        media: reads what records refer to.
    """

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        embedder: Embedder,
        items: Items,
        entities: EntityKeeper,
        *,
        media: MediaReader,
    ) -> None:
        self._topics = {settings.prefixed(topic): topic for topic in TOPICS}
        self._item_ready = settings.prefixed(Topic.ITEM_READY)
        self._dead_letters = settings.prefixed(Topic.DEAD_LETTERS)
        self._reader = reader
        self._items = items
        self._places = entities.places
        self._maker = ItemMaker(embedder, media, entities.places)
        self._entities = entities

    async def handle(self, batch: Batch) -> Handled:
        """Embeds and stores what a batch contains."""
        topic = self._topics[batch.topic]
        if topic is Topic.ENTITY_VECTORS or topic is Topic.GRAPH_MODEL:
            keep = self._entities.vectors if topic is Topic.ENTITY_VECTORS else self._entities.models
            refused = await keep(batch.records)
            return Handled(outputs=[(record.partition, self._dead_letter(record, error)) for record, error in refused])
        outputs: list[tuple[int, Output]] = []
        drafts: list[tuple[Record, Draft]] = []
        for record in batch.records:
            try:
                drafts.append((record, self._read(topic, record)))
            except Unusable as error:
                outputs.append((record.partition, self._dead_letter(record, error)))
        stored = await self._store([draft for _, draft in drafts])
        for record, draft in drafts:
            item = stored[draft.item.item_id]
            if item.version == draft.item.version:
                outputs += [(record.partition, self._dead_letter(record, refusal(part))) for part in item.refused]
            if draft.author is not None:
                outputs.append((record.partition, self._ready(draft.author, item.item_id)))
        return Handled(outputs=outputs)

    async def refresh(self, due: Sequence[Due]) -> list[Output]:  # noqa: ARG002  the handlers' protocol
        """Nothing: this lane touches no user."""
        return []

    async def release(self) -> None:
        """Nothing is remembered of users."""

    async def _store(self, drafts: Sequence[Draft]) -> dict[str, Item]:
        """Stores the newest of each item, unless one as new is there; gives the items as they are now."""
        newest = newest_of(drafts)
        stored = await self._items.get(newest)

        def is_news(draft: Draft) -> bool:
            known = stored.get(draft.item.item_id)
            return known is None or known.version < draft.item.version

        fresh = {item_id: draft for item_id, draft in newest.items() if is_news(draft)}
        # Of what is withdrawn, too, the last content that it had, whether that was stored before or comes beside it.
        described = newest_of(draft for draft in drafts if not draft.item.withdrawn)
        made = await self._maker.make([draft for name, draft in described.items() if name in fresh and is_news(draft)])
        contents = {one.item.item_id: (one.item, one.vector) for one in made}
        withdrawn = [draft.item for draft in fresh.values() if draft.item.withdrawn]
        # The vector of a withdrawn item stays: past signals speak of it.
        vectors = await self._items.vectors([item.item_id for item in withdrawn])
        for item in withdrawn:
            name = item.item_id
            last, vector = contents.get(name) or (stored.get(name), vectors.get(name))
            contents[name] = still_known(item, last), vector
        await self._items.put(list(contents.values()))
        written = stored | {name: item for name, (item, _) in contents.items()}
        await self._places.refresh(item_id for item_id, item in written.items() if item.entity)
        return written

    def _read(self, topic: Topic, record: Record) -> Draft:
        if topic is Topic.POSTS:
            return self._reader.post(record)[2]
        if topic is Topic.MEDIA_UPLOADS:
            return self._reader.upload(record)[2]
        return self._reader.item(record)

    def _dead_letter(self, record: Record, error: Unusable) -> Output:
        metrics.DEAD_LETTERS.labels(LANE, error.reason).inc()
        return dead_letter(record, error, topic=self._dead_letters)

    def _ready(self, author: str, item_id: str) -> Output:
        return Output(
            topic=self._item_ready,
            key=author.encode(),
            value=encode(ItemReady(user_id=author, item_id=item_id)),
            headers={CONTENT_TYPE: MSGPACK},
        )


def newest_of(drafts: Iterable[Draft]) -> dict[str, Draft]:
    """The newest draft of each item."""
    newest: dict[str, Draft] = {}
    for draft in drafts:
        known = newest.get(draft.item.item_id)
        if known is None or known.item.version <= draft.item.version:
            newest[draft.item.item_id] = draft
    return newest


def still_known(withdrawn: Item, known: Item | None) -> Item:
    """A withdrawn item with what the vector of the one that it withdraws was made from: past signals speak of it."""
    if known is None:
        return withdrawn
    return msgspec.structs.replace(
        withdrawn,
        title=known.title,
        text=known.text,
        tags=known.tags,
        entity=known.entity,
        media=known.media,
        placed=known.placed,
        modalities=known.modalities,
    )


def refusal(part: Refused) -> Unusable:
    """A part that could not be embedded, as the reason of a dead letter."""
    return Unusable(part.detail, reason=f"{part.modality}-{part.reason}")
