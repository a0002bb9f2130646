"""Test, then train: every contestant ranks an event's item before it learns from the event.

All contestants take part in one pass over the stream, so that they meet the same probes with the same candidates and
the same sampled negatives. Each event is learned by all of them, whether or not it was a probe. This is prequential
evaluation as Vinagre, Jorge and Gama describe it for recommenders, "Evaluation of recommender systems in streaming
environments" (2015): no split of the data, and a figure for every moment of the stream.
"""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.errors import ConfigurationError
from penchant.evaluation.stream import Stream

__all__ = [
    "BINS",
    "LIST",
    "NEGATIVES",
    "Contestant",
    "Event",
    "Featured",
    "Half",
    "Outcome",
    "Probes",
    "Progress",
    "Rules",
    "choose_probes",
    "evaluate",
]

Half = Literal["first", "last"]
Progress = Callable[[str, int, int], None]

HOUR_MS = 3_600_000
LIST = 10  # items of a list that are kept for coverage, novelty, diversity and calibration
NEGATIVES = 100  # sampled per probe, for the ROC curve and for the information gain of features
BINS = 20  # of a feature's percentiles among a probe's positive and its negatives
PROGRESS_EVENTS = 200


class Event(Struct, frozen=True, gc=False):
    """One event of a stream, in codes; the time in epoch milliseconds."""

    index: int
    user: int
    item: int
    time: int
    weight: float
    positive: bool


class Contestant(Protocol):
    """One model, or several configurations of one that share their work."""

    @property
    def names(self) -> Sequence[str]:
        """Of the configurations."""

    def scores(self, event: Event, unseen: NDArray[np.int64], /) -> NDArray[np.float32]:
        """How much the event's user would like each item, as known before the event.

        Args:
            event: a probe. Only its user and its time may be looked at.
            unseen: codes of the items to rank, ascending: shape (items,).

        Returns:
            Finite scores by configuration; column j is that of item `unseen[j]`: shape (configurations, items).
        """

    def learn(self, event: Event, /) -> None:
        """Takes an event into account. Called for every event, in order, after it was ranked if it was a probe."""


@runtime_checkable
class Featured(Protocol):
    """What a contestant may be besides: a model whose scores are made of named features, each of which is judged."""

    @property
    def features(self) -> Sequence[str]:
        """Names."""

    def explain(self, event: Event, items: NDArray[np.int64], /) -> NDArray[np.float32]:
        """The features of items for a probe: shape (features, items). Called right after `scores`."""


class Rules(Struct, frozen=True, kw_only=True):
    """Which events are probes.

    Attributes:
        probes: sampled of those eligible; 0 or less takes all.
        seed: of the sample, and of the sampled negatives.
        half: of the stream that probes lie in. What is tuned is tuned on the first half, and judged on the last.
        min_events: that a user must have had before; at least one.
        absence_ms: a positive event that comes so long after the user's event before it, of whatever kind, is a first
            one after an absence.
    """

    probes: int = 5_000
    seed: int = 0
    half: Half = "last"
    min_events: int = 5
    absence_ms: int = 8 * HOUR_MS


class Probes(Struct, frozen=True, kw_only=True, eq=False):
    """The events to rank: p of them, in order.

    Attributes:
        index: into the stream: shape (p,).
        sampled: which belong to the sample: shape (p,).
        absent: which end an absence (all of the half are among the probes): shape (p,).
        eligible: how many events the sample was drawn from.
    """

    index: NDArray[np.int64]
    sampled: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    eligible: int


