"""The command line: what it prints, what it sends, and how it ends."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import jsonschema
import pytest
from msgspec import structs
from typer.testing import CliRunner

from penchant import __version__
from penchant.cli import app
from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.weights import Learned, Weights
from penchant.settings import Settings, load_settings, setting_paths
from penchant.streams.asyncapi import contract
from penchant.streams.codec import Unusable, decode, encode
from penchant.streams.connection import open_producer
from penchant.streams.dead_letters import dead_letter
from penchant.streams.events import (
    Because,
    Click,
    Item,
    MediaUpload,
    Post,
    Recommendations,
    Recommended,
    Reset,
    Timings,
    Triple,
)
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Record
from penchant.streams.topics import Topic, topic_specs
from penchant.streams.weights import told

WAIT_S = 60.0
PENCHANT = [sys.executable, "-m", "penchant.cli"]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty working folder, no settings in the environment, a wide terminal; logging as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("PENCHANT_") and not name.startswith("PENCHANT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def penchant():
    """Runs a command in this process."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def flags(settings):
    """The global options that mean the test's own namespace."""
    return [
        "--namespace",
        settings.namespace,
        "--bootstrap-servers",
        settings.kafka.bootstrap_servers,
        "--data-dir",
        settings.data_dir,
    ]


@pytest.fixture
def here(penchant, flags, monkeypatch):
    """Runs a command in the test's own namespace."""
    monkeypatch.setenv("PENCHANT_KAFKA__PARTITIONS", "3")
    return lambda *words: penchant(*flags, *words)


def free_port():
    """A port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def values(settings, topic, kind):
    """What a topic holds."""
    with TopicReader(settings, topic, from_beginning=True) as reader:
        return [decode(kind, record.value) for record in reader.to_end()]


def produce(settings, outputs):
    """Publishes records as they are."""
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    for output in outputs:
        producer.produce(output.topic, output.value, output.key, headers=dict(output.headers))
    assert producer.flush(WAIT_S) == 0


def ok(result):
    """The output of a command that must have succeeded."""
    assert result.exit_code == 0, result.output
    return result.stdout


def all_commands(command, path=()):
    """Every command with its path."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from all_commands(below, (*path, name))


def test_every_command_teaches_with_an_example(penchant):
    """Help names an example for each command."""
    from typer.main import get_command  # noqa: PLC0415  the tree below the app

    found = list(all_commands(get_command(app)))
    assert len(found) > 20
    for path, command in found:
        assert f"penchant {' '.join(path)}" in command.help, path
        assert penchant(*path, "--help").exit_code == 0


def test_the_version(penchant):
    """`--version` prints what is installed."""
    assert ok(penchant("--version")).strip() == __version__


def test_help_needs_nothing_large():
    """`penchant --help` imports neither encoders nor lanes nor stores."""
    code = (
        "import sys, penchant.cli; "
        "print([name for name in ('torch', 'faust', 'qdrant_client', 'qdrant_edge', 'scipy', 'httpx') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_shows_every_key_and_no_secret(penchant, monkeypatch):
    """Each key is there with its value and default; what is secret is hidden wherever it stands."""
    monkeypatch.setenv("PENCHANT_ID_KEY", "hunter2")
    monkeypatch.setenv("PENCHANT_STORE__URL", "http://name:hunter2@127.0.0.1:6333")
    monkeypatch.setenv("PENCHANT_KAFKA__OPTIONS", '{"sasl.password": "hunter2", "linger.ms": 7}')
    found = json.loads(ok(penchant("--namespace", "mine", "settings", "--json")))
    assert found["namespace"] == {
        "value": "mine",
        "default": "",
        "meaning": "prefixes topics, consumer groups and collections",
    }
    assert "linger.ms" in found["kafka.options"]["value"]
    sections = {path[0] for path in setting_paths(Settings) if len(path) == 2}
    assert set(found) == {".".join(path) for path in setting_paths(Settings)} - sections
    table = ok(penchant("settings"))
    assert "kafka.bootstrap_servers" in table
    assert "hunter2" not in json.dumps(found) + table


def test_global_options_win_over_the_file_they_name(penchant, tmp_path):
    """`--config` names the file, and a flag overrides what it says."""
    (tmp_path / "other.toml").write_text('namespace = "file"\nlog_level = "error"\n')
    found = json.loads(ok(penchant("--config", "other.toml", "--namespace", "flag", "settings", "--json")))
    assert (found["namespace"]["value"], found["log_level"]["value"]) == ("flag", "error")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--config", "missing.toml", "settings"], 2, "missing.toml"),
        (["--namespace", "NO", "settings"], 2, "namespace"),
        (["--log-level", "loud", "settings"], 2, "log_level"),
        (["send", "click", "u", "i", "--at", "soon"], 2, "RFC 3339"),
        (["send", "click", "u", "i", "--action", "post"], 2, "post"),
        (["send", "upload", "u", "image", "missing.png"], 2, "missing.png"),
        (["send", "item", "i", "--attribute", "year"], 2, "NAME=VALUE"),
        (["import", "items", "missing.csv"], 2, "missing.csv"),
        (["replay", "movielens", "."], 2, "movies.csv"),
        (["dead-letters", "show", "first"], 2, "PARTITION:OFFSET"),
        (["worker", "--lane", "fast"], 2, "fast"),
    ],
)
def test_mistakes_end_with_a_message_and_exit_code_2(penchant, words, code, said):
    """A mistake is told in words on standard error, with what to do, and without a traceback."""
    result = penchant(*words)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize("what", ["profile", "recommendations"])
