"""Items anew: what other encoders make of what the old store has kept of them, beside what need not be made again.

A slice whose encoder is the same is taken over. What stood in a record itself, and what is not where it was, cannot be
had again: the item has its other slices, and stands as slightly older than its record, so that the record may make it
whole, should it be read again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from penchant.encoders.embedder import AUDIO, TEXT
from penchant.encoders.embedder import space as encoder_space
from penchant.profile.fusion import Space
from penchant.profile.items import Item, Items, Stored, Version
from penchant.profile.places import Places
from penchant.reindex.sides import InUse
from penchant.reindex.tally import Tally
from penchant.settings import EncoderSettings
from penchant.streams.events import Media, MediaKind
from penchant.streams.interpret import Draft
from penchant.streams.making import ItemMaker, Made

__all__ = ["ItemCopier", "Plan", "batches", "carried", "plan_of"]

BATCH = 256  # items: enough for encoders to sort by length
BATCH_MEDIA = 64  # of them, that are read: what they occupy is bounded by that

Vector = NDArray[np.float32]


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done to each item.

    Attributes:
        taken: slices that are taken over.
        embedded: slices that are embedded.
        modalities: that are read for those.
    """

    taken: tuple[str, ...]
    embedded: tuple[str, ...]
    modalities: AbstractSet[str]


class Lost(Struct, frozen=True):
    """A part of an item that cannot be had again, and why."""

    modality: str
    reason: str


def plan_of(old: EncoderSettings, new: EncoderSettings) -> Plan:
    """What other encoders ask for.

    Raises:
        ConfigurationError: an encoder's dimension and fingerprint cannot be known in this process.
    """
    before, after = encoder_space(old), encoder_space(new)

    def same(name: str) -> bool:
        return name in before.dimensions and all(
            kept[name] == now[name]
            for kept, now in (
                (before.dimensions, after.dimensions),
                (before.fingerprints, after.fingerprints),
                (before.modalities, after.modalities),
            )
        )

    taken = tuple(name for name in after.dimensions if same(name))
    embedded = tuple(name for name in after.dimensions if name not in taken)
    modalities = {modality for name in embedded for modality in after.modalities[name]}
    if new.speech is not None and TEXT in modalities:
        modalities.add(AUDIO)  # what is said in sounds is part of the text
    return Plan(taken=taken, embedded=embedded, modalities=frozenset(modalities))


Lossy = tuple[str, Version]  # an item in a version


class ItemCopier:
    """Makes the items of one store anew in another.

    Args:
        maker: embeds, for the new store.
        plan: what to embed.
        before: the old store's space.
        items: of the new store.
        places: of the new store.
        tally: of what was done.
        lost: items of which something could not be had in this run; they are not tried again.
    """

    def __init__(
        self,
        maker: ItemMaker,
        plan: Plan,
        *,
        before: Space,
        items: Items,
        places: Places,
        tally: Tally,
        lost: set[Lossy],
    ) -> None:
        self._maker = maker
        self._plan = plan
        self._before = before
        self._items = items
        self._places = places
        self._tally = tally
        self._lost = lost

    async def copy(self, stored: Sequence[Stored]) -> int:
        """Makes those of some items that the new store has not, or not in this version; gives how many.

        Args:
            stored: in the old store.

        Raises:
            InUse: somebody else writes the new store.
        """
        known = {one.item.item_id: one for one in await self._items.stored(one.item.item_id for one in stored)}
        wanted = [
            one
            for one in stored
            if (one.item.item_id, one.item.version) not in self._lost and is_news(one.item, known.get(one.item.item_id))
        ]
        if wanted:
            made = [
                Stored(item=item, vector=vector, token=known[item.item_id].token if item.item_id in known else None)
                for item, vector in await self._made(wanted)
            ]
            better = [one for one in made if is_better(one.item, known.get(one.item.item_id))]
            if len(await self._items.replace(better)) < len(better):
                raise InUse
        # Also those that are there: another graph may have come into force since.
        await self._places.refresh(one.item.item_id for one in stored if one.item.entity)
        self._tally.items += len(wanted)
        return len(wanted)

    async def _made(self, wanted: Sequence[Stored]) -> list[tuple[Item, Vector | None]]:
        taken = [self._taken(one) for one in wanted]
        made = await self._maker.make(
            [draft_of(one.item) for one in wanted], modalities=self._plan.modalities, taken=taken
        )
        return [self._judged(one, new, slices) for one, new, slices in zip(wanted, made, taken, strict=True)]

    def _taken(self, stored: Stored) -> dict[str, Vector]:
        """The slices of an item that need not be made again."""
        slices = {} if stored.vector is None else self._before.split(stored.vector)
        return {name: slices[name] for name in self._plan.taken if name in slices}

    def _judged(self, old: Stored, new: Made, taken: Mapping[str, Vector]) -> tuple[Item, Vector | None]:
        """An item as it is to be stored, with what is to be said of it."""
        lost = [*lost_of(old.item, self._plan), *(Lost(part.modality, part.reason) for part in new.unread)]
        refused = [part for part in new.item.refused if part not in new.unread]
        self._tally.unavailable.update(f"{part.modality}-{part.reason}" for part in lost)
        self._tally.refused.update(f"{part.modality}-{part.reason}" for part in refused)
        again = self._plan.modalities & {TEXT, *(one.kind for one in old.item.media if one.uri)}
        kept = [part for part in old.item.refused if part.modality not in again]
        item = structs.replace(new.item, refused=(*kept, *refused))
        vector = new.vector
        if old.vector is not None and vector is not None:
            vector = carried(self._before, old.vector, self._items.space, vector, taken)
        if lost:
            self._lost.add((item.item_id, item.version))
        return (older(item) if lost else item), vector


