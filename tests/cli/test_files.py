"""Events from files, `penchant import` and `penchant replay`: rows become events, and bad ones are told."""

import json

from penchant.streams.events import Click, Item, Triple
from penchant.streams.topics import Topic
from tests.cli.rig import ok, values


def test_import_and_its_exit_codes(here, settings, tmp_path):
    """Good rows are sent, bad ones are told by file and line, and the exit code says whether there were any."""
    path = tmp_path / "clicks.csv"
    path.write_text("u,item_id,when\nada,i,1700000000\n,i,1700000000\nbob,i,1700000000\n")
    words = ("import", "clicks", path, "--map", "user_id=u", "--map", "at=when:s", "--set", "action=like")
    result = here(*words, "--dry-run")
    assert result.exit_code == 1
    assert "clicks.csv:3: user_id: missing" in result.stderr
    assert "2 would be sent, 1 rejected" in result.stdout
    assert values(settings, Topic.CLICKS, Click) == []
    report = json.loads(ok(here(*words, "--skip-invalid", "--json")))
    assert (report["accepted"], report["rejected"]) == (2, 1)
    assert report["first"] == [{"line": 3, "reason": "user_id: missing"}]
    assert sorted((click.user_id, click.action, click.at) for click in values(settings, Topic.CLICKS, Click)) == [
        ("ada", "like", 1_700_000_000_000),
        ("bob", "like", 1_700_000_000_000),
    ]


def test_replaying_a_movielens_folder(here, settings, tmp_path):
    """Films become items, ratings clicks at their own times; `--limit` bounds the ratings."""
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Comedy|Fantasy\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n2,1,1.0,964982704\n")
    output = ok(here("replay", "movielens", tmp_path, "--limit", 1))
    assert "movies.csv: 1 sent, 0 rejected" in output
    assert "ratings.csv: 1 sent, 0 rejected" in output
    assert [item.tags for item in values(settings, Topic.ITEMS, Item)] == [("Comedy", "Fantasy")]
    assert [(click.event_id, click.at) for click in values(settings, Topic.CLICKS, Click)] == [
        ("ml-1-1", 964_982_703_000)
    ]


def test_replaying_a_movielens_folder_with_its_graph(here, settings, tmp_path):
    """Films name their entities, and the facts are on their topic, keyed so that a null takes one back."""
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Comedy|Fantasy\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    (tmp_path / "kg.txt").write_text("0\tfilm.genre\t2350\n0\tfilm.star\t\n")
    (tmp_path / "item_index2entity_id.txt").write_text("1\t0\n")
    result = here("replay", "movielens", tmp_path, "--graph", tmp_path)
    assert result.exit_code == 1
    assert "kg.txt: 1 sent, 1 rejected" in result.stdout
    assert [item.entity for item in values(settings, Topic.ITEMS, Item)] == ["0"]
    assert values(settings, Topic.TRIPLES, Triple) == [Triple(head="0", relation="film.genre", tail="2350")]
