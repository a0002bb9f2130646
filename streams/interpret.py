"""From records to what they mean: signals for the interest lane, items to embed for the content lane.

Posts and uploads are read by both lanes, by the same functions, so that both agree on which of them can be used:
the content lane dead-letters the others, the interest lane passes them over.
"""

from collections.abc import Mapping
from contextlib import suppress
from sys import intern
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from penchant.errors import ConfigurationError
from penchant.profile.identity import OWN_PREFIX, Identity
from penchant.profile.items import Item as StoredItem
from penchant.profile.items import Reference, Version
from penchant.profile.signals import DEFAULT_WEIGHTS, Action, Signal, signal_weight
from penchant.settings import ProfileSettings
from penchant.streams.codec import Unusable, decode, event_time_ms
from penchant.streams.events import (
    ANYONE,
    MAX_ID,
    Click,
    ClickAction,
    Id,
    Item,
    ItemReady,
    Media,
    MediaUpload,
    Post,
)
from penchant.streams.records import Record

__all__ = ["Draft", "Reader", "action_weights", "click_of"]

ACTIONS = {action: Action(action) for action in ClickAction}
Keyed = TypeVar("Keyed", Click, Post, MediaUpload, ItemReady)


class Draft(Struct, frozen=True, kw_only=True):
    """An item as a record describes it, not yet embedded.

    Attributes:
        item: what to store, with its text; not listed before it is embedded.
        media: to resolve and embed.
        author: the user to tell when it is there; None for the catalogue.
    """

    item: StoredItem
    media: tuple[Media, ...] = ()
    author: str | None = None

    @property
    def text(self) -> str:
        """What of the item is embedded as text."""
        return embedded_text(self.item.title, self.item.text, self.item.tags)

    @property
    def asks(self) -> bool:
        """Whether that asks for something: what is shown to nobody, and shows nothing, is a search."""
        return self.item.private and not self.item.media


class LooseClick(Click, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="click"):
    """A click whose ids have not been compared with their patterns, which takes longer than the rest of decoding."""

    event_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
    user_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
    item_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]


class Reader:
    """Reads records.

    Args:
        identity: names users' own items.
        settings: weights and scales of actions.
    """

    def __init__(self, identity: Identity, settings: ProfileSettings) -> None:
        self._identity = identity
        self._weights = action_weights(settings)
        self._rating_range = (settings.rating_low, settings.rating_high)

    def click(self, record: Record) -> tuple[str, Signal]:
        """The user and the signal of a record of the `clicks` topic.

        Raises:
            Unusable: the record cannot be used.
        """
        click = click_of(record)
        check_key(record, click.user_id)
        action = ACTIONS[click.action]
        if click.value is None and click.dwell_ms is None:
            weight = self._weights[action]
        else:
            weight = self._weight(action, value=click.value, dwell_ms=click.dwell_ms)
        if action is Action.RATE and click.value is None:
            raise Unusable("`rate` needs a `value`", reason="invalid")
        # One text for all signals on an item takes less memory, and is mostly near when it is compared or looked up.
        return click.user_id, Signal(
            event_time_ms(click.at, record.timestamp), click.event_id, intern(click.item_id), action, weight
        )

    def post(self, record: Record) -> tuple[str, Signal, Draft]:
        """The user, the signal and the item of a record of the `posts` topic.

        Raises:
            Unusable: the record cannot be used.
        """
        post = self._event(Post, record)
        if not post.text.strip() and not post.media:
            raise Unusable("a post needs `text` or `media`", reason="invalid")
        action = Action.POST if post.recommendable else Action.SEARCH
        signal = self._own_signal(record, post, action)
        item = StoredItem(
            item_id=signal.item_id,
            version=version(signal.time, record),
            listed=False,
            author=self._identity.author(post.user_id),
            text=post.text,
            tags=post.tags,
            media=references(post.media),
            private=not post.recommendable,
        )
        return post.user_id, signal, Draft(item=item, media=checked(post.media), author=post.user_id)

    def upload(self, record: Record) -> tuple[str, Signal, Draft]:
        """The user, the signal and the item of a record of the `media-uploads` topic.

        Raises:
            Unusable: the record cannot be used.
        """
        upload = self._event(MediaUpload, record)
        media = checked((Media(kind=upload.kind, uri=upload.uri, data=upload.data),))
        signal = self._own_signal(record, upload, Action.UPLOAD)
        item = StoredItem(
            item_id=signal.item_id,
            version=version(signal.time, record),
            listed=False,
            author=self._identity.author(upload.user_id),
            text=upload.caption,
            media=references(media),
            private=not upload.recommendable,
        )
        return upload.user_id, signal, Draft(item=item, media=media, author=upload.user_id)

    def item(self, record: Record) -> Draft:
        """The item of a record of the `items` topic; a null value withdraws the item that the key names.

        Raises:
            Unusable: the record cannot be used.
        """
        if record.value is None:
            withdrawn = StoredItem(
                item_id=withdrawn_id(record),
                version=version(record.timestamp, record),
                listed=False,
                withdrawn=True,
            )
            return Draft(item=withdrawn)
        item = decode(Item, record.value, record.headers)
        check_key(record, item.item_id)
        if item.item_id.startswith(OWN_PREFIX):
            raise Unusable(f"ids that begin with {OWN_PREFIX} are those of posts and uploads", reason="reserved-id")
        return Draft(
            item=StoredItem(
                item_id=item.item_id,
                version=version(event_time_ms(item.at, record.timestamp), record),
                listed=False,
                title=item.title,
                text=item.text,
                tags=item.tags,
                attributes=item.attributes,
                entity=item.entity or "",
                media=references(item.media),
            ),
            media=checked(item.media),
        )

    def item_ready(self, record: Record) -> ItemReady:
        """The content of a record of the `item-ready` topic.

        Raises:
            Unusable: the record cannot be used.
        """
        return self._event(ItemReady, record)

    def _own_signal(self, record: Record, event: Post | MediaUpload, action: Action) -> Signal:
        return Signal(
            event_time_ms(event.at, record.timestamp),
            event.event_id,
            self._identity.own_item(event.user_id, event.item_id or event.event_id),
            action,
            self._weight(action, value=None, dwell_ms=None),
        )

    def _weight(self, action: Action, *, value: float | None, dwell_ms: int | None) -> float:
        if value is None and dwell_ms is None:
            return self._weights[action]
        return signal_weight(
            action, value=value, dwell_ms=dwell_ms, weights=self._weights, rating_range=self._rating_range
        )

    @staticmethod
    def _event(kind: type[Keyed], record: Record) -> Keyed:
        event = decode(kind, record.value, record.headers)
        check_key(record, event.user_id)
        return event