def is_news(item: Item, known: Stored | None) -> bool:
    """Whether the new store has nothing as new of an item, or nothing whole."""
    return known is None or known.item.version < item.version


def is_better(made: Item, known: Stored | None) -> bool:
    """Whether an item made now is to stand in place of the known one; not where another try found less of the same."""
    if known is None or made.version != known.item.version:
        return True
    same = all(getattr(made, name) == getattr(known.item, name) for name in ("title", "text", "tags", "media"))
    return not same or set(made.modalities) > set(known.item.modalities)


async def batches(items: AsyncIterator[Stored], plan: Plan) -> AsyncIterator[list[Stored]]:
    """Items, some at a time: fewer where there is much to read."""
    batch: list[Stored] = []
    media = 0
    async for one in items:
        batch.append(one)
        media += sum(part.kind in plan.modalities for part in one.item.media)
        if len(batch) == BATCH or media >= BATCH_MEDIA:
            yield batch
            batch, media = [], 0
    if batch:
        yield batch


def draft_of(item: Item) -> Draft:
    """A stored item as it came, as far as that can be read again."""
    media = tuple(Media(kind=MediaKind(one.kind), uri=one.uri) for one in item.media if one.kind and one.uri)
    return Draft(item=structs.replace(item, refused=(), listed=False), media=media)


def lost_of(item: Item, plan: Plan) -> list[Lost]:
    """What of a stored item cannot be read again, though it may have counted."""
    refused = Counter(part.modality for part in item.refused)
    media = Counter(one.kind for one in item.media)
    found = [
        Lost(one.kind or "media", "inline" if one.kind else "unknown-kind")
        for one in item.media
        if not (one.kind and one.uri)
        and (not one.kind or one.kind in plan.modalities)
        and refused[one.kind] < media[one.kind]  # else all of the kind was refused when it came
    ]
    # An older penchant has kept nothing of what was withdrawn.
    if item.withdrawn and item.modalities and not item.media and not draft_of(item).text and TEXT in plan.modalities:
        found.append(Lost(TEXT, "withdrawn"))
    return found


def older(item: Item) -> Item:
    """The item as if its record stood one offset before."""
    at, recorded, offset = item.version
    return structs.replace(item, version=(at, recorded, offset - 1))


def carried(before: Space, old: Vector, after: Space, new: Vector, names: Iterable[str]) -> Vector:
    """A content vector whose slices named are those of the old one to the bit, wherever their shares are the same.

    Args:
        before: the old vector's space.
        old: shape (dimension of `before`,).
        after: the new vector's space.
        new: shape (dimension of `after`,).
        names: of slices that were taken over.
    """
    shares = before.shares(before.split(old).keys()), after.shares(after.split(new).keys())
    bounds = before.bounds(), after.bounds()
    found = new.copy()
    for name in names:
        if name in shares[1] and shares[0].get(name) == shares[1][name]:
            found[bounds[1][name]] = old[bounds[0][name]]
    return found
