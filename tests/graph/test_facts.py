"""Facts are read as they are, and held back so that nothing is unknown to what is trained on the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.errors import ConfigurationError
from penchant.graph.facts import facts_of, read_facts, split
from penchant.settings import load_settings

FACTS = st.sets(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["likes", "knows"]), st.sampled_from("abcdefgh")),
    min_size=1,
)


@given(FACTS, st.integers(0, 5))
def test_a_split_loses_nothing_and_leaves_nothing_unknown(facts, seed):
    """Every fact is in one part; every entity and relation held back is trained on; the same seed splits the same."""
    parts = split(facts, source="x", seed=seed)
    together = [*parts.train, *parts.valid, *parts.test]
    assert len(together) == len(facts)
    assert set(together) == facts
    held_back = (*parts.valid, *parts.test)
    assert {end for head, _, tail in held_back for end in (head, tail)} <= set(parts.entities)
    assert {relation for _, relation, _ in held_back} <= set(parts.relations)
    assert split(sorted(facts, reverse=True), source="x", seed=seed) == parts


def test_a_file_is_read_line_by_line(tmp_path):
    """Tabs between, empty lines passed over; the line that is no fact is named."""
    path = tmp_path / "facts.tsv"
    path.write_text("a b\tlikes\tc\n\nc\tlikes\ta b\n", encoding="utf-8")
    assert read_facts(path) == (("a b", "likes", "c"), ("c", "likes", "a b"))
    path.write_text("a\tlikes\tb\na\tlikes\n")
    with pytest.raises(ConfigurationError, match=r"facts\.tsv:2"):
        read_facts(path)


def test_a_folder_says_itself_what_is_held_back(tmp_path):
    """Its parts are taken as they are, less what speaks of something that training does not know."""
    (tmp_path / "train.txt").write_text("a\tr\tb\nb\tr\tc\n")
    (tmp_path / "valid.txt").write_text("a\tr\tc\na\tr\tunknown\n")
    (tmp_path / "test.txt").write_text("c\tr\ta\nc\tnever\ta\n")
    facts = facts_of(str(tmp_path), load_settings(), seed=0)
    assert facts.train == (("a", "r", "b"), ("b", "r", "c"))
    assert facts.valid == (("a", "r", "c"),)
    assert facts.test == (("c", "r", "a"),)


@pytest.mark.parametrize("name", ["nothing.txt", "empty.txt", ""])
def test_what_holds_no_facts_is_refused(tmp_path, name):
    """A file that is missing or empty, a folder without parts: an error that says so."""
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ConfigurationError):
        facts_of(str(tmp_path / name), load_settings(), seed=0)
