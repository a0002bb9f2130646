"""The protocol: which events are ranked, among what, and that nobody sees an event before having ranked it."""

import msgspec
import numpy as np
import pytest

from penchant.errors import ConfigurationError
from penchant.evaluation.protocol import LIST, NEGATIVES, Rules, choose_probes, evaluate


class Oracle:
    """Scores given as a function of the event; remembers what it was asked and told, in order."""

    def __init__(self, score, names=("oracle",)):
        self.names = names
        self.score = score
        self.log = []

    def scores(self, event, unseen, /):
        """What the function says."""
        self.log.append(("asked", event.index, unseen.tolist()))
        return np.asarray(self.score(event, unseen), np.float32).reshape(len(self.names), len(unseen))

    def learn(self, event, /):
        """Only remembers."""
        self.log.append(("told", event.index, None))


def row(user, hours, item, *, positive=True):
    """One line of a made stream."""
    return (hours, user, item, positive)


def sitting(user, start, count):
    """`count` events of a user, a minute apart."""
    return [row(user, start + number / 60, f"{user}-{start}-{number}") for number in range(count)]


def test_probes_are_positives_on_new_items_of_users_with_five_events_before(make_stream):
    """An event that lacks any of the three is no probe, whatever half it lies in."""
    late = [row("a", 50, "x"), row("a", 50.1, "y", positive=False), row("a", 50.2, "a-0-1"), row("b", 50.3, "z")]
    stream = make_stream([*sitting("a", 0, 5), *sitting("b", 1, 4), *late])
    probes = choose_probes(stream, Rules(probes=0))
    assert [stream.items[stream.item[index]] for index in probes.index] == ["x"]
    assert probes.eligible == 1


@pytest.mark.parametrize("length", range(600, 608))
def test_halves_share_no_probe_and_miss_none(crowd, length):
    """What is tuned on the first half has seen none of the last half's probes, and together they are all."""
    columns = ("user", "item", "time", "weight", "positive")
    crowd = msgspec.structs.replace(crowd, **{name: getattr(crowd, name)[:length] for name in columns})
    first, last = (choose_probes(crowd, Rules(probes=0, half=half)) for half in ("first", "last"))
    assert first.index.max() < len(crowd) // 2 <= last.index.min()
    seen, counts, expected = set(), {}, []
    for index, (user, item, positive) in enumerate(zip(crowd.user, crowd.item, crowd.positive, strict=True)):
        if positive and counts.get(user, 0) >= 5 and (user, item) not in seen:
            expected.append(index)
        seen.add((user, item))
        counts[user] = counts.get(user, 0) + 1
    assert [*first.index, *last.index] == expected


def test_an_absence_ends_with_the_next_event_if_that_is_a_positive_one(make_stream):
    """Eight hours without any event count, and a rejection at the return has ended them too."""
    returns = [
        row("a", 10, "after-eight"),
        row("a", 17.9, "too-soon"),
        row("a", 40, "rejected", positive=False),
        row("a", 40.1, "after-rejection"),
    ]
    stream = make_stream([*sitting("a", 0, 8), *returns])
    probes = choose_probes(stream, Rules(probes=1))
    absent = [stream.items[stream.item[index]] for index in probes.index[probes.absent]]
    assert absent == ["after-eight"]


def test_the_sample_is_of_the_size_asked_for_and_follows_from_the_seed(crowd):
    """The same seed gives the same sample, another seed another; ends of absences come besides."""
    rules = Rules(probes=20, half="first", min_events=2)
    one, same, other = (choose_probes(crowd, rules) for rules in (rules, rules, Rules(probes=20, half="first", seed=1)))
    assert one.sampled.sum() == 20
    assert one.index.tolist() == same.index.tolist() != other.index.tolist()
    assert (one.sampled | one.absent).all()


def test_each_event_is_learned_once_in_order_and_after_it_was_ranked(crowd):
    """Nobody is told what they are about to be asked."""
    oracle = Oracle(lambda _, unseen: np.zeros(len(unseen)))
    outcome = evaluate(crowd, [oracle], Rules(probes=50))
    told = [index for kind, index, _ in oracle.log if kind == "told"]
    assert told == list(range(outcome.probes.index[-1] + 1))
    asked = [index for kind, index, _ in oracle.log if kind == "asked"]
    assert asked == outcome.probes.index.tolist()
    for (kind, index, _), (following, next_index, _) in zip(oracle.log, oracle.log[1:], strict=False):
        if kind == "asked":
            assert (following, next_index) == ("told", index)


