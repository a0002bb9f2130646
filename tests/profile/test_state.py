"""The state of a user is the same whatever way a stream of signals reached it."""

import zlib
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.signals import Action, Signal, strength_of
from penchant.profile.state import Limits, ProfileState, UnknownStateVersion

NOW = 1_750_000_000_000
LIMITS = st.builds(Limits, strong=st.integers(1, 5), weak=st.integers(1, 5), seen_bits=st.just(256))
ONE = st.builds(
    Signal,
    time=st.integers(0, 6),
    event_id=st.sampled_from("abcdefgh"),
    item_id=st.sampled_from("uvwxyz"),
    action=st.sampled_from(Action),
    weight=st.sampled_from([-3.0, 0.0, 0.5, 2.0]),
)
STREAM = st.lists(ONE, max_size=24)


def recount(stream, limits):
    """The naive answer: what stands of each strength, by sorting everything."""

    def newest(strength, limit):
        standing = {}
        for signal in sorted(stream, key=lambda one: (one.time, one.item_id, one.action, one.weight)):
            if strength_of(signal.action) == strength:
                standing[signal.event_id] = signal
        return tuple(sorted(standing.values(), key=lambda one: (one.time, one.event_id), reverse=True)[:limit])

    empty = ProfileState.empty(limits)
    return ProfileState(
        strong=newest("strong", limits.strong),
        weak=newest("weak", limits.weak),
        seen=empty.seen.adding(signal.item_id for signal in stream),
    )


@given(st.data(), STREAM, LIMITS)
def test_any_shuffle_split_duplication_and_replay_gives_the_same_state(data, stream, limits):
    """However a stream is delivered, the state equals that of a recount of the whole stream."""
    twice = data.draw(st.lists(st.sampled_from(stream), max_size=8)) if stream else []
    order = data.draw(st.permutations(stream + twice))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=5)))
    state = ProfileState.empty(limits)
    for start, end in pairwise([0, *cuts, len(order)]):
        state = state.adding(order[start:end], limits)
    replayed_from = data.draw(st.integers(0, len(order)))
    for signal in order[replayed_from:]:
        state = state.adding([signal], limits)
    assert state == recount(stream, limits)


@given(st.data(), STREAM, LIMITS)
def test_parts_kept_apart_join_to_the_state_of_the_whole(data, stream, limits):
    """States made of overlapping parts of a stream join, in any order and any grouping, to that of the stream."""
    parts = [[] for _ in range(4)]
    for signal in stream:
        for part in data.draw(st.sets(st.integers(0, 3), min_size=1)):
            parts[part].append(signal)
    states = [ProfileState.empty(limits).adding(part, limits) for part in parts]
    while len(states) > 1:
        one = states.pop(data.draw(st.integers(0, len(states) - 1)))
        other = states.pop(data.draw(st.integers(0, len(states) - 1)))
        states.append(one.joined(other, limits))
    assert states == [recount(stream, limits)]


@given(STREAM, STREAM, STREAM, LIMITS)
def test_joining_is_idempotent_commutative_and_associative(one, two, three, limits):
    """States form a join-semilattice."""
    a, b, c = (ProfileState.empty(limits).adding(part, limits) for part in (one, two, three))
    assert a.joined(a, limits) == a
    assert a.joined(b, limits) == b.joined(a, limits)
    assert a.joined(b, limits).joined(c, limits) == a.joined(b.joined(c, limits), limits)
    assert a.joined(ProfileState.empty(limits), limits) == a


@given(STREAM, STREAM, LIMITS)
def test_adding_is_joining_with_the_state_of_what_is_added(one, two, limits):
    """The two ways to merge agree, so that either may be used anywhere."""
    state = ProfileState.empty(limits).adding(one, limits)
    assert state.adding(two, limits) == state.joined(ProfileState.empty(limits).adding(two, limits), limits)


@given(STREAM, LIMITS)
def test_a_packed_state_comes_back_as_it_was(stream, limits):
    """Nothing is lost in the store, and the same state has the same bytes whatever way it came about."""
    state = ProfileState.empty(limits).adding(stream, limits)
    assert ProfileState.unpack(state.pack()) == state
    assert ProfileState.empty(limits).adding(stream[::-1], limits).pack() == state.pack()


@given(st.lists(STREAM, max_size=5), LIMITS)
def test_bytes_taken_over_are_those_of_a_state_packed_anew(batches, limits):
    """Whatever has joined and left, and whether the state before had its bytes or not."""
    state = ProfileState.empty(limits)
    for number, batch in enumerate(batches):
        before, state = state, state.adding(batch, limits)
        state.take_over(before)
        packed = (2, state.strong, state.weak, state.seen.pack())
        assert number % 3 == 2 or state.pack() == msgspec.msgpack.encode(packed)


def test_many_signals_are_packed_as_well_as_few():
    """An array of more than fifteen has another head."""
    limits = Limits(strong=300, weak=300, seen_bits=64)
    signals = [Signal(number, f"e{number}", "lamp", Action.LIKE, 2.0) for number in range(300)]
    for count in (15, 16, 300):
        state = ProfileState.empty(limits).adding(signals[:count], limits)
        assert ProfileState.unpack(state.pack()) == state


def test_a_full_set_is_stored_in_half_the_bytes():
    """Signals have much in common; a small set is left as it is."""
    limits = Limits(strong=300, weak=300, seen_bits=64)
    signals = [Signal(NOW + 61_979 * number, f"e{number}", f"lamp-{number}", Action.LIKE, 2.0) for number in range(300)]
    few, full = (ProfileState.empty(limits).adding(signals[:count], limits) for count in (3, 300))
    plain = [msgspec.msgpack.encode((2, one.strong, one.weak, one.seen.pack())) for one in (few, full)]
    assert few.pack() == plain[0]
    assert len(full.pack()) < len(plain[1]) / 2
    assert ProfileState.unpack(full.pack()) == full


@given(STREAM, LIMITS)
def test_a_state_of_the_version_before_is_read(stream, limits):
    """Its filter was always compressed."""
    state = ProfileState.empty(limits).adding(stream, limits)
    seen = zlib.compress(state.seen.bits.to_bytes(limits.seen_bits // 8, "little"), 1)
    assert ProfileState.unpack(msgspec.msgpack.encode((1, state.strong, state.weak, seen))) == state


@given(STREAM, LIMITS)
def test_a_state_is_as_of_its_newest_signal(stream, limits):
    """Views are functions of the set, so their moment is one of the set too."""
    state = ProfileState.empty(limits).adding(stream, limits)
    assert state.as_of == max((signal.time for signal in stream), default=0)
    assert state.as_of == max((signal.time for signal in state.signals), default=0)


def test_a_flood_of_views_pushes_out_no_purchase():
    """Each strength has bounds of its own."""
    limits = Limits(strong=2, weak=3, seen_bits=64)
    purchase = Signal(1, "bought", "lamp", Action.PURCHASE, 4.0)
    views = [Signal(100 + number, f"v{number}", f"i{number}", Action.VIEW, 0.5) for number in range(50)]
    state = ProfileState.empty(limits).adding([purchase, *views], limits)
    assert state.strong == (purchase,)
    assert len(state.weak) == limits.weak


def test_a_state_of_a_newer_layout_is_refused():
    """An older penchant does not read what it does not understand; it says which version it met."""
    packed = msgspec.msgpack.encode((3, (), (), ProfileState.empty(Limits(strong=1, weak=1, seen_bits=64)).seen.pack()))
    with pytest.raises(UnknownStateVersion, match="version 3"):
        ProfileState.unpack(packed)
