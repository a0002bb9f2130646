"""The wire contract: one struct a topic, bounds on every field.

A value is decoded into its struct in one step that checks types and bounds together; whatever does not fit
never reaches a lane. Unknown fields are ignored, so that producers may be newer than workers. The type tag may
be left out where a topic carries one type.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from penchant.profile.signals import Action

__all__ = [
    "ANYONE",
    "Because",
    "Click",
    "ClickAction",
    "EntityVector",
    "Example",
    "GraphModel",
    "Instant",
    "Item",
    "ItemReady",
    "LearnedWeights",
    "Lesson",
    "Media",
    "MediaKind",
    "MediaUpload",
    "Post",
    "Recommendations",
    "Recommended",
    "Reset",
    "SourcePosition",
    "Timings",
    "Transition",
    "Triple",
]

# No control characters: ids appear in keys, payloads and terminals. Not `$`, which a last newline would pass.
ID_PATTERN = r"^[^\x00-\x1f\x7f]+(?![\s\S])"
# Under this key `recommendations` holds what to show to somebody of whom nothing is known.
ANYONE = "~anyone"
USER_PATTERN = rf"^(?!{ANYONE}(?![\s\S]))[^\x00-\x1f\x7f]+(?![\s\S])"
MAX_ID = 256
MAX_OWN_ID = 200
MAX_TEXT = 20_000
MAX_TITLE = 1_000
MAX_MEDIA = 8
MAX_TAGS = 64
MAX_INLINE_BYTES = 8 * 2**20
MAX_VECTOR_BYTES = 32 * 2**10  # 8,192 components
MAX_PROJECTION_BYTES = 8 * 2**20
MAX_RELATIONS = 10_000
MAX_PREVIOUS = 50  # what the interest lane sends at most
MAX_PARTITION, MAX_OFFSET = 2**31 - 1, 2**63 - 1  # what Kafka has numbers for
MAX_FEATURES, MAX_CANDIDATES = 128, 64  # as float32 they just fit into `Floats`
MAX_WEIGHT, MAX_SQUARES = 1e6, 1e15
MAX_INSTANT_MS = 253_402_300_799_999  # the end of the year 9999

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID, pattern=ID_PATTERN)]
UserId = Annotated[str, Meta(min_length=1, max_length=MAX_ID, pattern=USER_PATTERN)]
# What a user's own event names: with its author before it, it is an id that others' events may name.
OwnId = Annotated[str, Meta(min_length=1, max_length=MAX_OWN_ID, pattern=ID_PATTERN)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Title = Annotated[str, Meta(max_length=MAX_TITLE)]
Tag = Annotated[str, Meta(min_length=1, max_length=64)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=MAX_TAGS)]
Uri = Annotated[str, Meta(min_length=1, max_length=4_096)]
InlineData = Annotated[bytes, Meta(min_length=1, max_length=MAX_INLINE_BYTES)]
Language = Annotated[str, Meta(min_length=2, max_length=35)]
Context = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=256)]], Meta(max_length=32)
]
Attributes = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=256)]], Meta(max_length=64)
]
# Epoch milliseconds, or RFC 3339 with an offset.
Instant = Annotated[int, Meta(ge=-MAX_INSTANT_MS, le=MAX_INSTANT_MS)] | Annotated[datetime, Meta(tz=True)]
Floats = Annotated[bytes, Meta(min_length=4, max_length=MAX_VECTOR_BYTES)]  # float32, little-endian
Operators = Annotated[dict[Id, Floats], Meta(max_length=MAX_RELATIONS)]
ModelId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?![\s\S])")]
Share = Annotated[float, Meta(gt=0, le=1)]
FiniteValue = Annotated[float, Meta(ge=-1e9, le=1e9)]  # NaN and infinity satisfy no bound
FeatureName = Annotated[str, Meta(min_length=1, max_length=64, pattern=ID_PATTERN)]
FeatureNames = Annotated[tuple[FeatureName, ...], Meta(min_length=1, max_length=MAX_FEATURES)]
FeatureWeights = Annotated[
    tuple[Annotated[float, Meta(ge=-MAX_WEIGHT, le=MAX_WEIGHT)], ...], Meta(min_length=1, max_length=MAX_FEATURES)
]
FeatureSquares = Annotated[
    tuple[Annotated[float, Meta(ge=0, le=MAX_SQUARES)], ...], Meta(min_length=1, max_length=MAX_FEATURES)
]


class ClickAction(StrEnum):
    """What a `Click` may say was done. Posting and uploading have topics of their own."""

    VIEW = Action.VIEW
    CLICK = Action.CLICK
    SKIP = Action.SKIP
    LIKE = Action.LIKE
    SHARE = Action.SHARE
    SAVE = Action.SAVE
    PURCHASE = Action.PURCHASE
    RATE = Action.RATE
    DISLIKE = Action.DISLIKE
    HIDE = Action.HIDE

    __hash__ = str.__hash__  # as of `Action`


class MediaKind(StrEnum):
    """The modalities that media come in."""

    IMAGE = "image"
    AUDIO = "audio"


class Media(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture or a sound: inline, or by reference."""

    kind: MediaKind
    uri: Uri | None = None
    data: InlineData | None = None


