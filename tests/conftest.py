"""What tests share: one real Kafka a session, stages on it, settings with a namespace of their own, shared data."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from penchant.broker import BrokerNotInstalled, LocalBroker
from penchant.settings import Settings, load_settings
from penchant.streams.topics import create_topics
from tests.stage import Stage, new_stage

# A shell that starts something in the background has it ignore interrupts, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

MEASURED: list[str] = []

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs Kafka, so that `-m "not kafka"` runs the rest."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """Apache Kafka on a free port. On continuous integration its absence fails, elsewhere it skips."""
    try:
        broker = LocalBroker.start(tmp_path_factory.mktemp("kafka"), port=0, engine="kafka")
    except BrokerNotInstalled as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    try:
        yield broker
    finally:
        broker.kill()  # nobody reads its records again, and to write them all out takes it ten seconds


@pytest.fixture
def settings(kafka: LocalBroker, tmp_path: Path) -> Settings:
    """Settings for the session's Kafka with a namespace and a data folder of this test's own; topics exist.

    Other values: `settings.model_copy(update={...})`.
    """
    own = load_settings(
        namespace=f"t{secrets.token_hex(4)}",
        data_dir=tmp_path / "data",
        kafka={"bootstrap_servers": kafka.bootstrap_servers, "partitions": 3},
        worker={"http_port": 0},
    )
    create_topics(own)
    return own


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the repository; tests of them are skipped where it stands alone."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there is no {SHARED_DATA}")
    return SHARED_DATA


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands what was measured to the process that shows it, where the tests are spread over several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["measured"] = MEASURED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what a process of the tests has measured, when it ends."""
    MEASURED.extend(getattr(node, "workeroutput", {}).get("measured", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows what the tests measured: figures that the documentation states."""
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def measured() -> Callable[[str], None]:
    """Notes a figure for the end of the test run."""
    return MEASURED.append


@pytest.fixture(scope="session")
def make_stage(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stage]:
    """Makes stages on a given broker, with settings by section; each is a context manager."""

    def make(broker: LocalBroker, **sections: Mapping[str, Any]) -> Stage:
        return new_stage(broker, tmp_path_factory.mktemp("stage"), **sections)

    return make


@pytest.fixture
def stage(kafka: LocalBroker, make_stage: Callable[..., Stage]) -> Iterator[Stage]:
    """A stage of this test's own on the session's Kafka."""
    with make_stage(kafka) as found:
        yield found
