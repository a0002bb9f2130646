"""The corpus of hostile records: among records that can be used as many that cannot, each with a fault of its own.

A fault takes a good event and spoils it, or one medium of it, and says which reasons its dead letter may give. What the
good ones must come to, signals and items, is worked out here beside them: of penchant's code only ids are taken.
"""

import io
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import soundfile
from msgspec.msgpack import Ext
from PIL import Image

from penchant.profile.identity import Identity
from penchant.streams.records import Output
from penchant.streams.topics import Topic

BAD, GOOD = 10_000, 10_000
GOOD_ITEMS, GOOD_POSTS, GOOD_UPLOADS = 200, 150, 50
BAD_PARTS = 400
USERS = 40
NEWEST = 192
DAY_MS = 86_400_000
# In all ids and texts, good and bad, and nowhere else: what must not be logged is easily found.
MARK = "zq7xw"
OWN_KEY = b"the key that belongs to the event"

CLICKS, POSTS, UPLOADS, ITEMS = Topic.CLICKS, Topic.POSTS, Topic.MEDIA_UPLOADS, Topic.ITEMS
WEIGHTS = {"view": 0.5, "click": 1, "skip": -0.3, "like": 2, "share": 3, "save": 2, "purchase": 4, "dislike": -2}
WEIGHTS |= {"hide": -3, "rate": 2, "post": 2, "upload": 2, "search": 1}
WEAK = {"view", "click", "skip"}
JSON, MSGPACK = {"content-type": b"application/json"}, {"content-type": b"application/msgpack"}


class Sent(NamedTuple):
    """A record, what is wrong with it, and the reasons that its dead letter may give; none for a good one."""

    output: Output
    fault: str = ""
    reasons: tuple[str, ...] = ()


class Spoilt(NamedTuple):
    """What a fault makes of an event: a value with its headers, and perhaps another key."""

    value: bytes | None
    headers: dict[str, bytes]
    key: bytes | None = OWN_KEY