class Outcome(Struct, frozen=True, kw_only=True, eq=False):
    """How c configurations ranked p probes.

    Attributes:
        names: of the configurations.
        probes: what was ranked.
        candidates: how many items the probe's was among: shape (p,).
        ranks: of the probe's item: 1 and one for each better candidate and a half for each other of its score:
            shape (c, p).
        tops: the best `LIST` items, best first, -1 where there are fewer: shape (c, p, LIST).
        negatives: the share of a probe's sampled negatives that is above its item, ties by half: shape (c, p).
        gains: by feature, how often its percentile was in each bin for negatives and for probes' items:
            shape (BINS, 2). Configurations' scores are features too, under their names.
        seconds: that each contestant took, to score and to learn, by the names of its configurations.
    """

    names: tuple[str, ...]
    probes: Probes
    candidates: NDArray[np.int64]
    ranks: NDArray[np.float32]
    tops: NDArray[np.int32]
    negatives: NDArray[np.float32]
    gains: dict[str, NDArray[np.int64]]
    seconds: dict[tuple[str, ...], tuple[float, float]]

    def narrowed(self, names: Sequence[str]) -> "Outcome":
        """The same of some configurations alone, in the order in which they took part; of all where none is named."""
        rows = [row for row, name in enumerate(self.names) if name in names or not names]
        left_out = set(self.names) - {self.names[row] for row in rows}
        return Outcome(
            names=tuple(self.names[row] for row in rows),
            probes=self.probes,
            candidates=self.candidates,
            ranks=self.ranks[rows],
            tops=self.tops[rows],
            negatives=self.negatives[rows],
            gains={name: table for name, table in self.gains.items() if name not in left_out},
            seconds=self.seconds,
        )


def choose_probes(stream: Stream, rules: Rules) -> Probes:
    """The probes of a stream: the sample, and every positive event that ends an absence.

    Eligible is a positive event of a user who has had events enough before, on a listed item new to the user.

    Raises:
        ConfigurationError: no event is eligible.
    """
    eligible, absent = np.zeros(len(stream), bool), np.zeros(len(stream), bool)
    seen: set[tuple[int, int]] = set()
    events, newest = np.zeros(len(stream.users), np.int64), np.zeros(len(stream.users), np.int64)
    for index, event in enumerate(played(stream)):
        user = event.user
        if event.positive and stream.listed[event.item] and events[user] >= rules.min_events:
            eligible[index] = (user, event.item) not in seen
            absent[index] = event.time - newest[user] >= rules.absence_ms
        seen.add((user, event.item))
        events[user] += 1
        newest[user] = event.time
    middle = len(stream) // 2
    eligible[slice(middle) if rules.half == "last" else slice(middle, None)] = False
    absent &= eligible
    population = np.flatnonzero(eligible)
    if not len(population):
        raise ConfigurationError(
            "The stream has no event to rank",
            hint=f"A probe is a positive event on an item new to a user who had {rules.min_events} events before.",
        )
    sampled = np.zeros(len(stream), bool)
    size = min(rules.probes, len(population)) if rules.probes > 0 else len(population)
    sampled[np.random.default_rng(rules.seed).choice(population, size, replace=False)] = True
    chosen = np.flatnonzero(sampled | absent)
    return Probes(index=chosen, sampled=sampled[chosen], absent=absent[chosen], eligible=len(population))


def played(stream: Stream) -> list[Event]:
    """The events of a stream, in order."""
    columns = (stream.user, stream.item, stream.time, stream.weight, stream.positive)
    return list(map(Event, range(len(stream)), *(column.tolist() for column in columns)))


class Clocked(Struct):
    """A contestant, its place among the configurations, and the time that it has taken."""

    contestant: Contestant
    rows: slice
    scoring_s: float = 0.0
    learning_s: float = 0.0


def evaluate(
    stream: Stream, contestants: Sequence[Contestant], rules: Rules, *, progress: Progress | None = None
) -> Outcome:
    """Plays a stream once for all contestants; what comes behind the last probe is left out.

    Raises:
        ConfigurationError: there is nothing to rank, or two configurations have one name.
    """
    tell = progress or (lambda *_: None)
    names = tuple(name for contestant in contestants for name in contestant.names)
    if len(set(names)) < len(names) or not names:
        raise ConfigurationError("Configurations must have distinct names, and there must be one")
    probes = choose_probes(stream, rules)
    ends = np.cumsum([0, *(len(contestant.names) for contestant in contestants)]).tolist()
    field = [Clocked(one, slice(*rows)) for one, rows in zip(contestants, pairwise(ends), strict=True)]
    count = len(probes.index)
    outcome = Outcome(
        names=names,
        probes=probes,
        candidates=np.zeros(count, np.int64),
        ranks=np.zeros((len(names), count), np.float32),
        tops=np.full((len(names), count, LIST), -1, np.int32),
        negatives=np.zeros((len(names), count), np.float32),
        gains={},
        seconds={},
    )
    places = dict(zip(probes.index.tolist(), range(count), strict=True))
    seen: list[list[int]] = [[] for _ in stream.users]
    last = int(probes.index[-1])
    for event in played(stream)[: last + 1]:
        if event.index in places:
            unseen = unseen_by(seen[event.user], stream.listed)
            ask(event, places[event.index], unseen, field=field, outcome=outcome, seed=rules.seed)
        seen[event.user].append(event.item)
        for one in field:
            started = time.perf_counter()
            one.contestant.learn(event)
            one.learning_s += time.perf_counter() - started
        if event.index % PROGRESS_EVENTS == 0:
            tell("playing the stream", event.index, last)
    outcome.seconds.update((tuple(one.contestant.names), (one.scoring_s, one.learning_s)) for one in field)
    return outcome


