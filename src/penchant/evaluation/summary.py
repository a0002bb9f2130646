"""From an outcome to figures: every metric of every configuration, and every pair of configurations compared."""

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse
from msgspec import Struct
from numpy.typing import NDArray

from penchant.evaluation import metrics
from penchant.evaluation.compare import Interval, mcnemar, resampled
from penchant.evaluation.protocol import LIST, Outcome, Rules
from penchant.evaluation.stream import Stream

__all__ = ["Figures", "Gain", "Pair", "Scope", "Summary", "summarise"]

LENGTHS = (1, 5, 10, 20)
WINDOW = 500
POINTS = 200  # of a curve over the stream


class Figures(Struct, frozen=True, kw_only=True):
    """What is said of a configuration over one scope.

    Attributes:
        name: of the configuration.
        ndcg: NDCG@10, with its interval.
        at: by metric, such as "HR@10".
        auc: against sampled negatives.
        roc: true positive rates at false positive rates that go evenly from 0 to 1.
        coverage: share of the catalogue that was in any list.
        novelty: of what was listed, bits.
        diversity: mean distance within a list, 0 to 1.
        calibration: divergence of a list's categories from what the user liked, nats; None where items have none.
    """

    name: str
    ndcg: Interval
    at: dict[str, float]
    auc: float
    roc: list[float]
    coverage: float
    novelty: float
    diversity: float
    calibration: float | None


class Pair(Struct, frozen=True, kw_only=True):
    """Two configurations over one scope.

    Attributes:
        one: by name.
        other: likewise.
        difference: of their NDCG@10, with its interval.
        only_one: probes that only the one had among its first ten.
        only_other: likewise.
        p: of McNemar's test on those.
    """

    one: str
    other: str
    difference: Interval
    only_one: int
    only_other: int
    p: float


class Scope(Struct, frozen=True, kw_only=True):
    """The figures over some of the probes: all sampled ones, or the first after an absence."""

    probes: int
    users: int
    figures: list[Figures]
    pairs: list[Pair]


class Gain(Struct, frozen=True, kw_only=True):
    """What a feature tells of whether an item is the probe's: bits, and the share of all that is to be told."""

    feature: str
    bits: float
    share: float


class Summary(Struct, frozen=True, kw_only=True):
    """An evaluation's result, ready to be written down.

    Attributes:
        title: what was evaluated.
        rules: which events were probes.
        events: of the stream.
        users: likewise.
        items: likewise.
        listed: items that could be recommended.
        eligible: events that the sample was drawn from.
        everything: over the sample.
        absence: over the positive events that end an absence; None where there is none.
        times: when the windows of `sliding` end, epoch milliseconds.
        sliding: NDCG@10 over windows of `window` sampled probes, by configuration.
        window: so many.
        gains: of features and of configurations' own scores, the largest first.
        seconds: that contestants took to score and to learn, by names of their configurations.
    """

    title: str
    rules: Rules
    events: int
    users: int
    items: int
    listed: int
    eligible: int
    everything: Scope
    absence: Scope | None
    times: list[int]
    sliding: dict[str, list[float]]
    window: int
    gains: list[Gain]
    seconds: dict[str, tuple[float, float]]


def summarise(title: str, stream: Stream, outcome: Outcome, rules: Rules, vectors: NDArray[np.float32]) -> Summary:
    """All figures of an outcome.

    Args:
        title: what was evaluated.
        stream: that was played.
        outcome: of it.
        rules: by which.
        vectors: of items, for the diversity of lists: shape (items, d).
    """
    probes = outcome.probes
    sampled = np.flatnonzero(probes.sampled)
    window = min(WINDOW, len(sampled))
    curves = metrics.sliding(metrics.ndcg(outcome.ranks[:, sampled], LIST), window)
    shown = np.unique(np.linspace(0, curves.shape[1] - 1, POINTS).astype(np.int64))
    gains = ((feature, *metrics.information_gain(table)) for feature, table in outcome.gains.items())
    return Summary(
        title=title,
        rules=rules,
        events=len(stream),
        users=len(stream.users),
        items=len(stream.items),
        listed=int(stream.listed.sum()),
        eligible=probes.eligible,
        everything=scope(stream, outcome, probes.sampled, rules.seed, vectors),
        absence=scope(stream, outcome, probes.absent, rules.seed, vectors) if probes.absent.any() else None,
        times=stream.time[probes.index[sampled]][window - 1 :][shown].tolist(),
        sliding={name: row[shown].tolist() for name, row in zip(outcome.names, curves, strict=True)},
        window=window,
        gains=sorted((Gain(feature=name, bits=bits, share=share) for name, bits, share in gains), key=by_gain),
        seconds={", ".join(names): taken for names, taken in outcome.seconds.items()},
    )


