"""`penchant encoders frequencies`: from a file of texts to an encoder that weighs words."""

import json

import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.encoders.base import Host
from penchant.encoders.registry import build
from penchant.settings import load_settings


@pytest.fixture
def frequencies(tmp_path, monkeypatch):
    """Runs the command with arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["encoders", "frequencies", *arguments])


def test_what_is_counted_serves_an_encoder(frequencies, tmp_path, monkeypatch):
    """The file that the command writes is the one that the settings name."""
    (tmp_path / "texts.txt").write_bytes("A film about jazz\nA film about soup\n\nJazz\n\xff".encode("latin-1"))
    ended = frequencies("texts.txt", "--output", "words.json", "--json")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout) == {"texts": 3, "words": 4, "file": "words.json"}
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT", '{"kind": "tfidf", "frequencies": "words.json", "dimension": 64}')
    encoder = build(load_settings().encoders.text, Host())
    assert encoder.finish(encoder.forward([encoder.prepare("jazz")])).shape == (1, 64)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.txt",), "none.txt"),
        (("empty.txt",), "no word"),
        (("texts.txt", "--output", "none/words.json"), "none/words.json"),
    ],
)
def test_mistakes_end_with_a_message(frequencies, tmp_path, arguments, said):
    """A missing file, one without words, and a folder that is not there are errors that name them."""
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "texts.txt").write_text("a film\n")
    ended = frequencies(*arguments)
    assert ended.exit_code == 2
    assert said in ended.output
