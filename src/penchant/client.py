"""The client's front door: `from penchant.client import Publisher, Subscriber`."""

from penchant.streams.client import (
    AsyncPublisher,
    DeliveryFailed,
    Event,
    InvalidEvent,
    Publisher,
)
from penchant.streams.events import (
    ANYONE,
    Click,
    ClickAction,
    Item,
    Media,
    MediaKind,
    MediaUpload,
    Post,
    Recommendations,
)
from penchant.streams.subscriber import AsyncSubscriber, Subscriber

__all__ = [
    "ANYONE",
    "AsyncPublisher",
    "AsyncSubscriber",
    "Click",
    "ClickAction",
    "DeliveryFailed",
    "Event",
    "InvalidEvent",
    "Item",
    "Media",
    "MediaKind",
    "MediaUpload",
    "Post",
    "Publisher",
    "Recommendations",
    "Subscriber",
]
