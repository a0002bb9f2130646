"""Files become events: mapped as asked for, row by row, and what gives no event is counted with its line."""

import json
from datetime import UTC, datetime

import pytest

from penchant.client import Click, InvalidEvent, Item, Media, MediaKind
from penchant.errors import ConfigurationError, PenchantError
from penchant.importing import (
    Row,
    import_rows,
    make_plan,
    movielens_click,
    movielens_entities,
    movielens_fact,
    movielens_item,
    open_facts,
    open_rows,
)
from penchant.streams.client import checked
from penchant.streams.events import Triple

AT = 1_700_000_000_000


def imported(path, kind, maps=(), constants=()):
    """The events of a file, and the report."""
    events = []

    def send(event):
        checked(event)
        events.append(event)

    with open_rows(path) as rows:
        report = import_rows(rows.rows, make_plan(kind, rows.columns, maps, constants), send)
    return events, report


def test_columns_named_like_fields_need_no_map(tmp_path):
    """A file that speaks the contract's language is taken as it is; empty cells say nothing."""
    path = tmp_path / "clicks.csv"
    path.write_text(f"event_id,user_id,item_id,action,value,at,unrelated\ne1,u,i,rate,4.5,{AT},x\ne2,u,j,,,,\n")
    events, report = imported(path, "clicks")
    assert events == [
        Click(event_id="e1", user_id="u", item_id="i", action="rate", value=4.5, at=AT),
        Click(event_id="e2", user_id="u", item_id="j"),
    ]
    assert (report.sent, report.rejected) == (2, 0)


def test_columns_constants_templates_units_and_separators(tmp_path):
    """A foreign file is mapped by column, text, unit and separator."""
    path = tmp_path / "ratings.tsv"
    path.write_text("userId\tmovieId\tstars\twhen\tpage\n7\t1\t3\t1700000000\thome\n")
    maps = ["user_id=userId", "item_id=movieId", "value=stars", "at=when:s", "context.page=page"]
    events, _ = imported(path, "clicks", maps, ["action=rate", "event_id=ml-{userId}-{movieId}"])
    assert events == [
        Click(event_id="ml-7-1", user_id="7", item_id="1", action="rate", value=3.0, at=AT, context={"page": "home"})
    ]
    films = tmp_path / "films.csv"
    films.write_text('id,name,genres,y,still\n1,"Alien, the first",Horror|Sci-Fi,1979,https://example.org/1.png\n')
    maps = ["item_id=id", "title=name", "tags=genres:|", "attributes.year=y", "media.image=still"]
    events, _ = imported(films, "items", maps, ["text={name} ({y})"])
    assert events == [
        Item(
            item_id="1",
            title="Alien, the first",
            text="Alien, the first (1979)",
            tags=("Horror", "Sci-Fi"),
            attributes={"year": "1979"},
            media=(Media(kind=MediaKind.IMAGE, uri="https://example.org/1.png"),),
        )
    ]


