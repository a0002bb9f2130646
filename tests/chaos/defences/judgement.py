"""Each defence is needed: every scenario holds with it, and fails without it.

A scenario plays one fault on real parts, always in the same order. It is judged by what was left behind: the sets in
the store against what was sent, and what a reader of committed records finds. It is played as penchant is, and again
with one defence taken out or something weaker in its place: then the judgement must fail, with the very loss that the
defence is there against. So none of these tests could pass on a scenario in which nothing can go wrong.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping

import pytest

from penchant.profile.profiles import Profile
from penchant.streams.events import Recommendations

IN_PLACE = ""


def defence(*weaker: str) -> pytest.MarkDecorator:
    """Plays a scenario with the defence in place, and with something weaker instead."""
    return pytest.mark.parametrize("instead", [IN_PLACE, *weaker], ids=["in place", *weaker])


def judging(instead: str, failure: str) -> contextlib.AbstractContextManager[object]:
    """Judges: with something weaker than the defence, the judgement within must fail, and in this way."""
    return pytest.raises(AssertionError, match=failure) if instead else contextlib.nullcontext()


def judge_sets(sent: Mapping[str, set[str]], stored: Mapping[str, Counter[str]]) -> None:
    """Every event that was sent is in its user's profile, once, and nothing else is."""
    assert not stored.keys() - sent.keys(), f"foreign: {stored.keys() - sent.keys()}"
    for user, event_ids in sent.items():
        found = stored.get(user, Counter())
        assert not event_ids - found.keys(), f"lost: {event_ids - found.keys()}"
        assert not found.keys() - event_ids, f"foreign: {found.keys() - event_ids}"
        assert set(found.values()) == {1}, f"doubled: {found}"


def judge_lists(stored: Mapping[str, Profile], last: Mapping[str, Recommendations]) -> None:
    """The last list of every user is that of the last version of the profile."""
    assert stored, "nobody has a profile"
    for user, profile in stored.items():
        assert user in last, f"without a list: {user}"
        found = last[user]
        assert (found.profile_version, found.as_of) == (profile.version, profile.state.as_of), f"stale: {found}"


def judge_letters(found: int) -> None:
    """The one record that cannot be read has one dead letter."""
    assert found, "lost: no dead letter"
    assert found == 1, f"published twice: {found} dead letters"
