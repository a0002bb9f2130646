"""The made world that all measurements share: items with clustered vectors, users and items by Zipf's law, clicks.

Everything is drawn from fixed seeds, so that all contestants meet the same events in the same order.
"""

import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Producer
from msgspec import Struct
from numpy.typing import NDArray

from penchant.parts import Parts
from penchant.profile.fusion import Space
from penchant.profile.items import Item
from penchant.settings import Settings
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, encode
from penchant.streams.connection import producer_options
from penchant.streams.events import Click, ClickAction

__all__ = [
    "ACTIONS",
    "DIMENSION",
    "HEADERS",
    "Clicks",
    "catalogue",
    "fill",
    "item_id",
    "made_clicks",
    "send",
    "user_id",
    "vectors",
]

Vectors = NDArray[np.float32]

DIMENSION = 384
CENTRES = 40
SEED = 7
PAGE = 500
AGE_MS = 1_000  # between the times of two items
# Of ten things that users do six are views, three clicks, and one is a like.
ACTIONS = (ClickAction.VIEW,) * 6 + (ClickAction.CLICK,) * 3 + (ClickAction.LIKE,)
HEADERS: list[tuple[str, str | bytes | None]] = [(CONTENT_TYPE, MSGPACK)]
DELIVERY_TIMEOUT_MS = 60_000


class Clicks(Struct, frozen=True, kw_only=True, eq=False):
    """Events, n of them: numbers of users, of items, and of `ACTIONS`; shape (n,) each."""

    prefix: str
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    actions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def encoded(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the records."""
        rows = zip(self.users.tolist(), self.items.tolist(), self.actions.tolist(), strict=True)
        for number, (user, item, action) in enumerate(rows):
            name = user_id(user)
            click = Click(
                event_id=f"{self.prefix}-{number}", user_id=name, item_id=item_id(item), action=ACTIONS[action]
            )
            yield name.encode(), encode(click)


def user_id(number: int) -> str:
    """A user's id; small numbers are the busiest."""
    return f"user-{number}"


def item_id(number: int) -> str:
    """An item's id; small numbers are the most popular."""
    return f"item-{number}"


def made_clicks(count: int, *, users: int, items: int, prefix: str, seed: int = SEED) -> Clicks:
    """Clicks of users on items, both by Zipf's law.

    Args:
        count: how many.
        users: how many there are.
        items: likewise.
        prefix: of the event ids; the same events under other ids are other events.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    return Clicks(
        prefix=prefix,
        users=zipf(rng, users, count),
        items=zipf(rng, items, count),
        actions=rng.integers(0, len(ACTIONS), count),
    )


def zipf(rng: np.random.Generator, kinds: int, count: int) -> NDArray[np.int64]:
    """Numbers below `kinds`, each as likely as the inverse of its rank."""
    shares = np.cumsum(1 / np.arange(1, kinds + 1))
    found: NDArray[np.int64] = np.searchsorted(shares, rng.random(count) * shares[-1])
    return found


def vectors(count: int) -> Iterator[Vectors]:
    """Unit vectors of items in pages, shape (at most 500, 384) each: around a few centres, as catalogues are."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((CENTRES, DIMENSION), np.float32)
    for start in range(0, count, PAGE):
        numbers = np.arange(start, min(start + PAGE, count))
        page = centres[numbers % CENTRES] + rng.standard_normal((len(numbers), DIMENSION), np.float32)
        yield page / np.linalg.norm(page, axis=1, keepdims=True)


def catalogue(count: int, space: Space) -> Iterator[list[tuple[Item, Vectors | None]]]:
    """Items that may be listed, with content vectors in a space whose text slice they fill; in pages."""
    now = time.time_ns() // 1_000_000
    for start, page in zip(range(0, count, PAGE), vectors(count), strict=True):
        yield [(made_item(number, now), space.fuse({"text": text})) for number, text in enumerate(page, start)]


def made_item(number: int, now_ms: int) -> Item:
    """An item of the catalogue."""
    return Item(
        item_id=item_id(number),
        version=(now_ms - number * AGE_MS, now_ms, number),
        listed=True,
        title=f"title {number}",
        modalities=("text",),
    )


async def fill(parts: Parts, items: int) -> None:
    """Stores a catalogue."""
    for page in catalogue(items, parts.space):
        await parts.items.put(page)


def send(settings: Settings, topic: str, clicks: Clicks) -> None:
    """Produces clicks, and returns when the broker has all of them."""
    options = producer_options(settings, delivery_timeout_ms=DELIVERY_TIMEOUT_MS)
    producer = Producer({**options, "linger.ms": 50, "queue.buffering.max.kbytes": 256 * 1024})
    failed: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    for key, value in clicks.encoded():
        while True:
            try:
                producer.produce(topic, value, key, headers=HEADERS, on_delivery=delivered)
            except BufferError:
                producer.poll(0.1)
            else:
                break
        producer.poll(0)
    producer.flush(60)
    if failed:
        raise RuntimeError(f"{len(failed)} records were not delivered: {failed[0]}")