@pytest.mark.parametrize(
    ("cell", "column", "expected"),
    [
        ("1700000000", "t:s", AT),
        ("1700000000.25", "t:s", AT + 250),
        ("1700000000000", "t", AT),
        ("1700000000000", "t:ms", AT),
        ("1700000000000000", "t:us", AT),
        ("1700000000000000000", "t:ns", AT),
        ("2023-11-14T22:13:20Z", "t", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("2023-11-14 22:13:20", "t", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
    ],
)
def test_times_come_in_units_and_in_words(tmp_path, cell, column, expected):
    """Numbers in the unit named, RFC 3339, and times without a zone as UTC."""
    path = tmp_path / "clicks.csv"
    path.write_text(f"user_id,item_id,t\nu,i,{cell}\n")
    events, report = imported(path, "clicks", [f"at={column}"])
    assert report.reasons == {}
    assert events[0].at == expected


def test_rejected_rows_are_counted_with_their_lines_and_the_others_go_on(tmp_path):
    """A bad row costs itself alone, and its report quotes none of its values."""
    path = tmp_path / "clicks.csv"
    path.write_bytes(
        b"user_id,item_id,value,at\n"
        b"u,i,1,\n"  # 2
        b",i,1,\n"  # 3: no user
        b"u,i,hunter2,\n"  # 4: no number
        b"u,i,1\n"  # 5: too few cells
        b'"u","two\nlines",1,\n'  # 6-7: a line break in an id
        b"u\xff,i,1,\n"  # 8: no UTF-8
        b"u,i,1,5\n"  # 9: a time in no known unit
        b"u,i,nan,\n"  # 10: no finite number
        b"u,i,2,\n"  # 11
    )
    events, report = imported(path, "clicks")
    assert [event.value for event in events] == [1.0, 2.0]
    assert [line for line, _ in report.first] == [3, 4, 5, 7, 8, 9, 10]
    assert report.rejected == 7
    assert sum(report.reasons.values()) == 7
    assert "hunter2" not in str(report)


def test_only_the_first_rejects_are_kept(tmp_path):
    """A file that is wrong throughout is reported in bounded memory."""
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,item_id\n" + ",i\n" * 5_000)
    _, report = imported(path, "clicks")
    assert report.rejected == 5_000
    assert report.reasons == {"user_id: missing": 5_000}
    assert len(report.first) == 20


def test_json_lines(tmp_path):
    """One object a line; lines that are none are rejected."""
    path = tmp_path / "items.jsonl"
    lines = [
        json.dumps({"item_id": 7, "title": "Seven", "tags": ["a", "b"]}),
        "",
        "[1, 2]",
        '{"item_id": "8"',
        json.dumps({"item_id": "8", "tags": "c, d", "unknown": {"deep": 1}}),
        json.dumps({"title": "nameless"}),
        json.dumps({"item_id": {"no": "text"}}),
    ]
    path.write_text("\n".join(lines))
    events, report = imported(path, "items")
    assert events == [Item(item_id="7", title="Seven", tags=("a", "b")), Item(item_id="8", tags=("c", "d"))]
    assert [line for line, _ in report.first] == [3, 4, 6, 7]


def test_parquet(tmp_path):
    """Types and gaps of a Parquet file are understood: numbers, times, lists and nulls."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "clicks.parquet"
    table = pyarrow.table(
        {
            "user": [1.0, 2.0, None],
            "item_id": [10, 11, 12],
            "value": [4.5, None, 1.0],
            "at": pyarrow.array([AT, AT, AT], pyarrow.timestamp("ms")),
        }
    )
    parquet.write_table(table, path)
    events, report = imported(path, "clicks", ["user_id=user"], ["action=rate"])
    assert [(event.user_id, event.item_id, event.value) for event in events[:1]] == [("1", "10", 4.5)]
    assert events[0].at == datetime.fromtimestamp(AT / 1_000, UTC)
    # A rating without a value, and a row without a user.
    assert [line for line, _ in report.first] == [2, 3]


def test_importing_twice_makes_the_same_events(tmp_path):
    """Without ids of their own, clicks are named by what they say; equal views without a time stay apart."""
    path = tmp_path / "clicks.csv"
    path.write_text(f"user_id,item_id,at\nu,i,{AT}\nu,j,{AT}\nu,k,\nu,k,\n")
    first, _ = imported(path, "clicks")
    second, _ = imported(path, "clicks")
    assert first == second
    assert len({event.event_id for event in first}) == 4


@pytest.mark.parametrize(
    ("maps", "constants", "said"),
    [
        (["user_id=usr"], [], "Did you mean 'user'"),
        (["usr_id=user"], [], "no field 'usr_id'"),
        (["user_id"], [], "FIELD=VALUE"),
        (["user_id=user", "user_id=item"], [], "twice"),
        (["user_id=user"], [], "No column gives item_id"),
        (["user_id=user", "item_id=item"], ["event_id={user}-{when}"], "no column 'when'"),
        (["context.=user"], [], "no field"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_before_anything_is_sent(tmp_path, maps, constants, said):
    """Fields and columns that do not exist are named, with the nearest that do."""
    path = tmp_path / "clicks.csv"
    path.write_text("user,item\nu,i\n")
    with pytest.raises(ConfigurationError, match=said):
        imported(path, "clicks", maps, constants)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b"x"), ("a.csv", b""), ("a.csv", b"a,a\n1,2\n"), ("a.parquet", b"PAR0"), ("missing.csv", None)],
)
def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path, name, content):
    """Unknown kinds, empty files, doubled headers and missing files are told apart from bad rows."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PenchantError):
        imported(path, "clicks")


def test_a_film_of_movielens():
    """The genres are the tags, the year is an attribute; a film may lack both."""
    film = {"movieId": "1", "title": "Toy Story (1995)", "genres": "Adventure|Animation"}
    assert movielens_item(Row(2, film)) == Item(
        item_id="1",
        title="Toy Story (1995)",
        tags=("Adventure", "Animation"),
        attributes={"year": "1995"},
    )
    bare = movielens_item(Row(3, {"movieId": "2", "title": "Babylon 5", "genres": "(no genres listed)"}))
    assert (bare.tags, bare.attributes) == ((), {})


def test_films_name_their_entities_where_a_graph_knows_them(tmp_path):
    """Films by their ids; one that the graph does not know names none."""
    (tmp_path / "entities.txt").write_text("1\t0\n31\te 7\n")
    entities = movielens_entities(tmp_path / "entities.txt")
    film = {"movieId": "31", "title": "Dangerous Minds (1995)", "genres": "Drama"}
    assert movielens_item(Row(2, film), entities).entity == "e 7"
    assert movielens_item(Row(3, {**film, "movieId": "32"}), entities).entity is None
    (tmp_path / "entities.txt").write_text("1\n")
    with pytest.raises(ConfigurationError):
        movielens_entities(tmp_path / "entities.txt")


def test_facts_are_read_without_a_header(tmp_path):
    """Every line is a fact, quotation marks and all; what is none is counted with its line."""
    path = tmp_path / "kg.txt"
    path.write_text('749\tfilm.writer\t2347\n1410\tsaid\t"To be"\nno fact\n')
    facts = []
    with open_facts(path) as rows:
        report = import_rows(rows.rows, movielens_fact, facts.append)
    assert facts == [
        Triple(head="749", relation="film.writer", tail="2347"),
        Triple(head="1410", relation="said", tail='"To be"'),
    ]
    assert [line for line, _ in report.first] == [3]


def test_a_rating_of_movielens():
    """A rating has its own time and an id of its own, so that a second replay is the same events."""
    rating = {"userId": "1", "movieId": "3", "rating": "4.0", "timestamp": "964981247"}
    assert movielens_click(Row(2, rating)) == Click(
        event_id="ml-1-3", user_id="1", item_id="3", action="rate", value=4.0, at=964_981_247_000
    )
    with pytest.raises(InvalidEvent):
        movielens_click(Row(3, {**rating, "timestamp": "soon"}))


def test_all_of_movielens_is_within_the_contract(shared_data):
    """Every film and every rating of the small data set gives an event."""
    counts = {}
    for name, to_event in (("movies.csv", movielens_item), ("ratings.csv", movielens_click)):
        with open_rows(shared_data / "movielens-small" / name) as rows:
            report = import_rows(rows.rows, to_event, checked)
        assert report.rejected == 0
        counts[name] = report.sent
    assert counts == {"movies.csv": 9_742, "ratings.csv": 100_836}