class Click(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="click"):
    """A user did something to an item."""

    event_id: Id
    user_id: UserId
    item_id: Id
    action: ClickAction = ClickAction.CLICK
    value: FiniteValue | None = None
    dwell_ms: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    at: Instant | None = None
    context: Context | None = None


class Post(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="post"):
    """A user wrote something. With `recommendable` false it is private: a search, for instance."""

    event_id: OwnId
    user_id: UserId
    item_id: OwnId | None = None
    text: Text = ""
    media: Annotated[tuple[Media, ...], Meta(max_length=MAX_MEDIA)] = ()
    tags: Tags = ()
    language: Language | None = None
    at: Instant | None = None
    recommendable: bool = True


class MediaUpload(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="media-upload"):
    """A user uploaded a picture or a sound."""

    event_id: OwnId
    user_id: UserId
    kind: MediaKind
    item_id: OwnId | None = None
    uri: Uri | None = None
    data: InlineData | None = None
    caption: Text = ""
    at: Instant | None = None
    recommendable: bool = True


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="item"):
    """Something of the catalogue. A null value on the topic withdraws the item that the key names."""

    item_id: Id
    title: Title = ""
    text: Text = ""
    media: Annotated[tuple[Media, ...], Meta(max_length=MAX_MEDIA)] = ()
    tags: Tags = ()
    attributes: Attributes = msgspec.field(default_factory=dict)
    entity: Id | None = None
    at: Instant | None = None


class Triple(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="triple"):
    """A fact of the knowledge graph: `head` stands in `relation` to `tail`."""

    head: Id
    relation: Id
    tail: Id


class EntityVector(Struct, frozen=True, kw_only=True, tag_field="type", tag="entity-vector"):
    """Internal: an entity's vector by a trained graph model. A null value takes back the one that the key names."""

    entity: Id
    model: ModelId
    vector: Floats


class GraphModel(Struct, frozen=True, kw_only=True, tag_field="type", tag="graph-model"):
    """Internal: the graph model in force: its projection to the graph's slice, and what its relations do.

    `mean` has as many components as an entity's vector, `components` so many for each component of the slice.
    """

    model: ModelId
    operation: Literal["add", "multiply"]
    mean: Floats
    components: Annotated[bytes, Meta(min_length=4, max_length=MAX_PROJECTION_BYTES)]
    forward: Operators
    backward: Operators


class ItemReady(Struct, frozen=True, kw_only=True, tag_field="type", tag="item-ready"):
    """Internal: an item that this user waits for has vectors."""

    user_id: UserId
    item_id: Id


