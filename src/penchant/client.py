"""The client's front door: `from penchant.client import Publisher, Subscriber`."""

from penchant.streams.client import (
    AsyncPublisher,
    AsyncSubscriber,
    DeliveryFailed,
    Event,
    InvalidEvent,
    Publisher,
    Subscriber,
)
from penchant.streams.events import Click, ClickAction, Item, Media, MediaKind, MediaUpload, Post, Recommendations

__all__ = [
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
