"""What the README and the documents tell a reader to type works."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penchant.broker import LocalBroker
from penchant.cli import app
from penchant.settings import load_settings
from penchant.streams.topics import create_topics

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_gives_recommendations(kafka: LocalBroker, tmp_path: Path) -> None:
    """Its events reach a worker, and its subscriber prints a list."""
    (code,) = blocks("python")
    environment = os.environ | {
        "PENCHANT_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "PENCHANT_DATA_DIR": str(tmp_path / "data"),
        "PENCHANT_WORKER__HTTP_PORT": "0",
    }
    create_topics(load_settings(kafka={"bootstrap_servers": kafka.bootstrap_servers}))
    worker = subprocess.Popen([sys.executable, "-m", "penchant.cli", "worker"], env=environment, cwd=tmp_path)
    try:
        code = code.replace("127.0.0.1:9092", kafka.bootstrap_servers)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
        )
    finally:
        worker.terminate()
        stopped = worker.wait(60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("film-4 ")
    assert stopped == 0


@pytest.mark.parametrize("command", re.findall(r"^\$ (penchant [^#&\n]*)", README, re.MULTILINE))
def test_the_commands_of_the_readme_exist(command: str) -> None:
    """Each names a command and options that the command line knows."""
    words = [word for word in shlex.split(command)[1:] if not word.startswith("-")]
    while words:
        result = CliRunner().invoke(app, [*words, "--help"])
        if result.exit_code == 0:
            break
        words.pop()  # an argument, not a command
    assert words, command
    for option in re.findall(r"(--[a-z-]+)", command):
        assert option in result.output


@pytest.mark.parametrize("example", blocks("toml", (ROOT / "docs" / "operations.md").read_text()))
def test_the_settings_of_the_operations_page_are_settings(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example loads, and says something that the defaults do not."""
    defaults = load_settings()
    file = tmp_path / "example.toml"
    file.write_text(example)
    monkeypatch.setenv("PENCHANT_CONFIG", str(file))
    assert load_settings() != defaults


def test_every_link_of_the_documents_leads_somewhere() -> None:
    """Relative links name files that exist."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
