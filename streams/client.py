"""Publishers: events in, checked and delivered; synchronous and asynchronous.

    with Publisher() as publisher:
        publisher.click("ada", "film-7", "like")

An event is checked before it is sent, by the code that a worker checks it with, so what this client accepts
no worker refuses for its form. Publishing is idempotent: an event stays the same event however often its
`event_id` is sent, so a caller that keeps its own ids may retry without a second thought.

The asynchronous publisher drives librdkafka's own queue from one thread, and hands each delivery to the event
loop: an awaited event is delivered, and a full queue makes the caller wait.
"""

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar
from uuid import uuid4

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from penchant.errors import PenchantError
from penchant.profile.identity import OWN_PREFIX
from penchant.settings import Settings, load_settings
from penchant.streams.codec import Unusable, decode, encode, event_time_ms
from penchant.streams.connection import broker_error, producer_options
from penchant.streams.events import (
    Click,
    ClickAction,
    Instant,
    Item,
    Media,
    MediaKind,
    MediaUpload,
    Post,
)
from penchant.streams.records import Output
from penchant.streams.topics import Topic

__all__ = [
    "AsyncPublisher",
    "DeliveryFailed",
    "Event",
    "InvalidEvent",
    "Publisher",
]

Event = Click | Post | MediaUpload | Item
TOPIC_OF: Mapping[type[Event], Topic] = {
    Click: Topic.CLICKS,
    Post: Topic.POSTS,
    MediaUpload: Topic.MEDIA_UPLOADS,
    Item: Topic.ITEMS,
}

CONNECT_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 30.0
QUEUE_KIB = 64 * 1024
# How long one call into librdkafka may last: after this an interrupt or a stop is noticed.
SLICE_S = 0.2
FULL_QUEUE_PAUSE_S = 0.01
# After an exception inside the `with` block, what was sent before it gets this long.
GRACE_S = 2.0
FIRST_ERRORS = 3

log = structlog.get_logger("penchant.client")
kafka_log = logging.getLogger("penchant.kafka")

Sent = TypeVar("Sent")
Name = TypeVar("Name", bound=StrEnum)


class InvalidEvent(PenchantError):
    """An event is not within the bounds of the contract, and was not sent."""


class DeliveryFailed(PenchantError):
    """Events that were sent did not reach the broker. Sending them again does no harm.

    Attributes:
        failed: how many did not arrive.
        sent: of how many, since the last flush.
        causes: what went wrong with the first of them.
    """

    def __init__(self, failed: int, sent: int, causes: Collection[PenchantError]) -> None:
        first = next(iter(causes))
        said = "; ".join(sorted({str(cause.args[0]) for cause in causes}))
        super().__init__(f"{failed} of {sent} events were not delivered: {said}", hint=first.hint)
        self.failed, self.sent, self.causes = failed, sent, tuple(causes)
        self.exit_code = first.exit_code


