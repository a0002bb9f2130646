"""What the tests of commands share: a place of their own to run them in, and the ways to run them."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penchant.cli import app
from penchant.settings import Settings

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
def penchant() -> Run:
    """Runs a command in this process."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def flags(settings: Settings) -> list[str]:
    """The global options that mean the test's own namespace."""
    return [
        "--namespace",
        settings.namespace,
        "--bootstrap-servers",
        settings.kafka.bootstrap_servers,
        "--data-dir",
        str(settings.data_dir),
    ]


@pytest.fixture
def here(penchant: Run, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the test's own namespace."""
    monkeypatch.setenv("PENCHANT_KAFKA__PARTITIONS", "3")
    return lambda *words: penchant(*flags, *words)
