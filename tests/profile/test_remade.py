"""Stores made from others: nobody works on half of one, and nobody makes anything of one that a worker has."""

import pytest

from penchant.profile.remade import HalfMade, Remade, State


@pytest.fixture
def remade(edge, items):
    """The note of a store."""
    return Remade(edge, items.layout)


async def test_a_store_that_nobody_has_had_is_anybodys(remade, items):
    """A worker takes it as it is; and then it is its."""
    assert await remade.state() is None
    await remade.check()
    for _ in range(2):
        await remade.claim()
        assert await remade.state() is State.IN_USE
    assert not await remade.move(State.HALF_MADE, among=(None, State.WHOLE, State.HALF_MADE))
    assert await items.count() == 0


async def test_half_a_store_is_refused_until_it_is_whole(remade):
    """By whoever opens it, however often it was begun; whole, it may be made anew until a worker takes it."""
    for _ in range(2):
        assert await remade.move(State.HALF_MADE, among=(None, State.WHOLE, State.HALF_MADE))
        for refused in (remade.check, remade.claim):
            with pytest.raises(HalfMade, match="penchant reindex"):
                await refused()
        assert await remade.move(State.WHOLE, among=[State.HALF_MADE])
        await remade.check()
    await remade.claim()
    assert await remade.state() is State.IN_USE


async def test_one_of_two_has_a_store(edge, items, monkeypatch):
    """Who reads the note before somebody else writes it does not write over that."""
    mine, theirs = Remade(edge, items.layout), Remade(edge, items.layout)
    read = mine._read

    async def overtaken():
        found = await read()
        monkeypatch.setattr(mine, "_read", read)
        await theirs.claim()
        return found

    monkeypatch.setattr(mine, "_read", overtaken)
    assert not await mine.move(State.HALF_MADE, among=[None])
    assert await mine.state() is State.IN_USE