def test_without_a_worker_asking_says_how_to_start_one(penchant, monkeypatch, what):
    """Where no worker answers, the command says so, and exits with the code of what waiting may heal."""
    monkeypatch.setenv("PENCHANT_WORKER__HTTP_PORT", str(free_port()))
    result = penchant(what, "ada")
    assert result.exit_code == 3
    assert "penchant worker" in result.stderr


def test_a_broker_on_a_port_in_use_is_a_clear_error(penchant):
    """`penchant broker` names the port and how to choose another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = penchant("broker", "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "--port" in result.stderr


def test_the_contract_names_every_topic_and_matches_what_is_sent(penchant):
    """AsyncAPI's channels are the topics; its schemas are valid JSON Schema and take what the client sends."""
    document = json.loads(ok(penchant("--namespace", "mine", "asyncapi")))
    settings = load_settings(namespace="mine")
    assert document == json.loads(json.dumps(contract(settings)))
    assert document["asyncapi"] == "3.0.0"
    assert {channel["address"] for channel in document["channels"].values()} == {
        spec.name for spec in topic_specs(settings)
    }
    click = {"$ref": "#/components/schemas/Click", "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(click)
    validator = jsonschema.Draft202012Validator(click)
    event = Click(event_id="e", user_id="u", item_id="i", at=1_750_000_000_000)
    validator.validate(json.loads(encode(event, json=True)))
    validator.validate({"event_id": "e", "user_id": "u", "item_id": "i"})
    for spoilt in ({"event_id": "e"}, {"event_id": "e", "user_id": "u\n", "item_id": "i"}):
        assert not validator.is_valid(spoilt)


def test_every_reference_of_the_contract_leads_somewhere():
    """No `$ref` of the document dangles."""
    document = contract(load_settings())

    def references(part):
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            part = list(part.values())
        if isinstance(part, list):
            for below in part:
                yield from references(below)

    found = list(references(document))
    assert found
    for reference in found:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_weights_are_shown_and_reset(here, settings):
    """Every feature with where it started; then with what was learned, beside the pins; and a request to begin anew."""
    before = json.loads(ok(here("weights", "--json")))
    assert (before["examples"], before["as_of"], before["learning"]) == (0, None, True)
    names = [one["feature"] for one in before["features"]]
    assert {"text_long", "transitions", "age"} <= set(names)
    assert "nothing was learned yet" in ok(here("weights"))
    prior = prior_weights(names)
    learned = Learned.nothing(Weights.of({"age": 0.75}, {"age": -0.25}, names)).among(prior)
    topic = settings.prefixed(Topic.WEIGHTS)
    taught = structs.replace(learned, examples=12_345)
    now = round(time.time() * 1_000)
    produce(settings, [told(taught, as_of=now - 7_200_000, topic_id="", next_offset=1, topic=topic)])
    after = {one["feature"]: one for one in json.loads(ok(here("weights", "--json")))["features"]}
    base, returning = (dict(zip(names, one.tolist(), strict=True)) for one in (prior.base, prior.returning))
    assert after["age"]["base"] == {"prior": base["age"], "learned": 0.75, "in_force": 0.75, "pinned": False}
    of_returning = {"prior": returning["age"], "learned": -0.25, "in_force": -0.25, "pinned": False}
    assert after["age"]["returning"] == of_returning
    table = ok(here("weights"))
    assert "learned from 12,345 examples, the newest 2 h ago" in table
    assert "+0.750" in table
    assert "begins anew" in ok(here("weights", "reset"))
    assert values(settings, Topic.EXAMPLES, Reset) == [Reset()]


def test_a_pin_is_shown_beside_what_was_learned(here, monkeypatch):
    """It is what counts, whatever was learned; and where nothing learned is in force, that is said."""
    monkeypatch.setenv("PENCHANT_RECOMMEND__WEIGHTS", '{"age": -2}')
    monkeypatch.setenv("PENCHANT_RECOMMEND__LEARN", "false")
    [age] = [one for one in json.loads(ok(here("weights", "--json")))["features"] if one["feature"] == "age"]
    assert (age["base"]["learned"], age["base"]["in_force"], age["base"]["pinned"]) == (None, -2.0, True)
    assert "not in force here" in ok(here("weights"))


def test_topics_are_created_once_and_checked(here, penchant, flags):
    """`create` makes what is missing, `check` finds nothing then, and something where settings differ."""
    assert json.loads(ok(here("topics", "create", "--json"))) == {"created": []}
    assert "as they should be" in ok(here("topics", "check"))
    other = ["--namespace", "other", "--bootstrap-servers", flags[3]]
    result = penchant(*other, "topics", "check", "--json")
    assert result.exit_code == 1
    assert {finding["problem"] for finding in json.loads(result.stdout)} == {"is missing"}
    result = penchant(*other, "send", "click", "u", "i")
    assert result.exit_code == 2
    assert "penchant topics create" in result.stderr


def test_send_reaches_the_topics(here, settings, tmp_path):
    """Each kind of event arrives as it was typed, and its id is printed."""
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    event_id = json.loads(
        ok(
            here(
                "send",
                "click",
                "ada",
                "film-1",
                "--action",
                "rate",
                "--value",
                4.5,
                "--at",
                "2026-01-31T12:00:00Z",
                "--json",
            )
        )
    )["event_id"]
    (click,) = values(settings, Topic.CLICKS, Click)
    assert (click.event_id, click.action, click.value) == (event_id, "rate", 4.5)
    assert click.at.isoformat() == "2026-01-31T12:00:00+00:00"
    ok(here("send", "post", "ada", "old maps", "--private", "--tag", "map", "--image", "cat.png"))
    (post,) = values(settings, Topic.POSTS, Post)
    assert (post.text, post.recommendable, post.tags, post.media[0].data) == ("old maps", False, ("map",), b"\x89PNG")
    ok(here("send", "upload", "ada", "image", "https://example.org/cat.png", "--caption", "a cat"))
    (upload,) = values(settings, Topic.MEDIA_UPLOADS, MediaUpload)
    assert (upload.uri, upload.data, upload.caption) == ("https://example.org/cat.png", None, "a cat")
    assert ok(here("send", "item", "film-1", "--title", "One", "--attribute", "year=1927")).strip() == "film-1"
    (item,) = values(settings, Topic.ITEMS, Item)
    assert item == Item(item_id="film-1", title="One", attributes={"year": "1927"})
    ok(here("send", "item", "film-1", "--withdraw"))
    with TopicReader(settings, Topic.ITEMS, from_beginning=True) as reader:
        assert [record.value for record in reader.to_end()][-1] is None


def test_an_event_out_of_bounds_is_not_sent(here, settings):
    """What no worker would take ends the command, and nothing is on the topic."""
    result = here("send", "click", "ada", "film-1", "--at", 1_700_000_000)
    assert result.exit_code == 1
    assert "seconds" in result.stderr
    assert values(settings, Topic.CLICKS, Click) == []


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


def a_list(user, now_ms):
    """A list with something to explain."""
    return Recommendations(
        user_id=user,
        profile_version=3,
        as_of=now_ms,
        items=(
            Recommended(
                item_id="film-7",
                score=0.75,
                parts={"text_long": 0.5, "popularity": 0.25},
                because=(Because(event_id="e", item_id="film-1", action="like", part=0.4),),
            ),
        ),
        timings=Timings(recorded=now_ms - 40, stored=now_ms - 20, ranked=now_ms),
    )


def test_watch_shows_lists_readably_and_as_json(here, settings):
    """A list shows item, score, parts, reasons and latency; `--json` gives the record; USER filters."""
    lists = [a_list(user, round(time.time() * 1_000)) for user in ("ada", "bob")]
    topic = settings.prefixed(Topic.RECOMMENDATIONS)
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    for one in lists:
        producer.produce(topic, encode(one), one.user_id)
    producer.flush(WAIT_S)
    output = ok(here("watch", "ada", "--from-beginning", "--limit", 1))
    for said in ("ada", "film-7", "0.750", "text_long +0.500", "because of like film-1 +0.400", "ms after the event"):
        assert said in output
    assert "bob" not in output
    lines = ok(here("watch", "--from-beginning", "--timeout", 2, "--json")).splitlines()
    assert {json.loads(line)["user_id"] for line in lines} == {"ada", "bob"}


def test_terminals_obey_nothing_that_comes_from_a_topic(here, settings):
    """Control characters in what others sent are not printed as such."""
    spoilt = a_list("ada", 1_750_000_000_000)
    spoilt = Recommendations(
        user_id="ada",
        profile_version=1,
        as_of=2**60,
        items=(Recommended(item_id="\x1b[31m[red]x\x9b2J", score=float("0.5"), parts={}),),
        timings=spoilt.timings,
    )
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    producer.produce(settings.prefixed(Topic.RECOMMENDATIONS), encode(spoilt), "ada")
    producer.flush(WAIT_S)
    output = ok(here("watch", "--from-beginning", "--limit", 1))
    assert "[red]x" in output
    assert not {"\x1b", "\x9b"} & set(output)


def bury(settings, letters):
    """Puts dead letters on their topic; gives what they were made of."""
    outputs = [
        dead_letter(
            Record(
                topic=settings.prefixed(topic),
                partition=0,
                offset=offset,
                timestamp=1_700_000_000_000 + offset,
                key=b"ada",
                value=value,
                headers={"trace": b"\xff1"},
            ),
            Unusable("it is spoilt", reason=reason),
            topic=settings.prefixed(Topic.DEAD_LETTERS),
        )
        for offset, (topic, value, reason) in enumerate(letters)
    ]
    produce(settings, outputs)


def test_dead_letters_are_listed_shown_and_sent_back(here, settings):
    """List filters, show reads any bytes, replay sends the originals back as they were, and no others."""
    good = encode(Click(event_id="e", user_id="ada", item_id="i"))
    bury(
        settings,
        [
            ("clicks", good, "invalid"),
            ("clicks", b"\xc1\x1b[31m\x00", "malformed"),
            ("posts", b"", "empty"),
            ("not-ours", b"x", "invalid"),
        ],
    )
    listed = [json.loads(line) for line in ok(here("dead-letters", "list", "--json")).splitlines()]
    assert sorted(one["reason"] for one in listed) == ["empty", "invalid", "invalid", "malformed"]
    assert "it is spoilt" in ok(here("dead-letters", "list", "--topic", "clicks"))
    (malformed,) = (one for one in listed if one["reason"] == "malformed")
    shown = ok(here("dead-letters", "show", malformed["letter"]))
    assert "c1 1b 5b 33 31 6d 00" in shown
    assert "\x1b" not in shown
    (first,) = (one for one in listed if one["topic"].endswith("clicks") and one["reason"] == "invalid")
    assert '"user_id": "ada"' in ok(here("dead-letters", "show", first["letter"]))
    assert json.loads(ok(here("dead-letters", "show", first["letter"], "--json")))["value_hex"] == good.hex()
    assert here("dead-letters", "show", "0:999").exit_code == 1

    assert "2 would be sent back" in ok(here("dead-letters", "replay", "--topic", "clicks", "--dry-run"))
    assert values(settings, Topic.CLICKS, Click) == []
    result = here("dead-letters", "replay", "--reason", "invalid")
    assert "1 sent back" in ok(result)
    assert "1 left alone" in result.stderr
    with TopicReader(settings, Topic.CLICKS, from_beginning=True) as reader:
        (record,) = reader.to_end()
    assert (record.key, record.value, record.timestamp) == (b"ada", good, 1_700_000_000_000)
    assert dict(record.headers) == {"trace": b"\xff1"}


def test_a_stranger_among_the_dead_letters_is_passed_over(here, settings):
    """A record without the headers of a dead letter ends no command."""
    bury(settings, [("clicks", b"x", "malformed")])
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    producer.produce(settings.prefixed(Topic.DEAD_LETTERS), b"?", b"?")
    producer.flush(WAIT_S)
    result = here("dead-letters", "list", "--json")
    assert len(ok(result).splitlines()) == 1
    assert "passed over" in result.stderr


def test_doctor_finds_what_is_there(here, monkeypatch):
    """With broker and topics in place nothing fails; a worker that is not there is a warning."""
    monkeypatch.setenv("PENCHANT_WORKER__HTTP_PORT", str(free_port()))
    found = {one["part"]: one for one in json.loads(ok(here("doctor", "--json")))}
    assert found["broker"]["status"] == "ok"
    assert found["topics"]["status"] == "ok"
    assert found["store"]["status"] == "ok"
    assert found["worker"]["status"] == "warn"
    assert "penchant worker" in found["worker"]["remedy"]


def test_doctor_says_what_is_missing(penchant, monkeypatch):
    """Without a broker and with a store that does not answer it fails, goes on, and says what to do."""
    monkeypatch.setattr("penchant.doctor.REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr("penchant.streams.topics.REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setenv("PENCHANT_STORE__URL", f"http://127.0.0.1:{free_port()}")
    result = penchant("--bootstrap-servers", f"127.0.0.1:{free_port()}", "doctor", "--json")
    assert result.exit_code == 1
    found = {one["part"]: one for one in json.loads(result.stdout)}
    for part in ("broker", "topics", "store"):
        assert found[part]["status"] == "fail"
        assert found[part]["remedy"]
    assert found["python"]["status"] == "ok"


def test_ctrl_c_ends_quietly_with_130(settings, flags):
    """An interrupt is no error: no traceback, no message, exit code 130."""
    watching = subprocess.Popen(
        [*PENCHANT, *map(str, flags), "watch", "--from-beginning", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    produce_list(settings)
    assert json.loads(watching.stdout.readline())["user_id"] == "ada"
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=WAIT_S)
    assert watching.returncode == 130
    assert errors == ""


def produce_list(settings):
    """Publishes a list for ada."""
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    producer.produce(settings.prefixed(Topic.RECOMMENDATIONS), encode(a_list("ada", 1_750_000_000_000)), "ada")
    producer.flush(WAIT_S)


def test_a_running_worker_is_asked(settings, flags, here, monkeypatch):
    """A click that was sent is in the profile that the worker shows; a stranger is unknown to it."""
    port = free_port()
    monkeypatch.setenv("PENCHANT_WORKER__HTTP_PORT", str(port))
    monkeypatch.setenv("PENCHANT_KAFKA__PARTITIONS", "3")
    with subprocess.Popen([*PENCHANT, *map(str, flags), "worker", "--lane", "interest"]) as working:
        try:
            event_id = ok(here("send", "click", "ada/ü", "film-1", "--action", "like")).strip()
            deadline = time.monotonic() + WAIT_S
            while (result := here("profile", "ada/ü", "--json")).exit_code != 0:
                assert working.poll() is None, "the worker has ended"
                assert time.monotonic() < deadline, result.output
                time.sleep(0.2)
            assert event_id in result.stdout
            assert "film-1" in ok(here("profile", "ada/ü"))
            assert "ada/ü" in ok(here("recommendations", "ada/ü"))
            stranger = here("profile", "nobody")
            assert stranger.exit_code == 1
            assert "no such user" in stranger.stderr
            assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
        finally:
            working.terminate()
    assert working.returncode == 0
