"""A recorded stream as arrays: users and items as integers, events in the order in which they are played."""

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["UNKNOWN_TIME", "Listing", "Moment", "Stream", "arranged"]

UNKNOWN_TIME = int(np.iinfo(np.int64).min)
MAX_DIGITS = 18  # of a name that is taken for a number


class Stream(Struct, frozen=True, kw_only=True, eq=False):
    """Events in time order, then by user, then by item; n events, m items.

    Attributes:
        users: names by code.
        items: names by code: the whole catalogue, and whatever else events speak of.
        user: of each event, a code: shape (n,).
        item: likewise.
        time: of each event, epoch milliseconds: shape (n,).
        weight: of each event, as penchant folds it; negative for rejection: shape (n,).
        positive: whether an event is one that a recommender should have foreseen: shape (n,).
        texts: what the text encoder is given, by item code; "" for none.
        categories: of each item, by code, for calibration: genres, tags.
        listed: which items may be recommended: shape (m,).
        released: when each item came up, epoch milliseconds, `UNKNOWN_TIME` where that is not known: shape (m,); None
            where nothing is known of any.
    """

    users: Sequence[str]
    items: Sequence[str]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.int64]
    weight: NDArray[np.float32]
    positive: NDArray[np.bool_]
    texts: Sequence[str]
    categories: Sequence[tuple[str, ...]]
    listed: NDArray[np.bool_]
    released: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user)


class Moment(Struct, frozen=True, gc=False):
    """One event by names: the time in epoch milliseconds, the weight as penchant folds it."""

    time: int
    user: str
    item: str
    weight: float
    positive: bool


class Listing(Struct, frozen=True, kw_only=True):
    """One item by name; see `Stream` for what the fields mean."""

    item: str
    text: str = ""
    categories: tuple[str, ...] = ()
    listed: bool = True
    released: int = UNKNOWN_TIME


def arranged(moments: Iterable[Moment], listings: Iterable[Listing]) -> Stream:
    """The stream of events and items, in any order. Items that are spoken of and not described are not listed.

    Users and items are coded in the order of their names, numbers before other names and by their value, so that the
    order of events at one time is the same whatever they were read from.
    """
    happened = list(moments)
    described = {listing.item: listing for listing in listings}
    described |= {
        name: Listing(item=name, listed=False) for name in {moment.item for moment in happened} - described.keys()
    }
    users, items = sorted({moment.user for moment in happened}, key=by_number), sorted(described, key=by_number)
    user_codes, item_codes = ({name: code for code, name in enumerate(names)} for names in (users, items))
    user = np.array([user_codes[moment.user] for moment in happened], np.int32)
    item = np.array([item_codes[moment.item] for moment in happened], np.int32)
    time = np.array([moment.time for moment in happened], np.int64)
    order = np.lexsort((item, user, time))
    known = [described[name] for name in items]
    released = np.array([listing.released for listing in known], np.int64)
    return Stream(
        users=users,
        items=items,
        user=user[order],
        item=item[order],
        time=time[order],
        weight=np.array([moment.weight for moment in happened], np.float32)[order],
        positive=np.array([moment.positive for moment in happened], bool)[order],
        texts=[listing.text for listing in known],
        categories=[listing.categories for listing in known],
        listed=np.array([listing.listed for listing in known], bool),
        released=released if (released != UNKNOWN_TIME).any() else None,
    )


def by_number(name: str) -> tuple[int, int, str]:
    """What a name is sorted by."""
    number = name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS
    return (0, int(name), name) if number else (1, 0, name)
