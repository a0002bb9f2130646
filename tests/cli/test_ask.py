"""What is recommended and known: `penchant watch` on the topic, `recommendations` and `profile` from a worker."""

import json
import signal
import subprocess
import time

import httpx
import pytest
from msgspec import structs

from penchant.streams.codec import encode
from penchant.streams.events import Because, Recommendations, Recommended, Timings
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.cli.rig import PENCHANT, WAIT_S, ok, produce
from tests.stage import free_port


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


def publish(settings, *lists):
    """Publishes lists, as a worker does."""
    topic = settings.prefixed(Topic.RECOMMENDATIONS)
    produce(settings, [Output(topic=topic, key=one.user_id.encode(), value=encode(one)) for one in lists])


def test_watch_shows_lists_readably_and_as_json(here, settings):
    """A list shows item, score, parts, reasons and latency; `--json` gives the record; USER filters."""
    publish(settings, *(a_list(user, round(time.time() * 1_000)) for user in ("ada", "bob")))
    output = ok(here("watch", "ada", "--from-beginning", "--limit", 1))
    for said in ("ada", "film-7", "0.750", "text_long +0.500", "because of like film-1 +0.400", "ms after the event"):
        assert said in output
    assert "bob" not in output
    lines = ok(here("watch", "--from-beginning", "--timeout", 2, "--json")).splitlines()
    assert {json.loads(line)["user_id"] for line in lines} == {"ada", "bob"}


def test_terminals_obey_nothing_that_comes_from_a_topic(here, settings):
    """Control characters in what others sent are not printed as such."""
    spoilt = structs.replace(
        a_list("ada", 1_750_000_000_000),
        as_of=2**60,  # no year has such a moment
        items=(Recommended(item_id="\x1b[31m[red]x\x9b2J", score=0.5, parts={}),),
    )
    publish(settings, spoilt)
    output = ok(here("watch", "--from-beginning", "--limit", 1))
    assert "[red]x" in output
    assert not {"\x1b", "\x9b"} & set(output)


def test_ctrl_c_ends_quietly_with_130(settings, flags):
    """An interrupt is no error: no traceback, no message, exit code 130."""
    publish(settings, a_list("ada", 1_750_000_000_000))
    command = [*PENCHANT, *flags, "watch", "--from-beginning", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        try:
            assert json.loads(watching.stdout.readline())["user_id"] == "ada"
            watching.send_signal(signal.SIGINT)
            _, errors = watching.communicate(timeout=WAIT_S)
        finally:
            watching.kill()  # one that has ended notices nothing
    assert watching.returncode == 130
    assert errors == ""


@pytest.mark.parametrize("what", ["profile", "recommendations"])
def test_without_a_worker_asking_says_how_to_start_one(penchant, monkeypatch, what):
    """Where no worker answers, the command says so, and exits with the code of what waiting may heal."""
    monkeypatch.setenv("PENCHANT_WORKER__HTTP_PORT", str(free_port()))
    result = penchant(what, "ada")
    assert result.exit_code == 3
    assert "penchant worker" in result.stderr


def test_a_running_worker_is_asked(flags, here, monkeypatch):
    """A click that was sent is in the profile that the worker shows; a stranger is unknown to it."""
    port = free_port()
    monkeypatch.setenv("PENCHANT_WORKER__HTTP_PORT", str(port))
    with subprocess.Popen([*PENCHANT, *flags, "worker", "--lane", "interest"]) as working:
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