class Verbs(ABC, Generic[Sent]):
    """What users do, as calls. Each gives the event's id, or awaited gives it once the event is delivered.

    Every call raises `InvalidEvent` where a value is outside the contract, and an `Unavailable` or
    `ConfigurationError` where the broker does not take the event.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap_servers: str | None = None,
        namespace: str | None = None,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self.settings = resolve(settings, bootstrap_servers, namespace)
        self.delivery_timeout_s = delivery_timeout_s
        self.connected: Producer | None = None

    @property
    def producer(self) -> Producer:
        """The producer, between the beginning and the end of the `with` block."""
        if self.connected is None:
            raise RuntimeError("a publisher publishes inside a `with` block")
        return self.connected

    @abstractmethod
    def publish(self, output: Output, name: str) -> Sent:
        """Publishes a record and gives `name`."""

    def send(self, event: Event) -> Sent:
        """Sends an event that the caller has built."""
        key, name = (event.item_id, event.item_id) if isinstance(event, Item) else (event.user_id, event.event_id)
        value = checked(event)
        return self.publish(Output(topic=self.topic(TOPIC_OF[type(event)]), key=key.encode(), value=value), name)

    def click(
        self,
        user: str,
        item: str,
        action: ClickAction | str = ClickAction.CLICK,
        *,
        event_id: str | None = None,
        value: float | None = None,
        dwell_ms: int | None = None,
        at: Instant | None = None,
        context: dict[str, str] | None = None,
    ) -> Sent:
        """The user did something to an item.

        Args:
            user: who.
            item: to what.
            action: view, click, like, share, save, purchase, rate, skip, dislike or hide.
            event_id: names the event; a random one by default.
            value: of a rating.
            dwell_ms: how long the user stayed, milliseconds.
            at: when: epoch milliseconds, or a datetime with a zone; now by default.
            context: whatever the producer wants to keep with it.
        """
        return self.send(
            Click(
                event_id=event_id or new_id(),
                user_id=user,
                item_id=item,
                action=known(ClickAction, action),
                value=value,
                dwell_ms=dwell_ms,
                at=at,
                context=context,
            )
        )

    def post(
        self,
        user: str,
        text: str,
        *,
        media: Iterable[Media] = (),
        item_id: str | None = None,
        tags: Iterable[str] = (),
        language: str | None = None,
        at: Instant | None = None,
        event_id: str | None = None,
        recommendable: bool = True,
    ) -> Sent:
        """The user wrote something, which others may be recommended unless `recommendable` is false."""
        return self.send(
            Post(
                event_id=event_id or new_id(),
                user_id=user,
                item_id=item_id,
                text=text,
                media=tuple(media),
                tags=tuple(tags),
                language=language,
                at=at,
                recommendable=recommendable,
            )
        )

    def search(self, user: str, text: str, *, at: Instant | None = None, event_id: str | None = None) -> Sent:
        """The user searched: a private post, which says something of its author and is shown to nobody."""
        return self.post(user, text, at=at, event_id=event_id, recommendable=False)

    def upload(
        self,
        user: str,
        kind: MediaKind | Literal["image", "audio"],
        data: bytes | None = None,
        *,
        uri: str | None = None,
        caption: str = "",
        item_id: str | None = None,
        at: Instant | None = None,
        event_id: str | None = None,
        recommendable: bool = True,
    ) -> Sent:
        """The user uploaded a picture or a sound: inline as `data`, or where `uri` says."""
        return self.send(
            MediaUpload(
                event_id=event_id or new_id(),
                user_id=user,
                kind=known(MediaKind, kind),
                item_id=item_id,
                uri=uri,
                data=data,
                caption=caption,
                at=at,
                recommendable=recommendable,
            )
        )

    def item(
        self,
        item: Item | str,
        *,
        title: str = "",
        text: str = "",
        media: Iterable[Media] = (),
        tags: Iterable[str] = (),
        attributes: Mapping[str, str] | None = None,
        entity: str | None = None,
        at: Instant | None = None,
    ) -> Sent:
        """Puts an item into the catalogue, or a newer version of one. Takes an `Item`, or an id and its fields."""
        if isinstance(item, Item):
            return self.send(item)
        return self.send(
            Item(
                item_id=item,
                title=title,
                text=text,
                media=tuple(media),
                tags=tuple(tags),
                attributes=dict(attributes or {}),
                entity=entity,
                at=at,
            )
        )

    def withdraw(self, item_id: str) -> Sent:
        """Takes an item out of the catalogue: it is recommended no more."""
        checked(Item(item_id=item_id))
        return self.publish(Output(topic=self.topic(Topic.ITEMS), key=item_id.encode(), value=None), item_id)

    def topic(self, topic: Topic) -> str:
        """A topic's name within the namespace."""
        return self.settings.prefixed(topic)

    def connect(self) -> Producer:
        """Opens the producer and sees that the broker answers, rather than let the first event find out."""
        options = producer_options(self.settings, delivery_timeout_ms=round(1_000 * self.delivery_timeout_s))
        try:
            producer = Producer({**options, "queue.buffering.max.kbytes": QUEUE_KIB}, logger=kafka_log)
            topics = producer.list_topics(timeout=CONNECT_TIMEOUT_S).topics
        except KafkaException as error:
            raise broker_error(error) from error
        for topic in TOPIC_OF.values():
            if self.topic(topic) not in topics:
                raise broker_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"there is no {self.topic(topic)}"))
        return producer