def click_of(record: Record) -> Click:
    """The click of a record, as `decode` gives it.

    What can be printed has no control characters; of ids that cannot, and of all else, the patterns decide.

    Raises:
        Unusable: the value cannot be used.
    """
    with suppress(Unusable):
        click = decode(LooseClick, record.value, record.headers)
        if (
            click.event_id.isprintable()
            and click.user_id.isprintable()
            and click.item_id.isprintable()
            and click.user_id != ANYONE
        ):
            return click
    return decode(Click, record.value, record.headers)


def action_weights(settings: ProfileSettings) -> Mapping[Action, float]:
    """The weights of all actions, with the settings' overrides.

    Raises:
        ConfigurationError: the settings name an unknown action, or an empty scale of ratings.
    """
    unknown = settings.weights.keys() - set(Action)
    if unknown:
        raise ConfigurationError(
            f"profile.weights: no such action: {', '.join(sorted(unknown))}", hint=f"Known: {', '.join(Action)}."
        )
    if settings.rating_low >= settings.rating_high:
        raise ConfigurationError("profile.rating_low must be below profile.rating_high")
    return {**DEFAULT_WEIGHTS, **{Action(name): weight for name, weight in settings.weights.items()}}


def check_key(record: Record, expected: str) -> None:
    """Refuses a record whose key names someone else; one without a key is taken as it is."""
    if record.key is not None and record.key != expected.encode():
        raise Unusable("the key is not the id that the value names", reason="key-mismatch")


def withdrawn_id(record: Record) -> str:
    """The catalogue item that a record's key names."""
    try:
        key = msgspec.convert((record.key or b"").decode(), Id)
    except (UnicodeDecodeError, msgspec.ValidationError):
        key = OWN_PREFIX
    if key.startswith(OWN_PREFIX):
        raise Unusable("a withdrawal needs a catalogue item's id as its key", reason="key-mismatch")
    return key


def checked(media: tuple[Media, ...]) -> tuple[Media, ...]:
    """`media`, each with either its data or a reference to it."""
    for one in media:
        if (one.uri is None) == (one.data is None):
            raise Unusable("media need either `uri` or `data`", reason="invalid")
    return media


def references(media: tuple[Media, ...]) -> tuple[Reference, ...]:
    """What is kept of `media`: where they can be read again, if anywhere."""
    return tuple(Reference(one.kind.value, one.uri or "") for one in media)


def version(time_ms: int, record: Record) -> Version:
    """Orders an item's versions; never ahead of the record, so that a later withdrawal is always newer."""
    return min(time_ms, record.timestamp), record.timestamp, record.offset


def embedded_text(title: str, text: str, tags: tuple[str, ...]) -> str:
    """What of an item is embedded as text."""
    return ". ".join(part for part in (title.strip(), text.strip(), ", ".join(tags)) if part)
