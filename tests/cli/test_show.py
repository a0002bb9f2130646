"""What is set, what is agreed, and whether it works: `penchant settings`, `asyncapi`, `topics` and `doctor`."""

import json
from functools import partial

import jsonschema

from penchant.settings import Settings, load_settings, setting_paths
from penchant.streams.asyncapi import contract
from penchant.streams.codec import encode
from penchant.streams.events import Click
from penchant.streams.topics import topic_specs
from tests.cli.rig import ok
from tests.stage import free_port


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


def test_topics_are_created_once_and_checked(penchant, kafka, monkeypatch):
    """`create` makes what is missing, once; `check` finds what is missing or differs, and nothing where all is well."""
    monkeypatch.setenv("PENCHANT_KAFKA__PARTITIONS", "3")
    there = partial(penchant, "--namespace", "made-here", "--bootstrap-servers", kafka.bootstrap_servers)
    result = there("topics", "check", "--json")
    assert result.exit_code == 1
    assert {finding["problem"] for finding in json.loads(result.stdout)} == {"is missing"}
    result = there("send", "click", "u", "i")
    assert result.exit_code == 2
    assert "penchant topics create" in result.stderr
    names = [spec.name for spec in topic_specs(load_settings(namespace="made-here"))]
    assert json.loads(ok(there("topics", "create", "--json"))) == {"created": names}
    assert json.loads(ok(there("topics", "create", "--json"))) == {"created": []}
    assert "as they should be" in ok(there("topics", "check"))
    monkeypatch.setenv("PENCHANT_KAFKA__PARTITIONS", "4")
    result = there("topics", "check")
    assert result.exit_code == 1
    assert "has 3 partitions" in result.stdout


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