class Publisher(Verbs[str]):
    """Publishes events; a context manager whose end waits until all of them are delivered.

    Args:
        settings: of penchant; by default from `penchant.toml` and `PENCHANT_*`.
        bootstrap_servers: overrides the settings' brokers.
        namespace: overrides the settings' namespace.
        delivery_timeout_s: after which an event that was not acknowledged has failed.

    A call returns before its event is delivered. Failures are raised by the next `flush`, and by the end of
    the `with` block.
    """

    def __enter__(self) -> Self:
        """Connects.

        Raises:
            BrokerUnavailable: the broker does not answer.
            ConfigurationError: the broker refuses, or a topic is missing.
        """
        self.connected = self.connect()
        self.sent = self.failed = 0
        self.causes: deque[PenchantError] = deque()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for what was sent. After an exception it waits a moment only, and lets that one through."""
        if kind is None:
            self.flush()
        else:
            self.producer.flush(GRACE_S)
            self.producer.purge()
            self.producer.flush(SLICE_S)

    def publish(self, output: Output, name: str, *, timestamp_ms: int = 0) -> str:
        """Hands a record to the producer; waits while its queue is full. A timestamp of 0 is now."""
        while not offer(self.producer, output, self.delivered, timestamp_ms=timestamp_ms):
            self.producer.poll(SLICE_S)
        self.producer.poll(0)
        self.sent += 1
        return name

    def flush(self) -> None:
        """Waits until every event is delivered or has failed.

        Raises:
            DeliveryFailed: some have failed since the last flush.
        """
        while self.producer.flush(SLICE_S):
            pass  # every record ends within its delivery timeout
        sent, failed, causes = self.sent, self.failed, tuple(self.causes)
        self.sent = self.failed = 0
        self.causes.clear()
        if failed:
            raise DeliveryFailed(failed, sent, causes) from causes[0]

    def delivered(self, error: KafkaError | None, _: object) -> None:
        """Counts what failed; called from `poll` and `flush`."""
        if error is None:
            return
        self.failed += 1
        if len(self.causes) < FIRST_ERRORS:
            self.causes.append(broker_error(error))


class AsyncPublisher(Verbs[Coroutine[Any, Any, str]]):
    """Publishes events; an asynchronous context manager. Takes what `Publisher` takes.

    Awaiting a call waits until its event is delivered, and raises what hindered it. For throughput await many
    at once, with `asyncio.gather` or a task group: one by one, each waits for a round trip.
    """

    async def __aenter__(self) -> Self:
        """Connects; raises as `Publisher` does."""
        self.loop = asyncio.get_running_loop()
        self.connected = await asyncio.to_thread(self.connect)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.serve, name="penchant-publisher", daemon=True)
        self.thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for what was sent and nobody awaited. After an exception it waits a moment only."""
        await asyncio.to_thread(self.producer.flush, self.delivery_timeout_s if kind is None else GRACE_S)
        self.producer.purge()
        self.stopping.set()
        await asyncio.to_thread(self.thread.join)

    def publish(self, output: Output, name: str) -> Coroutine[Any, Any, str]:
        """Publishes a record; awaited, gives `name` once it is delivered."""
        return self.deliver(output, name)

    async def deliver(self, output: Output, name: str) -> str:
        """Hands a record to the producer as soon as its queue has room, and waits for its delivery."""
        done: asyncio.Future[None] = self.loop.create_future()

        def delivered(error: KafkaError | None, _: object) -> None:
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(settle, done, error)

        while not offer(self.producer, output, delivered):  # noqa: ASYNC110  a full queue has no event to wait for
            await asyncio.sleep(FULL_QUEUE_PAUSE_S)
        await done
        return name

    def serve(self) -> None:
        """Has librdkafka call back, until the end."""
        while not self.stopping.is_set():
            self.producer.poll(SLICE_S)


def resolve(settings: Settings | None, bootstrap_servers: str | None, namespace: str | None) -> Settings:
    """The settings to use: those given, else those of file and environment; with what is overridden."""
    if settings is None:
        flags: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
        if bootstrap_servers is not None:
            flags["kafka"] = {"bootstrap_servers": bootstrap_servers}
        return load_settings(**flags)
    if bootstrap_servers is not None or namespace is not None:
        raise TypeError("settings already say which broker and namespace: give either those or these")
    return settings


def checked(event: Event) -> bytes:
    """The bytes of an event that is within the contract.

    Raises:
        InvalidEvent: it is not.
    """
    kind = type(event)
    try:
        value = encode(event)
        event_time_ms(decode(kind, value).at, round(1_000 * time.time()))
    except Unusable as error:
        raise InvalidEvent(
            f"{kind.__name__}: {error}", hint="`penchant asyncapi` shows every field's bounds."
        ) from None
    except (TypeError, ValueError, OverflowError):
        raise InvalidEvent(f"{kind.__name__}: a field is of a type, or holds text, that cannot be sent") from None
    if problem := incoherence(event):
        raise InvalidEvent(f"{kind.__name__}: {problem}")
    return value


def incoherence(event: Event) -> str:
    """What is wrong with fields that are each within their bounds; "" for nothing."""
    match event:
        case Click(action=ClickAction.RATE, value=None):
            return "`rate` needs a `value`"
        case Post(text=text, media=()) if not text.strip():
            return "a post needs `text` or `media`"
        case Item(item_id=item_id) if item_id.startswith(OWN_PREFIX):
            return f"ids that begin with {OWN_PREFIX} are those of posts and uploads"
        case Item(media=media) | Post(media=media) if any((one.uri is None) == (one.data is None) for one in media):
            return "media need either `data` or a `uri`"
        case MediaUpload() if (event.uri is None) == (event.data is None):
            return "an upload needs either `data` or a `uri`"
    return ""


def known(names: type[Name], name: str) -> Name:
    """The member of an enumeration that has this value."""
    try:
        return names(name)
    except ValueError:
        raise InvalidEvent(f"No such {names.__name__}", hint=f"Known are {', '.join(names)}.") from None


def offer(
    producer: Producer,
    output: Output,
    delivered: Callable[[KafkaError | None, object], None],
    *,
    timestamp_ms: int = 0,
) -> bool:
    """Hands a record to the producer, unless its queue is full.

    Args:
        producer: to hand it to.
        output: the record.
        delivered: called with the error, or None, and the message, once it is known.
        timestamp_ms: of the record; 0: now.

    Raises:
        PenchantError: the producer refuses the record for good.
    """
    try:
        producer.produce(
            output.topic,
            output.value,
            output.key,
            on_delivery=delivered,
            timestamp=timestamp_ms,
            headers=dict(output.headers) or None,
        )
    except BufferError:
        return False
    except KafkaException as error:
        raise broker_error(error) from error
    return True


def settle(done: asyncio.Future[None], error: KafkaError | None) -> None:
    """Resolves a delivery, unless its waiter has gone."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(broker_error(error))


def new_id() -> str:
    """A random event id."""
    return uuid4().hex
