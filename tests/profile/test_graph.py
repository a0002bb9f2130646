"""Facts are a set: adding and removing say what holds, however often and whatever else is known."""

from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.profile.graph import Fact, Graph
from penchant.profile.positions import Position, Positions

FILMS = count()  # hypothesis tries many with one store


async def test_facts_can_be_added_taken_back_and_added_again(edge):
    """Each step is idempotent, and what was taken back is neither found nor counted."""
    graph = Graph(edge, "triples")
    await edge.open([graph.layout])
    one, other = Fact("film", "directed by", "ada"), Fact("film", "directed by", "bob")
    await graph.add(one, (1, 0))
    await graph.add(one, (1, 0))
    await graph.add(other, (1, 1))
    assert {fact async for fact in graph.about("film")} == {one, other}
    await graph.remove(one, (2, 0))
    await graph.remove(one, (2, 0))
    await graph.remove(Fact("nobody", "said", "this"), (2, 1))
    assert [fact async for fact in graph.about("film")] == [other]
    assert await graph.count() == 1
    await graph.add(one, (3, 0))
    assert await graph.count() == 2


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
async def test_what_was_said_last_holds_in_whatever_order_it_is_read(edge, said, chance):
    """Any shuffle of a fact's records, some of them read twice, leaves what the newest of them says."""
    graph = Graph(edge, "triples")
    await edge.open([graph.layout])
    fact = Fact(f"film-{next(FILMS)}", "directed by", "ada")
    records = [(present, (1, offset)) for offset, present in enumerate(said)]
    read = records + chance.choices(records, k=3)
    chance.shuffle(read)
    for present, version in read:
        await (graph.add if present else graph.remove)(fact, version)
    assert [found async for found in graph.about(fact.head)] == [fact] * said[-1]


async def test_facts_are_found_at_either_end(edge):
    """Around an entity are the facts that it is head or tail of, each once."""
    graph = Graph(edge, "triples")
    await edge.open([graph.layout])
    facts = {Fact("a", "r", "b"), Fact("b", "r", "c"), Fact("b", "likes", "b"), Fact("c", "r", "d")}
    for fact in facts:
        await graph.add(fact, (1, 0))
    await graph.remove(Fact("b", "r", "c"), (2, 0))
    found = [fact async for fact in graph.around("b")]
    assert sorted(found, key=repr) == sorted({Fact("a", "r", "b"), Fact("b", "likes", "b")}, key=repr)


async def test_facts_whose_words_run_together_are_different(edge):
    """Where a word ends is part of the fact."""
    graph = Graph(edge, "triples")
    await edge.open([graph.layout])
    await graph.add(Fact("a", "bc", "d"), (1, 0))
    await graph.add(Fact("ab", "c", "d"), (1, 0))
    assert await graph.count() == 2


async def test_positions_are_kept_by_group_topic_and_partition(edge):
    """A position is found again by whoever asks for the same partition in the same group, and by nobody else."""
    mine, theirs = Positions(edge, "profiles", "mine"), Positions(edge, "profiles", "theirs")
    at = {("clicks", 0): Position(topic_id="t", next_offset=7), ("clicks", 1): Position(topic_id="t", next_offset=0)}
    await mine.save(at)
    assert await mine.load([("clicks", 0), ("clicks", 1), ("clicks", 2), ("posts", 0)]) == at
    assert await theirs.load(at) == {}
    await mine.save({("clicks", 0): Position(topic_id="t", next_offset=3)})
    assert (await mine.load([("clicks", 0)]))["clicks", 0].next_offset == 3
