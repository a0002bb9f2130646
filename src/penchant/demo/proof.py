"""The proof: events sent twice and a worker killed in mid-stream change nothing in what is known of anyone.

What every profile must hold is worked out here from what was sent, one event at a time and without the code that
keeps profiles, and compared with what the worker tells, signal by signal.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from penchant.demo.scenes import USERS
from penchant.profile.identity import Identity
from penchant.profile.signals import Action, signal_weight
from penchant.settings import ProfileSettings
from penchant.streams.client import Event
from penchant.streams.events import Click, ClickAction, MediaUpload, Post
from penchant.streams.interpret import action_weights

__all__ = ["Burst", "Comparison", "Expected", "Told", "build_burst", "compare", "expected_of"]

EVENTS = 600
GUESTS = 20
TWICE = 0.2
SOON, LATE = (1, 5), (100, 300)  # how many events later the second one of a pair follows
ACTIONS = (ClickAction.VIEW, ClickAction.CLICK, ClickAction.LIKE, ClickAction.SAVE, ClickAction.RATE, ClickAction.HIDE)
HOUR_MS = 3_600_000

Told = Mapping[str, object]


class Expected(Struct, frozen=True):
    """A signal as an event must have left it in its user's profile."""

    event_id: str
    item_id: str
    action: str
    weight: float
    time: int


class Comparison(Struct, frozen=True, kw_only=True):
    """What came of comparing profiles with what was sent.

    Attributes:
        users: compared.
        signals: that should be there.
        lost: of them, those that are not.
        twice: signals that are there once more than they should be.
        altered: signals that differ from what was sent, or that nobody sent.
    """

    users: int
    signals: int
    lost: int
    twice: int
    altered: int

    @property
    def exact(self) -> bool:
        """Whether the profiles hold what was sent, and nothing else."""
        return not (self.lost or self.twice or self.altered)


class Burst(Struct, frozen=True, kw_only=True):
    """Many clicks, a share of them twice.

    Attributes:
        sends: in the order of sending.
        twice: how many are sent twice.
        closing: by user, the event sent last, once: where it is handled, so are all before it in its partition.
    """

    sends: Sequence[Click]
    twice: int
    closing: Mapping[str, str]

    @property
    def events(self) -> int:
        """How many different events there are."""
        return len(self.sends) - self.twice


def build_burst(items: Sequence[str], now_ms: int) -> Burst:
    """Clicks of the demo's users and of further guests on any of `items`.

    Some pairs follow each other at once, as after a producer's retry, others much later, so that in most runs the
    worker has been killed and started again between them. Times are out of order.
    """
    rng = random.Random(11)
    users = [*USERS, *(f"guest-{number:02}" for number in range(1, GUESTS + 1))]
    places: list[tuple[float, Click]] = []
    for number in range(EVENTS):
        action = rng.choice(ACTIONS)
        click = Click(
            event_id=f"burst-{number:03}",
            user_id=users[number % len(users)],
            item_id=rng.choice(items),
            action=action,
            value=rng.randint(1, 10) / 2 if action is ClickAction.RATE else None,
            at=now_ms - rng.randrange(HOUR_MS),
        )
        places.append((number, click))
        closing = number >= EVENTS - len(users)
        if not closing and rng.random() < TWICE:
            later = rng.randint(*rng.choice((SOON, LATE))) + 0.5
            places.append((min(number + later, EVENTS - len(users) - 0.5), click))
    places.sort(key=lambda place: place[0])
    return Burst(
        sends=[click for _, click in places],
        twice=len(places) - EVENTS,
        closing={click.user_id: click.event_id for _, click in places[-len(users) :]},
    )


def expected_of(events: Iterable[Event], identity: Identity, settings: ProfileSettings) -> dict[str, list[Expected]]:
    """By user, the signals that events must have left; an event that is sent again is the same event."""
    weights = action_weights(settings)
    rating_range = (settings.rating_low, settings.rating_high)
    found: dict[str, dict[str, Expected]] = {}
    for event in events:
        value = None
        if isinstance(event, Click):
            action, item_id, value = Action(event.action), event.item_id, event.value
        elif isinstance(event, Post | MediaUpload):
            action, item_id = action_of(event), identity.own_item(event.user_id, event.event_id)
        else:
            continue  # items are nobody's doing
        if not isinstance(event.at, int):
            raise TypeError("the demo's events say when they happened, in milliseconds")
        weight = signal_weight(action, value=value, dwell_ms=None, weights=weights, rating_range=rating_range)
        signal = Expected(event.event_id, item_id, action, weight, event.at)
        found.setdefault(event.user_id, {})[event.event_id] = signal
    return {user: list(signals.values()) for user, signals in found.items()}


def action_of(event: Post | MediaUpload) -> Action:
    """What a post or an upload counts as."""
    if isinstance(event, MediaUpload):
        return Action.UPLOAD
    return Action.POST if event.recommendable else Action.SEARCH


def compare(expected: Mapping[str, Sequence[Expected]], told: Mapping[str, Sequence[Told]]) -> Comparison:
    """Compares what must be with what the worker tells, user by user and signal by signal."""
    lost = twice = altered = 0
    for user, signals in expected.items():
        by_id = {signal.event_id: signal for signal in signals}
        found = Counter(str(one["event_id"]) for one in told.get(user, ()))
        lost += len(by_id.keys() - found.keys())
        twice += sum(count - 1 for count in found.values())
        altered += sum(not same(by_id.get(str(one["event_id"])), one) for one in told.get(user, ()))
    return Comparison(
        users=len(expected),
        signals=sum(map(len, expected.values())),
        lost=lost,
        twice=twice,
        altered=altered,
    )


def same(signal: Expected | None, told: Told) -> bool:
    """Whether a signal is told as it was sent, in every field."""
    return signal is not None and all(told[field] == getattr(signal, field) for field in Expected.__struct_fields__)
