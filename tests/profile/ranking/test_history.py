"""Histories: arrays that are moved on say what the signals say, whatever has joined, left, or changed beside them."""

import asyncio
import random

import numpy as np
import pytest

from penchant.profile.affinity import is_positive, positives, recent_items
from penchant.profile.cache import ItemVectors
from penchant.profile.items import Item, Items
from penchant.profile.profiles import Profile
from penchant.profile.ranking.features import past_of
from penchant.profile.ranking.history import Histories
from penchant.profile.signals import Action, Signal
from penchant.profile.state import ProfileState

ACTIONS = (Action.VIEW, Action.CLICK, Action.LIKE, Action.HIDE)
WEIGHTS = {Action.VIEW: 0.5, Action.CLICK: 1.0, Action.LIKE: 2.0, Action.HIDE: -3.0}


def profile(user, state, awaits=frozenset()):
    """A user with a state; ranking looks at no view of it here."""
    nothing = np.zeros(7, np.float32)
    return Profile(user=user, state=state, short=nothing, long=nothing, interest=nothing, awaits=awaits)


def signal_of(generator, number, *, span=40):
    """A signal on one of a few items, often of the same moment as another."""
    action = generator.choice(ACTIONS)
    return Signal(generator.randrange(span), f"{number:04}", f"i{generator.randrange(12)}", action, WEIGHTS[action])


async def check(histories, vectors, one):
    """A history says of a state what its signals say."""
    state = one.state
    [found], content = await histories.of([one])
    known = await vectors.gather({signal.item_id for signal in state.signals})
    expected = past_of(state.signals, known.rows)
    np.testing.assert_array_equal(content.vectors[found.past.rows], known.vectors[expected.rows])
    for name in ("weights", "ages", "positive"):
        assert getattr(found.past, name).tolist() == getattr(expected, name).tolist()
    counted = sorted(
        (signal for signal in state.signals if signal.item_id in known.rows),
        key=lambda signal: (signal.time, signal.event_id),
        reverse=True,
    )
    assert [found.signals[place] for place in found.places.tolist()] == counted
    assert found.recent == recent_items(positives(state.signals))
    starts = [found.signals[place] for place in found.starts.tolist()]
    assert [signal.item_id for signal in starts] == [item_id for item_id, _ in found.recent]
    for signal in starts:
        assert signal == positives(other for other in state.signals if other.item_id == signal.item_id)[-1]
        assert is_positive(signal)


@pytest.mark.parametrize("seed", range(6))
async def test_a_history_that_is_moved_on_is_that_of_the_state(items, catalogue, limits, seed):
    """Newer signals, older ones, ones of the same moment, known ones; more than a state holds, and a few at a time."""
    await catalogue(*(f"i{number}" for number in range(10)))  # of two items nothing is known
    generator = random.Random(seed)
    vectors = ItemVectors(items, capacity=100, ttl_s=1_000)
    histories, state = Histories(vectors), ProfileState.empty(limits)
    for step in range(40):
        span = 40 if step % 2 else 40 + step  # those at the end are mostly newer
        state = state.adding([signal_of(generator, 100 * step + n, span=span) for n in range(step % 4)], limits)
        await check(histories, vectors, profile("ada", state))


async def test_an_item_that_changes_is_found_anew(items, catalogue, limits):
    """Written anew, or come late; whether the state has changed meanwhile or not."""
    await catalogue("i0", "i1")
    vectors = ItemVectors(items, capacity=100, ttl_s=1_000)
    histories, generator = Histories(vectors), random.Random(1)
    state = ProfileState.empty(limits).adding([signal_of(generator, number) for number in range(30)], limits)
    await check(histories, vectors, profile("ada", state, frozenset({"i2"})))
    await catalogue("i0", seed=1, version=2)
    await check(histories, vectors, profile("ada", state))
    await items.put([(Item(item_id="i1", version=(3, 3, 0), listed=False), None)])
    await catalogue("i2", seed=2)
    state = state.adding([signal_of(generator, 50)], limits)
    await check(histories, vectors, profile("ada", state, frozenset({"i3"})))
    await catalogue("i3", seed=3)
    await check(histories, vectors, profile("ada", state))


