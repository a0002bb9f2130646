"""Facts are a set: adding and removing say what holds, however often and whatever else is known."""

from penchant.profile.graph import Fact, Graph
from penchant.profile.positions import Position, Positions


async def test_facts_can_be_added_taken_back_and_added_again(edge):
    """Each step is idempotent, and what was taken back is neither found nor counted."""
    graph = Graph(edge, "triples")
    await edge.open([graph.layout])
    one, other = Fact("film", "directed by", "ada"), Fact("film", "directed by", "bob")
    await graph.add(one)
    await graph.add(one)
    await graph.add(other)
    assert {fact async for fact in graph.about("film")} == {one, other}
    await graph.remove(one)
    await graph.remove(one)
    await graph.remove(Fact("nobody", "said", "this"))
    assert [fact async for fact in graph.about("film")] == [other]
    assert await graph.count() == 1
    await graph.add(one)
    assert await graph.count() == 2


async def test_facts_whose_words_run_together_are_different(edge):
    """Where a word ends is part of the fact."""
    graph = Graph(edge, "triples")
    await edge.open([graph.layout])
    await graph.add(Fact("a", "bc", "d"))
    await graph.add(Fact("ab", "c", "d"))
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
