"""Traffic: what users do, drawn from a seed, and what must be known of them afterwards.

Events are out of order by days, some are sent again at once or much later, some are corrected under the same id. What
each profile must hold is kept beside them, by the words of docs/semantics.md and none of the code that keeps profiles.
"""

import random
from collections import defaultdict
from collections.abc import Mapping

from msgspec import Struct

from penchant.profile.identity import Identity
from penchant.streams.codec import encode
from penchant.streams.events import Click, ClickAction, Item, Post
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.stage import Stage

__all__ = ["DAY_MS", "Held", "Traffic"]

Held = tuple[int, str, str, str, float]  # time, event id, item, action, weight

DAY_MS = 86_400_000
WEIGHTS: Mapping[str, float] = {
    "view": 0.5, "click": 1.0, "skip": -0.3, "like": 2.0, "save": 2.0, "purchase": 4.0, "hide": -3.0,
}  # fmt: skip
WEAK = frozenset({"view", "click", "skip"})
ACTIONS = (*WEIGHTS, "rate")
TWICE, CORRECTED, POSTS = 0.04, 0.01, 0.002
REMEMBERED = 5_000  # events that may be sent again
KNOWN_AGAIN = 128  # likes of a user before which a copy of one is no second one


class Past(Struct):
    """An event that may come again."""

    user: str
    click: Click


class Traffic:
    """An endless stream of events.

    Args:
        stage: names the topics.
        seed: of everything.
        users: how many there are; the busiest is as busy as in a Zipf distribution.
        items: of the catalogue.
        start_ms: about when the events happen, epoch milliseconds.

    Attributes:
        sent: records so far.
        again: of them, records that say what one before has said.
        likes: by item, when it was liked: as the first record of each event says.
    """

    def __init__(self, stage: Stage, *, seed: int, users: int, items: int, start_ms: int) -> None:
        self._stage = stage
        self._rng = random.Random(seed)
        self._identity = Identity(stage.settings.id_key.get_secret_value())
        self._prefix = f"{seed}-"
        self._users = [f"user-{number}" for number in range(users)]
        self._shares = [1 / (rank + 10) for rank in range(users)]
        self._items = [f"item-{number}" for number in range(items)]
        self._start_ms = start_ms
        self._number = 0
        self._past: list[Past] = []
        self._limits = (stage.settings.profile.strong_limit, stage.settings.profile.weak_limit)
        self._held: dict[str, dict[str, Held]] = defaultdict(dict)
        self._liked: dict[str, list[str]] = defaultdict(list)
        self.likes: dict[str, list[int]] = defaultdict(list)
        self.sent = 0
        self.again = 0

    def catalogue(self) -> list[Output]:
        """The items."""
        words = ("sea", "bread", "jazz", "snow", "chess", "soil", "glass", "rail", "ink", "moss")
        topic = self._stage.topic(Topic.ITEMS)
        made = []
        for number, item_id in enumerate(self._items):
            title = f"{words[number % 10]} and {words[number // 10 % 10]} {number}"
            made.append(Output(topic=topic, key=item_id.encode(), value=encode(Item(item_id=item_id, title=title))))
        return made

    def events(self, count: int) -> list[Output]:
        """The next records, in the order of sending."""
        users = self._rng.choices(self._users, self._shares, k=count)
        self.sent += count
        return [self._next(user) for user in users]

    def resend(self, count: int) -> list[Output]:
        """Records of the past, as a producer sends them that does not know whether they arrived."""
        some = self._past[-count:]
        self.sent += len(some)
        self.again += len(some)
        return [self._output(past.user, past.click) for past in some]

    def held(self) -> dict[str, tuple[list[Held], list[Held]]]:
        """By user, the strong and the weak signals that must be known, newest first."""
        strong_limit, weak_limit = self._limits
        found = {}
        for user, events in self._held.items():
            newest = sorted(events.values(), key=lambda one: one[:2], reverse=True)
            found[user] = (
                [one for one in newest if one[3] not in WEAK][:strong_limit],
                [one for one in newest if one[3] in WEAK][:weak_limit],
            )
        return found

    def _next(self, user: str) -> Output:
        chance = self._rng.random()
        if chance < TWICE and self._past:
            past = self._rng.choice(self._past)
            self.again += 1
            return self._output(past.user, past.click)
        if chance < TWICE + CORRECTED and self._past:
            return self._corrected(self._rng.choice(self._past))
        self._number += 1
        event_id = f"{self._prefix}{self._number}"
        at = self._start_ms + self._number - round(self._rng.expovariate(1 / DAY_MS))
        if chance > 1 - POSTS:
            return self._post(user, event_id, at)
        action = self._rng.choice(ACTIONS)
        value = self._rng.randint(1, 10) / 2 if action == "rate" else None
        item = self._rng.choice(self._items)
        click = Click(event_id=event_id, user_id=user, item_id=item, action=ClickAction(action), value=value, at=at)
        if len(self._past) < REMEMBERED:
            self._past.append(Past(user, click))
        else:
            self._past[self._number % REMEMBERED] = Past(user, click)
        return self._click(user, click)

    def _corrected(self, past: Past) -> Output:
        """The same event, said anew: it happened later than was said before, and to something else."""
        old = past.click
        assert isinstance(old.at, int)
        past.click = Click(
            event_id=old.event_id,
            user_id=past.user,
            item_id=self._rng.choice(self._items),
            action=old.action,
            value=old.value,
            at=old.at + self._rng.randint(1, 1_000),
        )
        return self._click(past.user, past.click)

    def _click(self, user: str, click: Click) -> Output:
        assert isinstance(click.at, int)
        self._hold(user, (click.at, click.event_id, click.item_id, str(click.action), weight_of(click)))
        return self._output(user, click)

    def _post(self, user: str, event_id: str, at: int) -> Output:
        own = self._identity.own_item(user, event_id)
        self._hold(user, (at, event_id, own, "post", 2.0))
        post = Post(event_id=event_id, user_id=user, text=f"about {self._rng.choice(self._items)}", at=at)
        return Output(topic=self._stage.topic(Topic.POSTS), key=user.encode(), value=encode(post))

    def _output(self, user: str, click: Click) -> Output:
        if weight_of(click) >= 1 and click.event_id not in self._liked[user][-KNOWN_AGAIN:]:
            self._liked[user].append(click.event_id)
            assert isinstance(click.at, int)
            self.likes[click.item_id].append(click.at)
        return Output(topic=self._stage.topic(Topic.CLICKS), key=user.encode(), value=encode(click))

    def _hold(self, user: str, signal: Held) -> None:
        events = self._held[user]
        known = events.get(signal[1])
        if known is None or signal > known:
            events[signal[1]] = signal
        if len(events) > 4 * max(self._limits):
            # What is not among the newest now never will be: newer ones push it further out.
            strong, weak = (
                sorted((one for one in events.values() if (one[3] in WEAK) is is_weak), reverse=True)[:limit]
                for is_weak, limit in zip((False, True), self._limits, strict=True)
            )
            self._held[user] = {one[1]: one for one in (*strong, *weak)}


def weight_of(click: Click) -> float:
    """How much a click says about interest."""
    return 2.0 * (2 * (click.value - 0.5) / 4.5 - 1) if click.value is not None else WEIGHTS[click.action]
