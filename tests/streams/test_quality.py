"""Live quality: a like is judged by the list given before it, once, and only where there could be a hit."""

import numpy as np
import pytest
from prometheus_client import REGISTRY

from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.profiles import Profiles
from penchant.profile.ranking.recommend import Offered
from penchant.profile.signals import Action, Signal
from penchant.profile.state import Limits
from penchant.streams.quality import ABSENCE_MS, Quality

NOW = 1_750_000_000_000
LIMITS = Limits(strong=9, weak=9, seen_bits=1_024)
EMPTY = Profiles(None, "profiles", Space((Slice("text", 3, 1.0, "t"),)), Identity("key"), LIMITS)


def like(item, at=NOW + 1, weight=2.0):
    """A signal on an item."""
    return Signal(at, f"{item}-{at}", item, Action.LIKE, weight)


def profile(user="ada", *signals):
    """A user who has met something at NOW, besides other things."""
    empty = EMPTY.empty(user)
    met = Signal(NOW, "met", "met", Action.CLICK, 1.0)
    return type(empty)(
        user=user, state=empty.state.adding([met, *signals], LIMITS), short=empty.short, long=empty.long,
        interest=empty.interest,
    )  # fmt: skip


@pytest.fixture
def quality():
    """Ada has been given a list of three."""
    made = Quality(2)
    made.give(profile(), ["a", "b", "c"])
    yield made
    made.forget_all()


def places(judged):
    """Where likes were on the list, and after what."""
    return [(one.place, one.after) for one in judged]


def offered(*items):
    """Candidates with two features: the place of each, from 1, and its negative."""
    numbers = 1.0 + np.arange(len(items))
    return Offered(items=items, features=np.array([numbers, -numbers], np.float32))


def choices(judged):
    """Of the likes that teach something, what is liked."""
    return [float(one.choice.features[0, one.choice.liked]) for one in judged if one.choice]


def counted(name, after):
    """A counter."""
    return REGISTRY.get_sample_value(f"penchant_likes{name}_total", {"after": after}) or 0.0


def test_a_like_is_looked_for_on_the_list(quality):
    """Its place on the list, or none; after a pause of eight hours it came after an absence."""
    later = NOW + ABSENCE_MS
    assert places(quality.judge({"ada": [like("b")]})) == [(2, "sitting")]
    assert places(quality.judge({"ada": [like("x")]})) == [(0, "sitting")]
    both = quality.judge({"ada": [like("a", later), like("c", later + 5)]})
    assert places(both) == [(1, "absence"), (3, "sitting")]
    assert [(one.user, one.absence_ms) for one in both] == [("ada", ABSENCE_MS), ("ada", 5)]


@pytest.mark.parametrize(
    "signal",
    [like("met"), like("b", at=NOW), like("b", weight=0.5), Signal(NOW + 1, "p", "own", Action.POST, 2.0)],
    ids=["met before", "older than the list", "no like", "written"],
)
def test_what_could_not_have_been_a_hit_is_not_judged(quality, signal):
    """Lists name nothing that was met, and know nothing of what came before them."""
    assert quality.judge({"ada": [signal]}) == []


def test_strangers_are_not_judged(quality):
    """Who was given no list has nothing to be judged by."""
    assert quality.judge({"bob": [like("a")]}) == []


def test_an_item_is_judged_once(quality):
    """Within a batch, over batches, and when its record is read again after the next list."""
    once = {"ada": [like("a"), like("a", NOW + 2)]}
    judged = quality.judge(once)
    assert places(judged) == [(1, "sitting")] == places(quality.judge(once))  # a batch that failed is judged again
    quality.settle(once, judged)
    assert quality.judge(once) == []
    assert places(quality.judge({"ada": [like("b", NOW + 2 + ABSENCE_MS)]})) == [(2, "absence")]
    assert places(quality.judge({"ada": [like("b", NOW + 1 + ABSENCE_MS)]})) == [(2, "sitting")]
    quality.give(profile("ada", like("a")), ["b", "c"])
    assert quality.judge(once) == []