async def test_histories_hold_where_vectors_move_and_are_forgotten(items, catalogue, limits, monkeypatch):
    """Rows are those of one array for all users of a batch, however small the memory of vectors is."""
    monkeypatch.setattr("penchant.profile.cache.SPARE", 0)
    made = await catalogue(*(f"i{number}" for number in range(12)))
    vectors = ItemVectors(items, capacity=3, ttl_s=1_000)
    histories, generator = Histories(vectors), random.Random(2)
    states = [ProfileState.empty(limits) for _ in range(4)]
    for step in range(12):
        states = [
            state.adding([signal_of(generator, 100 * step + 10 * user)], limits) for user, state in enumerate(states)
        ]
        together = [profile(f"user-{user}", state) for user, state in enumerate(states)]
        found, content = await histories.of(together, [f"i{number}" for number in range(step)])
        assert content.rows.keys() >= {f"i{number}" for number in range(step)}
        for history, one in zip(found, together, strict=True):
            counted = [history.signals[place].item_id for place in history.places.tolist()]
            for row, item_id in zip(history.past.rows.tolist(), counted, strict=True):
                np.testing.assert_array_equal(content.vectors[row], made[item_id])
            await check(histories, vectors, one)


@pytest.mark.parametrize("sizes", [(3, 9, 40), (30, 60, 120), (10, 300, 900)])
async def test_histories_and_candidates_are_found_in_one_array(items, catalogue, limits, sizes):
    """However many they are beside what is remembered: a memory too small for both does not go back and forth."""
    capacity, met, further = sizes
    await catalogue(*(f"i{number}" for number in range(met + further)))
    vectors = ItemVectors(items, capacity=capacity, ttl_s=1_000)
    histories = Histories(vectors)
    states = [
        ProfileState.empty(limits).adding(
            [Signal(place, f"{place}", f"i{place}", Action.LIKE, 2.0) for place in range(start, min(start + 8, met))],
            limits,
        )
        for start in range(0, met, 8)
    ]
    users = [profile(f"user-{number}", state) for number, state in enumerate(states)]
    candidates = [f"i{number}" for number in range(met, met + further)]
    async with asyncio.timeout(20):
        for _ in range(3):
            found, _ = await histories.of(users)
            found, content = await histories.of(users, candidates)
            assert len(content.rows.keys() & set(candidates)) == further
            assert sum(len(history.past.rows) for history in found) == met


async def test_an_item_that_others_bring_counts_as_soon_as_it_is_known(edge, items, catalogue, limits, monkeypatch):
    """On a store that is shared: a history that was made while it was awaited is not used again."""
    monkeypatch.setattr(type(edge), "shared", True)
    await catalogue("i0")
    here = Items(edge, "items", items.space)  # as of another process than the one that writes
    vectors = ItemVectors(here, capacity=100, ttl_s=1_000)
    histories = Histories(vectors)
    signals = [Signal(0, "e0", "i0", Action.LIKE, 2.0), Signal(1, "e1", "late", Action.LIKE, 2.0)]
    state = ProfileState.empty(limits).adding(signals, limits)
    await check(histories, vectors, profile("ada", state, frozenset({"late"})))
    await catalogue("late", seed=1)
    await check(histories, vectors, profile("ada", state))


async def test_what_others_may_have_changed_is_read_again(edge, items, catalogue, limits, monkeypatch):
    """On a store that is shared, when the time of a vector is up."""
    now = 0.0
    monkeypatch.setattr(type(edge), "shared", True)
    await catalogue("i0")
    vectors = ItemVectors(items, capacity=100, ttl_s=30, clock=lambda: now)
    histories = Histories(vectors)
    one = profile("ada", ProfileState.empty(limits).adding([Signal(0, "e", "i0", Action.LIKE, 2.0)], limits))
    [before], _ = await histories.of([one])
    assert [before] == (await histories.of([one]))[0]
    now = 31.0
    [after], _ = await histories.of([one])
    assert after is not before