def by_gain(gain: Gain) -> tuple[float, str]:
    """What gains are sorted by."""
    return (-gain.bits, gain.feature)


def scope(
    stream: Stream, outcome: Outcome, chosen: NDArray[np.bool_], seed: int, vectors: NDArray[np.float32]
) -> Scope:
    """The figures over the probes that are `chosen`: shape (p,)."""
    index = outcome.probes.index[chosen]
    users = stream.user[index]
    ranks, tops, candidates = outcome.ranks[:, chosen], outcome.tops[:, chosen], outcome.candidates[chosen]
    gains = resampled(metrics.ndcg(ranks, LIST), users, seed)
    hits = ranks <= LIST
    liked, categories, popularity = before(stream, index), shares(stream.categories), liked_by(stream)
    figures = [
        Figures(
            name=name,
            ndcg=gains.mean(row),
            at={
                f"{metric}@{k}": float(measure(ranks[row], k).mean())
                for metric, measure in metrics.PER_PROBE.items()
                for k in LENGTHS
            }
            | {f"accuracy@{k}": float(metrics.accuracy(ranks[row], k, candidates).mean()) for k in LENGTHS},
            auc=metrics.area(outcome.negatives[row, chosen]),
            roc=metrics.roc(outcome.negatives[row, chosen])[1].tolist(),
            coverage=metrics.coverage(tops[row], int(stream.listed.sum())),
            novelty=metrics.novelty(tops[row], popularity, len(stream.users)),
            diversity=metrics.diversity(tops[row], vectors),
            calibration=metrics.calibration(tops[row], liked, categories) if categories.shape[1] else None,
        )
        for row, name in enumerate(outcome.names)
    ]
    pairs = [
        compared(outcome.names[one], outcome.names[other], gains.difference(one, other), hits[one], hits[other])
        for one in range(len(hits))
        for other in range(one)
    ]
    return Scope(probes=len(index), users=len(np.unique(users)), figures=figures, pairs=pairs)


def compared(one: str, other: str, difference: Interval, ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Pair:
    """Two configurations, by their difference and by whose hits are whose."""
    only_one, only_other, p = mcnemar(ours, theirs)
    return Pair(one=one, other=other, difference=difference, only_one=only_one, only_other=only_other, p=p)


def before(stream: Stream, index: NDArray[np.integer]) -> metrics.Sparse:
    """What the user of each event of `index`, ascending, had liked before it, as ones: shape (p, items)."""
    liked: dict[int, list[int]] = {}
    rows: list[Sequence[int]] = []
    wanted, done = index.tolist(), 0
    users, items, positive = stream.user.tolist(), stream.item.tolist(), stream.positive.tolist()
    for at in wanted:
        for event in range(done, at):
            if positive[event]:
                liked.setdefault(users[event], []).append(items[event])
        done = at
        rows.append(tuple(liked.get(users[at], ())))
    return ones(rows, len(stream.items))


def shares(categories: Sequence[tuple[str, ...]]) -> metrics.Sparse:
    """The categories of items, each item's of equal shares: shape (items, categories)."""
    codes = {name: code for code, name in enumerate(sorted({name for names in categories for name in names}))}
    matrix = ones([[codes[name] for name in dict.fromkeys(names)] for names in categories], len(codes))
    sizes = np.diff(matrix.indptr)
    return scipy.sparse.csr_array(
        (matrix.data / np.repeat(sizes, sizes), matrix.indices, matrix.indptr), shape=matrix.shape
    )


def ones(rows: Iterable[Sequence[int]], width: int) -> metrics.Sparse:
    """Rows of columns as a matrix of ones: shape (rows, width)."""
    listed = list(rows)
    ends = np.cumsum([0, *map(len, listed)])
    columns = np.array([column for row in listed for column in row], np.int64)
    return scipy.sparse.csr_array((np.ones(len(columns)), columns, ends), shape=(len(listed), width))


def liked_by(stream: Stream) -> NDArray[np.int64]:
    """How many users liked each item, in the whole stream: shape (items,)."""
    pairs = np.unique(np.stack([stream.item[stream.positive], stream.user[stream.positive]]), axis=1)
    return np.bincount(pairs[0], minlength=len(stream.items)).astype(np.int64)