def test_candidates_are_the_whole_catalogue_that_the_user_has_not_seen(crowd):
    """Items that nobody ever touched are candidates; rejected ones have been seen."""
    oracle = Oracle(lambda _, unseen: np.zeros(len(unseen)))
    outcome = evaluate(crowd, [oracle], Rules(probes=50))
    asked = {index: unseen for kind, index, unseen in oracle.log if kind == "asked"}
    for index, count in zip(outcome.probes.index, outcome.candidates, strict=True):
        before = crowd.item[:index][crowd.user[:index] == crowd.user[index]]
        assert asked[index] == sorted(set(range(len(crowd.items))) - set(before.tolist()))
        assert count == len(asked[index])


def test_items_that_are_not_listed_are_neither_ranked_nor_candidates(make_stream):
    """What must not be recommended is no task for a recommender."""
    stream = make_stream([*sitting("a", 0, 12)], listed=False)
    with pytest.raises(ConfigurationError, match="no event to rank"):
        choose_probes(stream, Rules())


def test_a_rank_counts_the_better_and_half_of_the_ties(crowd):
    """The best is 1, the worst the number of candidates, and one who tells nothing is in the middle."""
    names = ("best", "worst", "constant")

    def score(event, unseen):
        own = (unseen == event.item).astype(float)
        return np.stack([own, -own, np.zeros(len(unseen))])

    outcome = evaluate(crowd, [Oracle(score, names)], Rules(probes=50))
    assert (outcome.ranks[0] == 1).all()
    assert (outcome.ranks[1] == outcome.candidates).all()
    assert np.allclose(outcome.ranks[2], (outcome.candidates + 1) / 2)
    assert outcome.negatives.mean(1).tolist() == pytest.approx([0, 1, 0.5])


def test_lists_are_the_best_in_order(crowd):
    """The lists that coverage and the like are taken of are those that would be shown."""
    outcome = evaluate(crowd, [Oracle(lambda _, unseen: unseen % 7 + unseen / 1e3)], Rules(probes=20))
    for row_, index in zip(outcome.tops[0], outcome.probes.index, strict=True):
        before = set(crowd.item[:index][crowd.user[:index] == crowd.user[index]].tolist())
        unseen = [item for item in range(len(crowd.items)) if item not in before]
        assert row_.tolist() == sorted(unseen, key=lambda item: -(item % 7 + item / 1e3))[:LIST]


def test_contestants_do_not_change_each_others_outcome(crowd):
    """A configuration has the same figures alone and among others."""
    flat, rising = (lambda _, unseen: np.zeros(len(unseen))), (lambda _, unseen: unseen)
    together = evaluate(crowd, [Oracle(flat, ("flat",)), Oracle(rising, ("rising",))], Rules(probes=50))
    alone = evaluate(crowd, [Oracle(rising, ("rising",))], Rules(probes=50))
    narrowed = together.narrowed(["rising"])
    assert narrowed.names == alone.names == ("rising",)
    for field in ("ranks", "tops", "negatives"):
        assert np.array_equal(getattr(narrowed, field), getattr(alone, field))
    assert narrowed.gains.keys() == {"rising"}


def test_features_are_counted_beside_scores(crowd):
    """A contestant that explains itself has every feature judged: one table a feature, a column a class."""

    class Explained(Oracle):
        features = ("truth", "noise")

        def explain(self, event, items, /):
            return np.stack([items == event.item, np.zeros(len(items))]).astype(np.float32)

    outcome = evaluate(crowd, [Explained(lambda _, unseen: unseen)], Rules(probes=50))
    probes = len(outcome.probes.index)
    assert outcome.gains.keys() == {"oracle", "truth", "noise"}
    assert outcome.gains["truth"].sum(0).tolist() == [probes * NEGATIVES, probes]
    assert outcome.gains["truth"][-1, 1] == probes
    assert np.count_nonzero(outcome.gains["noise"]) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error(crowd, bad):
    """A model that has diverged is told, not ranked."""
    with pytest.raises(ValueError, match="finite"):
        evaluate(crowd, [Oracle(lambda _, unseen: np.full(len(unseen), bad))], Rules(probes=5))


def test_names_must_be_distinct(crowd):
    """Two lines of one name could not be told apart."""
    with pytest.raises(ConfigurationError, match="distinct"):
        evaluate(crowd, [Oracle(None), Oracle(None)], Rules())