class Scene:
    """Makes the records, and notes what the good ones must come to.

    Args:
        topic_name: what a topic is called here.
        identity: names users' own items.
        now: timestamp of all records, epoch milliseconds.

    Attributes:
        signals: that must be there, by user and event id: time, event, item, action and weight.
        modalities: of the items that must be there, by id.
        unmade: ids of items that must not be there.
    """

    def __init__(self, topic_name: Callable[[Topic], str], identity: Identity, now: int) -> None:
        self.draw = random.Random(20_240_607)
        self.topic_name = topic_name
        self.identity = identity
        self.now = now
        self.number = 0
        self.signals: dict[str, dict[str, tuple[Any, ...]]] = defaultdict(dict)
        self.modalities: dict[str, tuple[str, ...]] = {}
        self.unmade: set[str] = set()

    # Events as they should be, as plain structures.

    def click(self) -> dict[str, Any]:
        """A click on an item of the catalogue."""
        action = self.draw.choice([action for action in WEIGHTS if action not in {"post", "upload", "search"}])
        event = {**self.event(), "item_id": f"{MARK}-item-{self.draw.randrange(GOOD_ITEMS)}", "action": action}
        if action == "rate":
            event["value"] = self.draw.choice([0.5, 1, 2.75, 5])
        if action == "view":
            event["dwell_ms"] = self.draw.choice([0, 4_000, 10_000, 86_400_000])
        return event

    def post(self) -> dict[str, Any]:
        """A post, or a search."""
        return {**self.event(), "text": self.text(), "recommendable": self.draw.random() < 0.8}

    def upload(self) -> dict[str, Any]:
        """An upload with a caption."""
        image = self.draw.random() < 0.7
        kind, data = ("image", picture(self.draw)) if image else ("audio", sound(self.draw))
        return {**self.event(), "kind": kind, "data": data, "caption": self.text()}

    def item(self) -> dict[str, Any]:
        """An item of the catalogue that nobody clicks."""
        self.number += 1
        return {"item_id": f"{MARK}-bad-{self.number}", "title": self.text(), "text": self.text()}

    def event(self) -> dict[str, Any]:
        """What all events of users have."""
        self.number += 1
        event: dict[str, Any] = {
            "event_id": f"{MARK}-event-{self.number}",
            "user_id": f"{MARK}-user-{self.draw.randrange(USERS)}",
        }
        if self.draw.random() < 0.9:
            event["at"] = self.now - self.draw.randrange(100 * DAY_MS)
        return event

    def text(self) -> str:
        """Some words."""
        words = ["night", "garden", "engine", "violin", "bread", "glacier", "novel", "Straße", "猫", "\0", MARK]
        return " ".join(self.draw.choices(words, k=self.draw.randint(4, 12)))

    def make(self, topic: Topic) -> dict[str, Any]:
        """An event of a topic."""
        return {CLICKS: self.click, POSTS: self.post, UPLOADS: self.upload, ITEMS: self.item}[topic]()

    def key(self, event: dict[str, Any]) -> bytes:
        """The key that belongs to an event."""
        return str(event.get("user_id", event.get("item_id"))).encode()

    def item_of(self, event: dict[str, Any]) -> str:
        """The item that an event names, or the one that it makes."""
        return event.get("item_id") or self.identity.own_item(event["user_id"], event["event_id"])

    def drawn(self, fields: dict[str, list[Any]]) -> dict[str, Any]:
        """One of the values of each field."""
        return {name: self.draw.choice(values) for name, values in fields.items()}

    def wire(self, event: dict[str, Any]) -> tuple[bytes, dict[str, bytes]]:
        """An event in either format, with a header that says so or none."""
        if self.draw.random() < 0.5:
            return msgspec.json.encode(event), self.draw.choice([JSON, {}])
        return msgspec.msgpack.encode(event), self.draw.choice([MSGPACK, {}])

    # Records.

    def good(self, topic: Topic, event: dict[str, Any]) -> Sent:
        """A record that counts; one in ten has no key, and one in five something that is not known."""
        if "user_id" in event:
            self.expect(topic, event)
        time_ms = event.get("at")
        if time_ms is not None and self.draw.random() < 0.3:
            seconds, thousandths = divmod(time_ms, 1_000)
            event = event | {"at": f"{np.datetime64(seconds, 's')}.{thousandths:03d}Z"}
        if self.draw.random() < 0.2:
            event = event | {"unknown": [{"of": "a newer producer", "number": 1}]}
        value, headers = self.wire(event)
        key = None if topic is not ITEMS and self.draw.random() < 0.1 else self.key(event)  # the broker wants one there
        return Sent(Output(topic=self.topic_name(topic), key=key, value=value, headers=headers))

    def expect(self, topic: Topic, event: dict[str, Any]) -> None:
        """Notes the signal that an event must come to."""
        action = {CLICKS: event.get("action"), UPLOADS: "upload"}.get(topic, "post")
        if not event.get("recommendable", True):
            action = "search"
        weight = float(WEIGHTS[action])
        if action == "rate":
            weight *= 2 * (event["value"] - 0.5) / 4.5 - 1
        if action == "view":
            weight *= min(max(event["dwell_ms"] / 10_000, 0.1), 3)
        user, event_id = event["user_id"], event["event_id"]
        self.signals[user][event_id] = (event.get("at", self.now), event_id, self.item_of(event), action, weight)

    def bad(self, topic: Topic, fault: str) -> Sent:
        """A record with a fault of all of it."""
        spoil, reasons = FAULTS[fault][1:]
        event = self.make(topic)
        if topic is not CLICKS:
            self.unmade.add(self.item_of(event))
        value, headers, key = spoil(self, topic, event)
        own = self.key(event) if key is OWN_KEY else key
        return Sent(Output(topic=self.topic_name(topic), key=own, value=value, headers=headers), fault, reasons)

    def bad_part(self, topic: Topic, fault: str) -> Sent:
        """A record of which one medium cannot be used: it is a dead letter, and the rest of it counts."""
        make, reasons = BAD_PARTS_OF[fault]
        kind, medium = make(self.draw)
        event = self.make(topic)
        if topic is UPLOADS:
            event = {key: value for key, value in event.items() if key != "data"} | {"kind": kind} | medium
            event["caption"] = self.draw.choice(["", event["caption"]])
            text = event["caption"]
        else:
            event["media"] = [{"kind": kind, **medium}]
            text = event["text"]
        if topic is not ITEMS:
            self.expect(topic, event)
        self.modalities[self.item_of(event)] = ("text",) if text else ()
        value, headers = self.wire(event)
        return Sent(
            Output(topic=self.topic_name(topic), key=self.key(event), value=value, headers=headers), fault, reasons
        )

    def records(self) -> list[Sent]:
        """All records, in the order to send them."""
        sent = []
        for number in range(GOOD_ITEMS):
            event = self.item() | {
                "item_id": f"{MARK}-item-{number}",
                "tags": [MARK, "a tag"],
                "attributes": {"a": "b"},
            }
            sent.append(self.good(ITEMS, event))
            self.modalities[event["item_id"]] = ("text",)
        for topic, count in ((POSTS, GOOD_POSTS), (UPLOADS, GOOD_UPLOADS)):
            for _ in range(count):
                event = self.make(topic)
                sent.append(self.good(topic, event))
                modalities = ("text", event["kind"]) if topic is UPLOADS else ("text",)
                self.modalities[self.item_of(event)] = modalities
        sent += [self.good(CLICKS, self.click()) for _ in range(GOOD - len(sent))]
        for number in range(BAD_PARTS):
            topic = (POSTS, UPLOADS, ITEMS)[number % 3]
            sent.append(self.bad_part(topic, self.draw.choice(list(BAD_PARTS_OF))))
        faults = list(FAULTS)
        for number in range(BAD - BAD_PARTS):
            fault = faults[number % len(faults)]
            sent.append(self.bad(self.draw.choice(FAULTS[fault][0]), fault))
        self.draw.shuffle(sent)
        return sent

    def expected(self, user: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """The strong and the weak signals that a user must have, newest first."""
        newest = sorted(self.signals[user].values(), reverse=True)
        strong = [signal for signal in newest if signal[3] not in WEAK]
        return strong[:NEWEST], [signal for signal in newest if signal[3] in WEAK][:NEWEST]


# Faults of a whole record: each takes the scene, the topic and a good event, and spoils it.

Spoil = Callable[[Scene, Topic, dict[str, Any]], Spoilt]


def cut(value: bytes, draw: random.Random) -> bytes:
    """A value that ends too early."""
    return value[: draw.randrange(1, len(value))]


def changed(**fields: Any) -> Spoil:
    """The fault of having some fields otherwise; lists are drawn from."""

    def spoil(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
        return Spoilt(*scene.wire({**event, **scene.drawn(fields)}))

    return spoil


def only_msgpack(**fields: Any) -> Spoil:
    """As `changed`, of values that JSON does not have."""

    def spoil(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
        return Spoilt(msgspec.msgpack.encode({**event, **scene.drawn(fields)}), scene.draw.choice([MSGPACK, {}]))

    return spoil


def of_json(before: bytes, after: bytes) -> Spoil:
    """The fault of JSON with one more field, whose value no encoder would write."""

    def spoil(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
        return Spoilt(msgspec.json.encode(event)[:-1] + before + after, scene.draw.choice([JSON, {}]))

    return spoil


def wrong_type(scene: Scene, topic: Topic, event: dict[str, Any]) -> Spoilt:
    """A needed field of another type."""
    field = "item_id" if topic is ITEMS else scene.draw.choice(["event_id", "user_id"])
    wrong = scene.draw.choice([17, -1, 1.5, True, None, [MARK], {MARK: MARK}, []])
    return Spoilt(*scene.wire({**event, field: wrong}))


def missing_field(scene: Scene, topic: Topic, event: dict[str, Any]) -> Spoilt:
    """A needed field is not there."""
    field = "item_id" if topic is ITEMS else scene.draw.choice(["event_id", "user_id"])
    return Spoilt(*scene.wire({name: value for name, value in event.items() if name != field}))


def bad_id(scene: Scene, topic: Topic, event: dict[str, Any]) -> Spoilt:
    """An id that is too long, empty, or has control characters in it."""
    field = "item_id" if topic is ITEMS else scene.draw.choice(["event_id", "user_id"])
    wrong = scene.draw.choice([MARK * 52, MARK * 5_000, "", f"{MARK}\n", f"{MARK}\x1b[2J", f"\0{MARK}"])
    return Spoilt(*scene.wire({**event, field: wrong}), key=wrong.encode())


def long_text(scene: Scene, topic: Topic, event: dict[str, Any]) -> Spoilt:
    """A text of more than twenty thousand characters."""
    text = MARK * scene.draw.randint(4_001, 5_000)
    return Spoilt(*scene.wire({**event, "caption" if topic is UPLOADS else "text": text}))


def no_object(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """A list, a text, a number."""
    return Spoilt(*scene.wire(scene.draw.choice([[event], list(event), MARK, 17, None, True])))


def random_bytes(scene: Scene, _: Topic, __: dict[str, Any]) -> Spoilt:
    """Anything."""
    return Spoilt(scene.draw.randbytes(scene.draw.randint(1, 400)), scene.draw.choice([JSON, MSGPACK, {}]))


def bit_flips(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """Text that is no UTF-8."""
    value = msgspec.msgpack.encode({**event, "context": MARK}).replace(MARK.encode(), b"\xff\xfe\xed\xa0\x80")
    return Spoilt(value, scene.draw.choice([MSGPACK, {}]))


def deep(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """Lists in lists, far beyond any stack."""
    if scene.draw.random() < 0.5:
        value = msgspec.json.encode(event)[:-1] + b',"deep":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
        return Spoilt(value, JSON)
    packed = msgspec.msgpack.encode({**event, "deep": 0})
    return Spoilt(packed[:-1] + b"\x91" * 20_000 + b"\xc0", MSGPACK)


def lying_json(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """Msgpack that calls itself JSON."""
    return Spoilt(msgspec.msgpack.encode(event), JSON)


def lying_msgpack(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """JSON that calls itself msgpack."""
    return Spoilt(msgspec.json.encode(event), MSGPACK)


def unknown_content(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """A content type that is neither."""
    return Spoilt(
        scene.wire(event)[0],
        {"content-type": scene.draw.choice([b"text/plain", b"", b"\xff\0", b"application/json+" + MARK.encode()])},
    )


def wrong_key(scene: Scene, _: Topic, event: dict[str, Any]) -> Spoilt:
    """A key that names someone else."""
    return Spoilt(*scene.wire(event), key=scene.draw.choice([f"{MARK}-someone".encode(), b"", b"\xff\xfe"]))


def empty(scene: Scene, topic: Topic, _: dict[str, Any]) -> Spoilt:
    """No value; on `items` a null one would withdraw."""
    return Spoilt(b"" if topic is ITEMS else scene.draw.choice([b"", None]), scene.draw.choice([JSON, {}]))


def bad_withdrawal(scene: Scene, _: Topic, __: dict[str, Any]) -> Spoilt:
    """A null value whose key is no catalogue item's."""
    return Spoilt(None, {}, key=scene.draw.choice([b"", f"~{MARK}/own".encode(), b"\xff", MARK.encode() * 100]))


def bad_medium(scene: Scene, topic: Topic, event: dict[str, Any]) -> Spoilt:
    """A medium with both data and a reference, with neither, or of no known kind."""
    wrong: dict[str, Any] = scene.draw.choice(
        [
            {"kind": "image"},
            {"kind": "audio", "data": b"x", "uri": f"file:///{MARK}"},
            {"kind": "video", "data": b"x"},
            {"kind": "image", "data": b""},
            {"kind": "image", "uri": "x" * 5_000},
        ]
    )
    if topic is UPLOADS:
        return Spoilt(*scene.wire({name: value for name, value in event.items() if name != "data"} | wrong))
    good = {"kind": "image", "data": b"x"}
    return Spoilt(*scene.wire({**event, "media": scene.draw.choice([[wrong], [good, wrong], [good] * 9])}))


ALL = (CLICKS, CLICKS, CLICKS, POSTS, UPLOADS, ITEMS)  # clicks are what there is most of
NOW_S = 1_790_000_000  # in seconds, where milliseconds are meant

FAULTS: dict[str, tuple[tuple[Topic, ...], Spoil, tuple[str, ...]]] = {
    "truncated msgpack": (
        ALL,
        lambda scene, _, event: Spoilt(cut(msgspec.msgpack.encode(event), scene.draw), {}),
        ("malformed",),
    ),
    "truncated JSON": (
        ALL,
        lambda scene, _, event: Spoilt(cut(msgspec.json.encode(event), scene.draw), JSON),
        ("malformed",),
    ),
    "more behind the end": (
        ALL,
        lambda scene, _, event: Spoilt(scene.wire(event)[0] + MARK.encode(), {}),
        ("malformed",),
    ),
    "wrong type": (ALL, wrong_type, ("invalid",)),
    "missing field": (ALL, missing_field, ("invalid",)),
    "impossible id": (ALL, bad_id, ("invalid",)),
    "no object": (ALL, no_object, ("invalid", "malformed")),
    "too many tags": ((POSTS, ITEMS), changed(tags=[[MARK] * 65, [MARK * 20], [""]]), ("invalid",)),
    "text too long": ((POSTS, UPLOADS, ITEMS), long_text, ("invalid",)),
    "not finite": (
        (CLICKS,),
        only_msgpack(value=[float("nan"), float("inf"), float("-inf"), 1e300]),
        ("invalid",),
    ),
    "not finite in JSON": ((CLICKS,), of_json(b',"value":', b"NaN}"), ("malformed",)),
    "number too large": ((CLICKS,), of_json(b',"value":', b"9" * 5_000 + b"}"), ("invalid",)),
    "unknown tag": (ALL, changed(type=["click-2", MARK, "", 17, None]), ("invalid",)),
    "unknown action": ((CLICKS,), changed(action=["post", "search", MARK, "", "LIKE", 1]), ("invalid",)),
    "rating without value": ((CLICKS,), changed(action=["rate"], value=[None]), ("invalid",)),
    "wrong key": (ALL, wrong_key, ("key-mismatch",)),
    "time out of reach": (
        ALL,
        changed(at=[NOW_S, 0, -1, -NOW_S, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", 253_402_300_799_999]),
        ("implausible-time",),
    ),
    "no time": (
        ALL,
        changed(at=[MARK, "yesterday", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00", 10**15, 1.5, True, [1]]),
        ("invalid",),
    ),
    "time of no format": (
        (CLICKS,),
        only_msgpack(at=[Ext(-1, b"\0" * 3), Ext(5, b"x"), b"2026"]),
        ("invalid", "malformed"),
    ),
    "empty": (ALL, empty, ("empty",)),
    "random bytes": (ALL, random_bytes, ("malformed", "invalid")),
    "no UTF-8": ((CLICKS, POSTS, UPLOADS), bit_flips, ("malformed", "invalid")),
    "nested too deep": ((CLICKS,), deep, ("malformed",)),
    "msgpack called JSON": (ALL, lying_json, ("malformed",)),
    "JSON called msgpack": (ALL, lying_msgpack, ("invalid", "malformed")),
    "unknown content type": (ALL, unknown_content, ("content-type",)),
    "reserved id": (
        (ITEMS,),
        lambda scene, _, event: Spoilt(*scene.wire({**event, "item_id": f"~{MARK}/x"}), key=f"~{MARK}/x".encode()),
        ("reserved-id",),
    ),
    "withdrawal of nothing": ((ITEMS,), bad_withdrawal, ("key-mismatch",)),
    "post without content": ((POSTS,), changed(text=["", " \n\t"]), ("invalid",)),
    "medium that cannot be": ((POSTS, UPLOADS, ITEMS), bad_medium, ("invalid",)),
    "data that is no base64": (
        (UPLOADS,),
        lambda _, __, event: Spoilt(msgspec.json.encode({**event, "data": f"!{MARK}!"}), JSON),
        ("invalid",),
    ),
}


# Faults of one medium: each draws a kind, and data or a reference.

Make = Callable[[random.Random], tuple[str, dict[str, Any]]]


def picture(draw: random.Random, form: str = "PNG") -> bytes:
    """A small picture of noise."""
    pixels = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (24, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def sound(draw: random.Random, form: str = "WAV") -> bytes:
    """A quarter of a second of noise."""
    samples = np.random.default_rng(draw.randrange(2**32)).normal(0, 0.1, 4_000)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=form)
    return file.getvalue()


def truncated(kind: str, form: str) -> Make:
    """The fault of ending within the first two thirds."""

    def make(draw: random.Random) -> tuple[str, dict[str, Any]]:
        whole = picture(draw, form) if kind == "image" else sound(draw, form)
        return kind, {"data": whole[: draw.randrange(len(whole) // 3, 2 * len(whole) // 3)]}

    return make


def noise(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """Random bytes, some behind the first bytes of a known format."""
    start = draw.choice([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF", b"OggS", b"fLaC", b"GIF89a"])
    return draw.choice(["image", "audio"]), {"data": start + b"\0" + draw.randbytes(300)}


def huge(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A picture whose header declares billions of pixels."""
    width, height = draw.choice([(60_000, 60_000), (2**31 - 1, 1), (50_000, 1_000), (65_535, 65_535)])
    bitmap = picture(draw, "BMP")
    return "image", {
        "data": bitmap[:18] + width.to_bytes(4, "little") + height.to_bytes(4, "little", signed=True) + bitmap[26:]
    }


def text_as_medium(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A text, or a sound as a picture, or the other way round."""
    return draw.choice(
        [
            ("image", {"data": f"<svg>{MARK}</svg>".encode()}),
            ("audio", {"data": f"{MARK} as if sung".encode()}),
            ("image", {"data": sound(draw)}),
            ("audio", {"data": picture(draw)}),
        ]
    )


def forbidden(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A reference that must not be followed."""
    uris = [
        "file:///etc/passwd",
        "file:///etc/../etc/shadow",
        "file:///proc/self/environ",
        f"file:///{MARK}.png",
        f"https://{MARK}.invalid/a.png",
        "ftp://127.0.0.1/a.ogg",
        "data:,x",
        MARK,
        "file://host/x",
        "//",
        "http://[",
    ]
    return draw.choice(["image", "audio"]), {"uri": draw.choice(uris)}


ANY_CORRUPT = tuple(f"{kind}-{word}" for kind in ("image", "audio") for word in ("corrupt", "unsupported-format"))
BAD_PARTS_OF: dict[str, tuple[Make, tuple[str, ...]]] = {
    "truncated JPEG": (truncated("image", "JPEG"), ("image-corrupt", "image-unsupported-format")),
    "truncated PNG": (truncated("image", "PNG"), ("image-corrupt", "image-unsupported-format")),
    "truncated OGG": (truncated("audio", "OGG"), ("audio-corrupt",)),
    "truncated FLAC": (truncated("audio", "FLAC"), ("audio-corrupt",)),
    "truncated WAV": (truncated("audio", "WAV"), ("audio-corrupt",)),
    "medium of noise": (noise, ANY_CORRUPT),
    "huge picture": (huge, ("image-too-large",)),
    "medium of another kind": (text_as_medium, ANY_CORRUPT),
    "forbidden reference": (
        forbidden,
        tuple(
            f"{kind}-{word}"
            for kind in ("image", "audio")
            for word in ("unsupported-scheme", "not-allowed", "malformed-uri")
        ),
    ),
}
