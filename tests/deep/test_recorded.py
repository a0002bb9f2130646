"""Training on what was recorded: a folder becomes a file that a worker ranks by."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.deep.kept import load
from penchant.deep.mode import deep_mode
from penchant.errors import ConfigurationError
from penchant.parts import build_parts, worker_space
from penchant.profile.ranking.whitening import Calibration
from penchant.settings import load_settings

FILMS = {
    number: f"{adjective} {kind} {number} (19{number + 50})"
    for number, (adjective, kind) in enumerate(
        (adjective, kind)
        for kind in ("Western", "Musical")
        for adjective in ("Old", "New", "Red", "Blue", "Last", "Sad")
    )
}


@pytest.fixture
def folder(tmp_path):
    """Twelve films, and twenty users who like one kind of them."""
    made = tmp_path / "films"
    made.mkdir()
    with (made / "movies.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["movieId", "title", "genres"])
        writer.writerows((number, title, title.split()[1]) for number, title in FILMS.items())
    random = np.random.default_rng(0)
    with (made / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp"])
        for user in range(20):
            for step, film in enumerate(random.permutation(12).tolist()):
                writer.writerow([user, film, 5.0 if film // 6 == user % 2 else 1.0, 1_000_000_000 + 100 * step + user])
    return made


def train(tmp_path, *arguments):
    """Runs the command."""
    return CliRunner().invoke(app, ["--data-dir", str(tmp_path / "data"), "deep", "train", *map(str, arguments)])


def test_a_model_of_a_movielens_folder_is_one_that_a_worker_ranks_by(folder, tmp_path):
    """By texts alone, whitened by nothing where the films are few; the command says what it has done."""
    out = tmp_path / "models" / "deep.safetensors"
    told = train(tmp_path, "movielens", folder, "--out", out, "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["file"] == str(out)
    assert found["slices"] == {"text": 384}
    assert (found["events"], found["likes"]) == (240, 108)  # a tenth of 120 is held out
    assert min(found["losses"]) < found["losses"][0]
    settings = load_settings(data_dir=tmp_path / "data", fusion={"mode": "deep", "deep_model": str(out)})
    mode = build_parts(settings).ranker.mode
    space = worker_space(settings)
    content = np.random.default_rng(0).normal(size=(5, space.dimension)).astype(np.float32)
    assert mode.fused(Calibration().split(space, content)).vectors.shape[0] == 5
    again = train(tmp_path, "movielens", folder, "--out", out)
    assert again.exit_code == 0, again.output
    assert "fusion.deep_model" in again.output
    assert load(out).trained.losses == tuple(found["losses"])


@pytest.mark.parametrize("out", ["a folder", "under a file"])
def test_what_cannot_be_written_is_said_before_anything_is_trained(folder, tmp_path, out):
    """Minutes of training are not lost to a mistyped name."""
    (tmp_path / "a folder").mkdir()
    (tmp_path / "file").write_text("")
    place = tmp_path / ("a folder" if out == "a folder" else "file/model")
    told = train(tmp_path, "movielens", folder, "--out", place)
    assert told.exit_code == 2
    assert str(place).split("/")[-1] in told.output.replace("\n", "")  # however narrow the terminal
    assert not (tmp_path / "data").exists()


def test_a_worker_with_another_encoder_refuses_the_model(folder, tmp_path):
    """What it was trained on is part of the file."""
    out = tmp_path / "deep.safetensors"
    assert train(tmp_path, "movielens", folder, "--out", out).exit_code == 0
    space = worker_space(load_settings())
    text, *others = space.slices
    other = type(space)((type(text)(text.name, text.dimension, text.share, "another"), *others))
    with pytest.raises(ConfigurationError, match="another encoder"):
        deep_mode(out, other)
