"""What every profile must hold, worked out from the log in the plainest way.

This is a second opinion: of the lanes it shares how a record is decoded, which records are refused and what an
action weighs, and nothing of how a signal is timed, merged or truncated. Its rules are those of docs/semantics.md,
written anew.
"""

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime
from sys import intern

from penchant.profile.identity import Identity
from penchant.settings import ProfileSettings
from penchant.streams.codec import Unusable, decode
from penchant.streams.events import Click, Instant, Media, MediaUpload, Post
from penchant.streams.interpret import action_weights, check_key, checked
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from penchant.verify.report import Fact

__all__ = ["Expectations", "Interpreter", "is_weak", "newest", "topic_of"]

MINUTE_MS = 60_000
YEAR_1980_MS = 315_532_800_000
LEAP_YEAR_MS = 366 * 24 * 60 * MINUTE_MS
AHEAD_MS = 5 * MINUTE_MS
USUAL_DWELL_MS = 10_000
SLACK = 1.25  # so much more than the newest is kept, lest they be looked for at every record


class Interpreter:
    """Tells what a record says of whom.

    Args:
        identity: names users' own items.
        settings: weights of actions, and the scale of ratings.
    """

    def __init__(self, identity: Identity, settings: ProfileSettings) -> None:
        self.identity = identity
        self.weights = {str(action): weight for action, weight in action_weights(settings).items()}
        self.middle = (settings.rating_low + settings.rating_high) / 2
        self.reach = (settings.rating_high - settings.rating_low) / 2

    def read(self, topic: Topic, record: Record) -> tuple[str, Fact]:
        """The user of a record, and the signal.

        Raises:
            Unusable: the record is a dead letter.
        """
        if topic is Topic.CLICKS:
            click = decode(Click, record.value, record.headers)
            check_key(record, click.user_id)
            weight = self.click_weight(click)
            time_ms = moment(click.at, record.timestamp)
            return click.user_id, Fact(time_ms, click.event_id, intern(click.item_id), click.action.value, weight)
        if topic is Topic.POSTS:
            post = decode(Post, record.value, record.headers)
            if not post.media and not post.text.strip():
                raise Unusable("neither text nor media", reason="invalid")
            checked(post.media)
            return self.own(record, post, "post" if post.recommendable else "search")
        upload = decode(MediaUpload, record.value, record.headers)
        checked((Media(kind=upload.kind, uri=upload.uri, data=upload.data),))
        return self.own(record, upload, "upload")

    def own(self, record: Record, event: Post | MediaUpload, action: str) -> tuple[str, Fact]:
        """A user's own post or upload: it speaks of the item that it makes."""
        check_key(record, event.user_id)
        item_id = self.identity.own_item(event.user_id, event.item_id or event.event_id)
        time_ms = moment(event.at, record.timestamp)
        return event.user_id, Fact(time_ms, event.event_id, intern(item_id), action, self.weights[action])

    def click_weight(self, click: Click) -> float:
        """A rating counts by its distance from the middle of the scale, a view by how long it lasted."""
        weight = self.weights[click.action]
        if click.action == "rate":
            if click.value is None:
                raise Unusable("a rating without a value", reason="invalid")
            return weight * max(-1.0, min(1.0, (click.value - self.middle) / self.reach))
        if click.action == "view" and click.dwell_ms is not None:
            return weight * max(0.1, min(3.0, click.dwell_ms / USUAL_DWELL_MS))
        return weight


def moment(at: Instant | None, recorded_ms: int) -> int:
    """When an event happened, epoch milliseconds: its own word, as far as its record's timestamp bears it out.

    Raises:
        Unusable: it is before 1980, or more than a year after the record.
    """
    if isinstance(at, datetime):
        at = round(at.timestamp() * 1_000)
    happened = recorded_ms if at is None else at
    if not YEAR_1980_MS <= happened <= recorded_ms + LEAP_YEAR_MS:
        raise Unusable("an impossible time", reason="implausible-time")
    return happened if happened - recorded_ms <= AHEAD_MS else recorded_ms


class Expectations:
    """The newest signals of each user by strength. What it holds is bounded by users, however long the log.

    Signals beyond the limit are dropped as they come, which changes nothing in the end: whatever is dropped has as many
    newer ones of other events as there may be, and another record of its event either is newer and comes itself, or is
    older still. Strengths do not meet: one event id used for a like and for a view is two events.

    Args:
        strong: how many strong signals a profile holds.
        weak: likewise.
    """

    def __init__(self, *, strong: int, weak: int) -> None:
        self.limits = {False: strong, True: weak}
        self.users: dict[str, dict[bool, dict[str, Fact]]] = {}
        self.recorded: dict[str, int] = {}

    def add(self, user: str, fact: Fact, recorded_ms: int = 0) -> None:
        """Takes a signal into account; of two of one event the larger stands."""
        weak = is_weak(fact.action)
        kept = self.users.setdefault(user, {False: {}, True: {}})[weak]
        if fact.event_id not in kept or fact > kept[fact.event_id]:
            kept[fact.event_id] = fact
        if len(kept) > SLACK * self.limits[weak]:
            few = newest(kept.values(), self.limits[weak])
            kept.clear()
            kept.update((one.event_id, one) for one in few)
        self.recorded[user] = max(recorded_ms, self.recorded.get(user, 0))

    def of(self, user: str, *, weak: bool) -> Mapping[str, Fact]:
        """A user's signals of one strength by event id: the newest, and perhaps some that are too many."""
        return self.users[user][weak] if user in self.users else {}


def newest(facts: Iterable[Fact], limit: int) -> list[Fact]:
    """The newest facts by (time, event id), newest first; no event id may appear twice."""
    return heapq.nlargest(limit, facts)


def is_weak(action: str) -> bool:
    """Whether an action is counted among the weak ones."""
    return action in {"view", "click", "skip"}


def topic_of(action: str) -> Topic:
    """The topic that brings an action."""
    if action == "upload":
        return Topic.MEDIA_UPLOADS
    return Topic.POSTS if action in {"post", "search"} else Topic.CLICKS
