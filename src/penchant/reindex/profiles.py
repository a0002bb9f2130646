"""Profiles as they are, with views of the new store's items; and what no encoder has filled, point by point."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from msgspec import structs

from penchant.profile.cache import ItemVectors
from penchant.profile.interest import Horizons
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.store.base import CollectionLayout, Point, SearchFilter, Store
from penchant.profile.updater import differs, with_views
from penchant.reindex.sides import InUse

__all__ = ["copy_points", "copy_profiles", "profile_batches"]

BATCH = 128  # profiles
PAGE = 256  # points


async def profile_batches(profiles: Profiles) -> AsyncIterator[list[Profile]]:
    """All profiles of a store without their views, some at a time."""
    batch: list[Profile] = []
    async for one in profiles.all(views=False):
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def copy_profiles(batch: Sequence[Profile], profiles: Profiles, vectors: ItemVectors, horizons: Horizons) -> int:
    """Writes profiles of another store, with views of this one's items; gives how many were not there like that.

    They keep the versions that they have: the lists that were published are of these.

    Args:
        batch: of the other store.
        profiles: of this one.
        vectors: of this one's items.
        horizons: of the views.

    Raises:
        InUse: somebody else writes them.
    """
    known = await profiles.load(one.user for one in batch)
    tokens = {user: profile.token for user, profile in known.items()}
    drafts = [structs.replace(one, token=tokens.get(one.user), version=one.version - 1) for one in batch]
    changed = [one for one in await with_views(drafts, vectors, horizons) if differs(one, known.get(one.user))]
    if len(await profiles.write(changed)) < len(changed):
        raise InUse
    return len(changed)


async def copy_points(source: Store, target: Store, layout: CollectionLayout, without: Sequence[UUID]) -> int:
    """Copies the points of a collection; gives how many."""
    copied = 0
    page: list[Point] = []
    named = (*layout.vectors, *layout.sparse)
    async for point in source.scroll(layout.name, SearchFilter(without=without), vectors=named, page=PAGE):
        page.append(point)
        if len(page) == PAGE:
            await target.put(layout.name, page)
            copied += len(page)
            page = []
    if page:
        await target.put(layout.name, page)
    return copied + len(page)