def test_what_is_applied_while_a_list_is_made_stays_judged(quality):
    """The list knows nothing of it: sent again it is not judged again, and nobody was away since."""
    batch = {"ada": [like("a", NOW + ABSENCE_MS)]}
    quality.settle(batch, quality.judge(batch))
    quality.give(profile(), ["a", "b"], offered("a", "b"))  # made of what was known before that
    assert quality.judge(batch) == []
    assert places(quality.judge({"ada": [like("b", NOW + ABSENCE_MS + 5)]})) == [(2, "sitting")]


def test_counters_give_hit_rate_and_mean_reciprocal_rank(quality):
    """Likes, those listed, and the sum of one over their places."""
    before = [counted(name, "sitting") for name in ("", "_listed", "_reciprocal_ranks")]
    batch = {"ada": [like("b"), like("x"), like("c")]}
    quality.settle(batch, quality.judge(batch))
    after = [counted(name, "sitting") for name in ("", "_listed", "_reciprocal_ranks")]
    assert [now - then for now, then in zip(after, before, strict=True)] == pytest.approx([3, 2, 1 / 2 + 1 / 3])


def test_lists_are_remembered_up_to_a_bound(quality):
    """The oldest goes first; the items counted are those of the lists that are left."""

    def listed():
        return REGISTRY.get_sample_value("penchant_listed_items")

    assert listed() == 3
    quality.give(profile("bob"), ["c", "d"])
    assert listed() == 4
    quality.give(profile("cleo"), ["d"])
    assert listed() == 2
    assert quality.judge({"ada": [like("a")]}) == []
    quality.forget_all()
    assert listed() == 0
    assert quality.judge({"bob": [like("c")]}) == []


def test_the_first_like_after_a_list_is_learned_from(quality):
    """Whether it was listed or only a candidate, with what was offered; again if its batch failed, and then no more."""
    quality.give(profile(), ["a"], offered("a", "b", "c"))
    batch = {"ada": [like("met"), like("c"), like("b")]}
    judged = quality.judge(batch)
    assert choices(judged) == [3] == choices(quality.judge(batch))
    assert judged[0].choice.features.shape == (2, 3)
    assert judged[0].choice.event_id == like("c").event_id
    quality.settle(batch, judged)
    assert choices(quality.judge({"ada": [like("a")]})) == []
    quality.give(profile("ada", like("b"), like("c")), ["a"], offered("a", "d"))
    assert choices(quality.judge(batch)) == []
    assert choices(quality.judge({"ada": [like("a", NOW + 2)]})) == [1]


def test_what_was_no_candidate_teaches_nothing(quality):
    """Retrieval had not found it; nor does the like after it, which came in its light, nor a choice among one."""
    quality.give(profile(), ["a"], offered("a", "b"))
    batch = {"ada": [like("x"), like("b")]}
    judged = quality.judge(batch)
    assert (len(judged), choices(judged)) == (2, [])
    quality.settle(batch, judged)
    assert choices(quality.judge({"ada": [like("a", NOW + 2)]})) == []
    quality.give(profile(), ["a"], offered("a"))
    assert choices(quality.judge({"ada": [like("a")]})) == []


def test_candidates_are_remembered_up_to_a_bound():
    """Those of the lists given longest ago go first; the lists themselves are still judged by."""
    quality = Quality(10, candidates=5)
    for user in ("ada", "bob", "cleo"):
        quality.give(profile(user), ["a"], offered("a", "b"))
    found = quality.judge({user: [like("a")] for user in ("ada", "bob", "cleo")})
    assert [(one.user, one.place, one.choice is not None) for one in found] == [
        ("ada", 1, False),
        ("bob", 1, True),
        ("cleo", 1, True),
    ]
    quality.give(profile("dora"), ["a"], offered(*"abcdef"))
    assert choices(quality.judge({user: [like("a")] for user in ("bob", "cleo", "dora")})) == []
    quality.give(profile("emil"), ["a"], offered(*"abcde"))
    assert choices(quality.judge({"emil": [like("a")]})) == [1]
    quality.forget_all()


def test_what_is_new_on_a_list_is_told(quality):
    """An item that stays on a user's list is not; on another user's list it is."""
    assert quality.give(profile(), ["c", "d"]) == ["d"]
    assert quality.give(profile("bob"), ["c", "d"]) == ["c", "d"]
    assert quality.give(profile(), ["a"]) == ["a"]
