"""What holds of every command: it teaches, obeys the global options, and ends with words and an exit code."""

import json
import socket
import subprocess
import sys

import pytest
from typer.main import get_command

from penchant import __version__
from penchant.cli import app
from tests.cli.rig import ok


def all_commands(command, path=()):
    """Every command with its path."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from all_commands(below, (*path, name))


def test_every_command_teaches_with_an_example(penchant):
    """Help names an example for each command."""
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
        "import sys; from penchant.cli import app; app(['--help'], standalone_mode=False); "
        "print([name for name in ('torch', 'faust', 'qdrant_client', 'qdrant_edge', 'scipy', 'httpx') "
        "if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "penchant demo" in done.stdout
    assert done.stderr.strip() == "[]"


def test_global_options_win_over_the_file_they_name(penchant, tmp_path):
    """`--config` names the file, and a flag overrides what it says."""
    (tmp_path / "other.toml").write_text('namespace = "file"\nlog_level = "error"\n')
    found = json.loads(ok(penchant("--config", "other.toml", "--namespace", "flag", "settings", "--json")))
    assert (found["namespace"]["value"], found["log_level"]["value"]) == ("flag", "error")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "missing.toml", "settings"], "missing.toml"),
        (["--namespace", "NO", "settings"], "namespace"),
        (["--log-level", "loud", "settings"], "log_level"),
        (["send", "click", "u", "i", "--at", "soon"], "RFC 3339"),
        (["send", "click", "u", "i", "--action", "post"], "post"),
        (["send", "upload", "u", "image", "missing.png"], "missing.png"),
        (["send", "item", "i", "--attribute", "year"], "NAME=VALUE"),
        (["import", "items", "missing.csv"], "missing.csv"),
        (["replay", "movielens", "."], "movies.csv"),
        (["dead-letters", "show", "first"], "PARTITION:OFFSET"),
        (["worker", "--lane", "fast"], "fast"),
    ],
)
def test_mistakes_end_with_a_message_and_exit_code_2(penchant, words, said):
    """A mistake is told in words on standard error, with what to do, and without a traceback."""
    result = penchant(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_broker_on_a_port_in_use_is_a_clear_error(penchant):
    """`penchant broker` names the port and how to choose another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = penchant("broker", "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "--port" in result.stderr
