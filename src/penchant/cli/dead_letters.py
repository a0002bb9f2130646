"""What could not be used: list it, look at it, send it back."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from penchant.cli.ask import clock
from penchant.cli.frame import Json, command_group, print_json, print_table, printable, say, settings_of, stdout
from penchant.errors import ConfigurationError, PenchantError
from penchant.settings import Settings
from penchant.streams.client import Publisher
from penchant.streams.codec import Unusable
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic, topic_specs

__all__ = ["commands"]

SHOWN_BYTES = 1_024
HEX_WIDTH = 16
SPACE, TILDE = 0x20, 0x7E  # the first and the last printable character of ASCII
PLACE = re.compile(r"^(\d+):(\d+)$")

commands = command_group("dead-letters", "What could not be used: list it, look at it, send it back.")

Reason = Annotated[str | None, typer.Option(help="Only those of this reason, such as malformed or invalid.")]
Origin = Annotated[str | None, typer.Option("--topic", help="Only those from this topic, such as clicks.")]
Letter = tuple[str, DeadLetter]


@commands.command("list")
def list_letters(
    ctx: typer.Context, *, reason: Reason = None, topic: Origin = None, as_json: Annotated[bool, Json] = False
) -> None:
    """List the dead letters, with where they came from and why they are here.

    Example: `penchant dead-letters list --reason malformed`
    """
    settings = settings_of(ctx)
    counts: Counter[str] = Counter()
    rows = []
    for place, letter in letters(settings, reason, topic):
        counts[letter.reason] += 1
        origin = f"{letter.topic}:{letter.partition}:{letter.offset}"
        if as_json:
            print_json(described(place, letter))
        else:
            rows.append((place, clock(letter.timestamp), origin, letter.reason, letter.detail))
    if not as_json:
        print_table(("letter", "time", "origin", "reason", "detail"), rows)
        said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        stdout().print(f"{counts.total()} dead letters" + (f": {printable(said)}" if said else ""))


@commands.command()
def show(
    ctx: typer.Context,
    *,
    letter: Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `list` shows it.")],
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show one dead letter: headers, and its bytes as text where they are, else in hexadecimal.

    Example: `penchant dead-letters show 3:17`
    """
    if not PLACE.match(letter):
        raise ConfigurationError(f"{letter} is no PARTITION:OFFSET", hint="`penchant dead-letters list` shows them.")
    settings = settings_of(ctx)
    found = next((one for place, one in letters(settings, None, None) if place == letter), None)
    if found is None:
        raise PenchantError(f"There is no dead letter {letter}", hint="`penchant dead-letters list` shows them.")
    if as_json:
        print_json({**described(letter, found), "value_hex": None if found.value is None else found.value.hex()})
        return
    out = stdout()
    rows = [(name, value) for name, value in described(letter, found).items() if name != "headers"]
    rows += [(f"header {name}", value) for name, value in described(letter, found)["headers"].items()]
    print_table(("", ""), rows)
    out.print("")
    out.print(view(found.value), soft_wrap=True)


@commands.command("replay")
def replay_letters(
    ctx: typer.Context,
    *,
    reason: Reason = None,
    topic: Origin = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Send the originals back to where they came from, as they were, with their own timestamps.

    For when what hindered them is mended. What was counted already is not counted twice; what cannot be used
    again becomes a dead letter again. The letters themselves stay until the broker's retention takes them.

    Example: `penchant dead-letters replay --topic clicks --reason invalid --dry-run`
    """
    settings = settings_of(ctx)
    known = {spec.name for spec in topic_specs(settings)} - {settings.prefixed(Topic.DEAD_LETTERS)}
    sent: Counter[str] = Counter()
    foreign = left_out = 0
    chosen = letters(settings, reason, topic)
    if dry_run:
        sent.update(letter.topic for _, letter in chosen if letter.topic in known and letter.whole)
    else:
        with Publisher(settings) as publisher:
            for _, letter in chosen:
                if not letter.whole:
                    left_out += 1
                elif letter.topic in known:
                    publisher.publish(letter.original(), letter.topic, timestamp_ms=max(0, letter.timestamp))
                    sent[letter.topic] += 1
                else:
                    foreign += 1
    if left_out:
        say(f"{left_out} left alone: their originals were too large to be kept, and are at their origins only")
    if foreign:
        say(f"{foreign} left alone: they name topics that are not of this namespace")
    if as_json:
        print_json({"dry_run": dry_run, "sent": sent})
        return
    for name, count in sent.most_common():
        stdout().print(f"{printable(name)}: {count}")
    stdout().print(f"{sent.total()} {'would be sent' if dry_run else 'sent'} back")


def letters(settings: Settings, reason: str | None, topic: str | None) -> Iterator[Letter]:
    """The dead letters there are now, with their places, as far as they are asked for."""
    origins = None if topic is None else {topic, settings.prefixed(topic)}
    unreadable = 0
    with TopicReader(settings, Topic.DEAD_LETTERS, from_beginning=True) as reader:
        for record in reader.to_end():
            try:
                letter = DeadLetter.read(record)
            except Unusable:
                unreadable += 1
                continue
            if (reason is None or letter.reason == reason) and (origins is None or letter.topic in origins):
                yield f"{record.partition}:{record.offset}", letter
    if unreadable:
        say(f"{unreadable} records of the topic are no dead letters, and were passed over")


def described(place: str, letter: DeadLetter) -> dict[str, Any]:
    """A dead letter without its value."""
    return {
        "letter": place,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "reason": letter.reason,
        "detail": letter.detail,
        "key": as_text(letter.key),
        "bytes": len(letter.value or b""),
        "headers": {name: as_text(value) for name, value in letter.headers.items()},
    }


def as_text(value: bytes | None) -> str | None:
    """Bytes as text; what is no text shows as escapes."""
    return None if value is None else value.decode(errors="backslashreplace")


def view(value: bytes | None) -> str:
    """The beginning of a value: decoded where it is msgpack, as text where it is text, and in hexadecimal else."""
    if value is None:
        return "(null)"
    start = value[:SHOWN_BYTES]
    rest = f"\n… {len(value) - SHOWN_BYTES} more bytes" if len(value) > SHOWN_BYTES else ""
    try:
        decoded = msgspec.msgpack.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        decoded = None
    if isinstance(decoded, dict):
        text = json.dumps(decoded, indent=2, ensure_ascii=False, default=lambda one: f"<{type(one).__name__}>")
        return printable(text[:SHOWN_BYTES], lines=True) + ("\n…" if len(text) > SHOWN_BYTES else "")
    try:
        return printable(start.decode(), lines=True) + rest
    except UnicodeDecodeError:
        return hexdump(start) + rest


def hexdump(value: bytes) -> str:
    """Bytes in rows: offset, hexadecimal, and what of them is ASCII."""
    rows = []
    for start in range(0, len(value), HEX_WIDTH):
        row = value[start : start + HEX_WIDTH]
        ascii_only = "".join(chr(byte) if SPACE <= byte <= TILDE else "." for byte in row)
        rows.append(f"{start:06x}  {row.hex(' '):<{3 * HEX_WIDTH}} {ascii_only}")
    return "\n".join(rows)
