"""Making items of drafts: their texts and media are embedded, and they take their places in the knowledge graph.

The content lane makes items of records; who changes a model makes them anew of what the store has kept of them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.base import Undecodable
from penchant.encoders.embedder import AUDIO, IMAGE, MODALITIES, TEXT, Content, Embedder
from penchant.encoders.media import MediaReader
from penchant.profile.items import Item, Refused
from penchant.profile.places import Places
from penchant.streams.events import Media
from penchant.streams.interpret import Draft

__all__ = ["ItemMaker", "Made"]

Vector = NDArray[np.float32]
Slices = Mapping[str, Vector]


class Made(Struct, frozen=True, kw_only=True):
    """An item as it is to be stored.

    Attributes:
        item: with all that was refused.
        vector: its content, shape (d,); None where nothing is left of it.
        unread: those refused parts that could not even be read.
    """

    item: Item
    vector: Vector | None
    unread: tuple[Refused, ...] = ()


class ItemMaker:
    """Makes items.

    Args:
        embedder: embeds.
        media: reads what drafts refer to.
        places: of items in the graph.
    """

    def __init__(self, embedder: Embedder, media: MediaReader, places: Places) -> None:
        self._embedder = embedder
        self._media = media
        self._places = places

    async def make(
        self,
        drafts: Sequence[Draft],
        *,
        modalities: AbstractSet[str] = frozenset(MODALITIES),
        taken: Sequence[Slices] | None = None,
    ) -> list[Made]:
        """Makes an item of each draft, in their order.

        Args:
            drafts: of items that are not withdrawn, or are to be embedded all the same.
            modalities: that are embedded; the others are not even read.
            taken: of each draft, slices that are known, and stand in place of what would be embedded.
        """
        resolved = await asyncio.gather(*(self._resolve(draft, modalities) for draft in drafts))
        embedded = await self._embedder.embed([content for content, _ in resolved])
        places = await self._places.of(draft.item.entity for draft in drafts)
        made = []
        for draft, result, (_, unread), known in zip(
            drafts, embedded, resolved, taken or [{}] * len(drafts), strict=True
        ):
            merged = {**result.slices, **known}
            slices = {name: merged[name] for name in self._embedder.dimensions if name in merged}
            item, vector = self._places.placed(draft.item, slices, places.get(draft.item.entity))
            refused = (Refused(part.modality, part.reason, part.detail) for part in result.refusals)
            item = msgspec.structs.replace(item, refused=(*unread, *refused))
            made.append(Made(item=item, vector=vector, unread=tuple(unread)))
        return made

    async def _resolve(self, draft: Draft, modalities: AbstractSet[str]) -> tuple[Content, list[Refused]]:
        """Reads a draft's media, all at once."""
        wanted = [one for one in draft.media if one.kind.value in modalities]
        media: dict[str, list[bytes]] = {IMAGE: [], AUDIO: []}
        refused: list[Refused] = []
        found = await asyncio.gather(*map(self._content_of, wanted))
        for one, content in zip(wanted, found, strict=True):
            if isinstance(content, Undecodable):
                refused.append(Refused(one.kind.value, content.reason, str(content)))
            else:
                media[one.kind.value].append(content)
        return Content(
            text=draft.text if TEXT in modalities else "",
            asks=draft.asks,
            images=tuple(media[IMAGE]),
            sounds=tuple(media[AUDIO]),
        ), refused

    async def _content_of(self, one: Media) -> bytes | Undecodable:
        try:
            return await self._media.read(one.uri, one.data)
        except Undecodable as refusal:
            return refusal