class SourcePosition(Struct, frozen=True, kw_only=True):
    """A record: of a list's inputs, the newest one of its partition."""

    topic: Annotated[str, Meta(min_length=1, max_length=249)]
    partition: Annotated[int, Meta(ge=0, le=MAX_PARTITION)]
    offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)]


class Transition(Struct, frozen=True, kw_only=True, tag_field="type", tag="transition"):
    """Internal: somebody liked this item, after those others (latest first, with their weights)."""

    item_id: Id
    at: Annotated[int, Meta(ge=-MAX_INSTANT_MS, le=MAX_INSTANT_MS)]
    previous: Annotated[tuple[tuple[Id, Share], ...], Meta(max_length=MAX_PREVIOUS)] = ()
    origin: SourcePosition


class Example(Struct, frozen=True, kw_only=True, tag_field="type", tag="example"):
    """Internal: of what a list was chosen from, the one that was liked and some that were not. It names nobody.

    Attributes:
        names: of the F features.
        candidates: how many there are.
        features: of the candidates, the liked one first: F rows of float32, little-endian.
        absence_ms: how long the user had been away, in whole minutes.
    """

    names: FeatureNames
    candidates: Annotated[int, Meta(ge=2, le=MAX_CANDIDATES)]
    features: Floats
    absence_ms: Annotated[int, Meta(ge=0, le=MAX_INSTANT_MS)]


class Reset(Struct, frozen=True, kw_only=True, tag_field="type", tag="reset"):
    """Asks the learner to begin again, as if nothing had been learned."""


Lesson = Example | Reset


class LearnedWeights(Struct, frozen=True, kw_only=True, tag_field="type", tag="learned-weights"):
    """Internal: the weights of the ranking as the learner has them. The last record is in force.

    Attributes:
        names: of the F features.
        base: that always count.
        returning: that count by how long a user was away.
        base_squares: sums of squared steps, by which the next ones are scaled.
        returning_squares: likewise.
        examples: learned from, since the beginning or a reset.
        as_of: the timestamp of the newest of them, epoch milliseconds; 0: none.
        topic_id: of the topic that they were read from.
        next_offset: everything there before it has been taken in.
    """

    names: FeatureNames
    base: FeatureWeights
    returning: FeatureWeights
    base_squares: FeatureSquares
    returning_squares: FeatureSquares
    examples: Annotated[int, Meta(ge=0, le=MAX_OFFSET)]
    as_of: Annotated[int, Meta(ge=0, le=MAX_OFFSET)]
    topic_id: Annotated[str, Meta(max_length=64)]
    next_offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)]


class Because(Struct, frozen=True, kw_only=True):
    """A past event that speaks for an item, and by how much of the item's score."""

    event_id: str
    item_id: str
    action: str
    part: float


class Recommended(Struct, frozen=True, kw_only=True):
    """One item of a list.

    `parts`, by feature of the ranking, sum to `score`; it compares the candidates of one list, and no two lists.
    `explored`: it is new, and there to see whether it is liked; ranking alone had left it out.
    """

    item_id: str
    score: float
    parts: dict[str, float]
    because: tuple[Because, ...] = ()
    explored: bool = False


class Timings(Struct, frozen=True, kw_only=True):
    """When the newest event behind a list happened to penchant, in epoch milliseconds."""

    recorded: int  # the record's timestamp on the input topic
    stored: int  # the profile was in the store
    ranked: int  # the list was made


class Recommendations(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="recommendations"):
    """What to show a user now. The last one of a key is the one in force (the topic is compacted).

    Under the key and the `user_id` `~anyone`, which no user can have, it is what to show to somebody not known yet.
    """

    user_id: str
    profile_version: int
    as_of: int
    items: tuple[Recommended, ...] = ()
    inputs: tuple[SourcePosition, ...] = ()
    timings: Timings | None = None
