"""Stores made from others: nobody works on half of one, and one that was used is known by that."""

import pytest

from penchant.profile.positions import Position
from penchant.profile.remade import HalfMade, Remade, RemadeNote, digest_of


async def test_a_store_that_was_filled_from_the_log_has_no_note(edge, items):
    """Nothing stands in its way."""
    remade = Remade(edge, items.layout)
    assert await remade.note() is None
    await remade.check()


async def test_half_a_store_is_refused_until_it_is_whole(edge, items):
    """By whoever opens it, however often it was begun."""
    remade = Remade(edge, items.layout)
    for _ in range(2):
        await remade.write(RemadeNote(whole=False, covers=""))
        with pytest.raises(HalfMade, match="penchant reindex"):
            await remade.check()
    whole = RemadeNote(whole=True, covers="c0ffee")
    await remade.write(whole)
    await Remade(edge, items.layout).check()
    assert await remade.note() == whole
    assert await items.count() == 0


def test_what_a_store_covers_has_a_digest():
    """Another offset, another log, a partition more: another digest; the order does not matter."""
    one, two = Position(topic_id="t", next_offset=1), Position(topic_id="t", next_offset=2)
    covered = {("items", "posts", 0): one, ("profiles", "clicks", 1): two}
    assert digest_of(covered) == digest_of(dict(reversed(covered.items())))
    others = [
        {},
        {**covered, ("items", "posts", 0): two},
        {**covered, ("items", "posts", 0): Position(topic_id="u", next_offset=1)},
        {**covered, ("items", "posts", 1): one},
    ]
    assert len({digest_of(one) for one in (covered, *others)}) == 5