def unseen_by(seen: Sequence[int], listed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The listed items but those seen: codes, ascending."""
    candidates = listed.copy()
    candidates[seen] = False
    return np.flatnonzero(candidates)


def ask(
    event: Event, place: int, unseen: NDArray[np.int64], *, field: Sequence[Clocked], outcome: Outcome, seed: int
) -> None:
    """Has all contestants rank the item of an event among `unseen`, and notes in `place` how they did."""
    target = int(np.searchsorted(unseen, event.item))
    outcome.candidates[place] = len(unseen)
    negatives = sampled_negatives(len(unseen), target, (seed, event.index))
    judged = np.concatenate(([target], negatives))
    for one in field:
        started = time.perf_counter()
        scores = one.contestant.scores(event, unseen)
        one.scoring_s += time.perf_counter() - started
        if scores.shape != (len(one.contestant.names), len(unseen)) or not np.isfinite(scores).all():
            raise ValueError(f"{one.contestant.names}: scores must be finite, one per configuration and candidate")
        own = scores[:, target, None]
        outcome.ranks[one.rows, place] = 0.5 + beaten(scores, own)  # the item itself counted as a tie
        outcome.tops[one.rows, place, : min(LIST, len(unseen))] = unseen[best(scores, LIST)]
        if not len(negatives):
            continue
        outcome.negatives[one.rows, place] = beaten(scores[:, negatives], own) / len(negatives)
        count_percentiles(outcome.gains, one.contestant.names, scores[:, judged])
        if isinstance(one.contestant, Featured):
            count_percentiles(outcome.gains, one.contestant.features, one.contestant.explain(event, unseen[judged]))


def beaten(scores: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float64]:
    """How many of `scores`, shape (c, items), are above those in `own`, shape (c, 1); ties count half."""
    better = np.count_nonzero(scores > own, axis=1)
    found: NDArray[np.float64] = better + np.count_nonzero(scores == own, axis=1) / 2
    return found


def best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of the `count` largest scores of each row, largest first: shape (c, at most count)."""
    count = min(count, scores.shape[1])
    places = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order, 1)


def sampled_negatives(candidates: int, target: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """Places of `NEGATIVES` candidates other than `target`, with replacement; none where there is no other."""
    if candidates == 1:
        return np.zeros(0, np.int64)
    drawn = np.random.default_rng(seed).integers(candidates - 1, size=NEGATIVES)
    return drawn + (drawn >= target)


def count_percentiles(gains: dict[str, NDArray[np.int64]], names: Sequence[str], values: NDArray[np.float32]) -> None:
    """Counts in which bin of a feature's percentiles a probe's item and its negatives lie.

    Percentiles among the probe's own candidates, because only there a value is compared with another.

    Args:
        gains: to count in.
        names: of features.
        values: of the probe's item first, then of the negatives: shape (features, 1 + negatives).
    """
    count = values.shape[1]
    below = (values[:, None, :] < values[:, :, None]).sum(2) + (values[:, None, :] == values[:, :, None]).sum(2) / 2
    bins = np.minimum((below * BINS / count).astype(np.int64), BINS - 1)
    for name, row in zip(names, bins, strict=True):
        table = gains.setdefault(name, np.zeros((BINS, 2), np.int64))
        table[:, 0] += np.bincount(row[1:], minlength=BINS)
        table[row[0], 1] += 1
