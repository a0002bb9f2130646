"""Sends single events: click, post, upload, item."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from penchant.cli.frame import Json, command_group, print_json, settings_of, stdout
from penchant.errors import ConfigurationError
from penchant.settings import Settings
from penchant.streams.client import Event, Publisher, new_id
from penchant.streams.events import Click, ClickAction, Instant, Item, Media, MediaKind, MediaUpload, Post

__all__ = ["add_to"]

SCHEME = re.compile(r"^[a-z][a-z0-9+.-]+:", re.IGNORECASE)

commands = command_group("send", "Send one event, and wait until the broker has it.")

At = Annotated[str | None, typer.Option(help="When: epoch milliseconds or RFC 3339; by default now.")]
EventId = Annotated[str | None, typer.Option(help="Names the event; by default a random one.")]
ItemId = Annotated[str | None, typer.Option(help="Names what was made; by default the event's id.")]
Images = Annotated[list[str] | None, typer.Option("--image", help="A picture: file or URI; repeatable.")]
Sounds = Annotated[list[str] | None, typer.Option("--audio", help="A sound: file or URI; repeatable.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Repeatable.")]
Private = Annotated[bool, typer.Option("--private", help="Counts for the user, and is shown to nobody: a search.")]


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.add_typer(commands)


@commands.command()
def click(
    ctx: typer.Context,
    *,
    user: str,
    item: str,
    action: Annotated[ClickAction, typer.Option(help="What was done.")] = ClickAction.CLICK,
    value: Annotated[float | None, typer.Option(help="Of a rating.")] = None,
    dwell_ms: Annotated[int | None, typer.Option(help="How long the user stayed, milliseconds.")] = None,
    at: At = None,
    event_id: EventId = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """USER did something to ITEM.

    Example: `penchant send click ada film-1 --action rate --value 4.5`
    """
    event = Click(
        event_id=event_id or new_id(),
        user_id=user,
        item_id=item,
        action=action,
        value=value,
        dwell_ms=dwell_ms,
        at=instant(at),
    )
    deliver(settings_of(ctx), event, event.event_id, as_json=as_json)


@commands.command()
def post(
    ctx: typer.Context,
    *,
    user: str,
    text: str,
    image: Images = None,
    audio: Sounds = None,
    tag: Tags = None,
    language: Annotated[str | None, typer.Option(help="Such as en or pt-BR.")] = None,
    private: Private = False,
    at: At = None,
    item_id: ItemId = None,
    event_id: EventId = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """USER wrote TEXT.

    Example: `penchant send post ada "Silent films are the best" --tag film --image still.jpg`
    """
    event = Post(
        event_id=event_id or new_id(),
        user_id=user,
        item_id=item_id,
        text=text,
        media=media(image, audio),
        tags=tuple(tag or ()),
        language=language,
        at=instant(at),
        recommendable=not private,
    )
    deliver(settings_of(ctx), event, event.event_id, as_json=as_json)


@commands.command()
def upload(
    ctx: typer.Context,
    *,
    user: str,
    kind: MediaKind,
    source: Annotated[str, typer.Argument(help="A file, which is sent inline, or a URI.")],
    caption: Annotated[str, typer.Option(help="A text with it.")] = "",
    private: Private = False,
    at: At = None,
    item_id: ItemId = None,
    event_id: EventId = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """USER uploaded a picture or a sound.

    Example: `penchant send upload ada audio rain.wav --caption "rain on the roof"`
    """
    found = medium(kind, source)
    event = MediaUpload(
        event_id=event_id or new_id(),
        user_id=user,
        kind=kind,
        item_id=item_id,
        uri=found.uri,
        data=found.data,
        caption=caption,
        at=instant(at),
        recommendable=not private,
    )
    deliver(settings_of(ctx), event, event.event_id, as_json=as_json)


@commands.command()
def item(
    ctx: typer.Context,
    *,
    item_id: str,
    title: Annotated[str, typer.Option(help="What it is called.")] = "",
    text: Annotated[str, typer.Option(help="What it is about.")] = "",
    tag: Tags = None,
    attribute: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
    image: Images = None,
    audio: Sounds = None,
    at: At = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the item out of the catalogue.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Put an item into the catalogue, or a newer version of it; or withdraw it.

    Example: `penchant send item film-1 --title Metropolis --text "A city of two halves" --attribute year=1927`
    """
    settings = settings_of(ctx)
    if withdraw:
        with Publisher(settings) as publisher:
            publisher.withdraw(item_id)
        report(item_id, as_json=as_json, key="withdrawn")
        return
    event = Item(
        item_id=item_id,
        title=title,
        text=text,
        media=media(image, audio),
        tags=tuple(tag or ()),
        attributes=dict(map(attribute_of, attribute or ())),
        at=instant(at),
    )
    deliver(settings, event, item_id, as_json=as_json, key="item_id")


def deliver(settings: Settings, event: Event, name: str, *, as_json: bool, key: str = "event_id") -> None:
    """Sends an event, and says its name once it is delivered."""
    with Publisher(settings) as publisher:
        publisher.send(event)
    report(name, as_json=as_json, key=key)


def report(name: str, *, as_json: bool, key: str) -> None:
    """Prints what was sent."""
    if as_json:
        print_json({key: name})
    else:
        stdout().print(name, soft_wrap=True)


def instant(at: str | None) -> Instant | None:
    """A time as it is typed."""
    if at is None:
        return None
    try:
        return int(at)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        raise ConfigurationError(
            "--at is no time", hint="Give epoch milliseconds, or RFC 3339 such as 2026-01-31T12:00:00Z."
        ) from None


def media(images: list[str] | None, sounds: list[str] | None) -> tuple[Media, ...]:
    """What `--image` and `--audio` name."""
    kinds = [(MediaKind.IMAGE, source) for source in images or ()] + [(MediaKind.AUDIO, one) for one in sounds or ()]
    return tuple(medium(kind, source) for kind, source in kinds)


def medium(kind: MediaKind, source: str) -> Media:
    """A picture or a sound: a URI by reference, a file inline."""
    if SCHEME.match(source):
        return Media(kind=kind, uri=source)
    try:
        return Media(kind=kind, data=Path(source).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror}") from None


def attribute_of(described: str) -> tuple[str, str]:
    """`NAME=VALUE` in its two parts."""
    name, separator, value = described.partition("=")
    if not separator:
        raise ConfigurationError(f"--attribute {described}: expected NAME=VALUE")
    return name, value
