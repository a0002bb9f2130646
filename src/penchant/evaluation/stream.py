"""A recorded stream as arrays: users and items as integers, events in the order in which they are played."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["UNKNOWN_TIME", "Stream"]

UNKNOWN_TIME = np.iinfo(np.int64).min


class Stream(Struct, frozen=True, kw_only=True, eq=False):
    """Events in time order, then by user, then by item id; n events, m items.

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
