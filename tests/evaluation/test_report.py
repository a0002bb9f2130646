"""What an evaluation writes down: a page that stands alone, a table, JSON; and the command that does it all."""

import json
import re

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.errors import ConfigurationError
from penchant.evaluation.protocol import Rules, evaluate
from penchant.evaluation.report import as_html, as_json, as_markdown, writer_for
from penchant.evaluation.roster import Material, baselines, chosen
from penchant.evaluation.summary import Summary, summarise
from penchant.settings import load_settings


@pytest.fixture
def summary(crowd, at_end):
    """Of three baselines on two crowds."""
    vectors = np.eye(len(crowd.items), dtype=np.float32)
    given = Material(stream=crowd, vectors=vectors, rules=Rules(), settings=load_settings(), at_end=at_end)
    only = ["popularity", "last item", "item-item cosine"]
    field = chosen([make(given) for make in baselines()], only)
    rules = Rules(probes=100, absence_ms=600_000)
    return summarise("two <crowds>", crowd, evaluate(crowd, field, rules).narrowed(only), rules, vectors)


def test_every_configuration_has_every_figure_in_both_scopes(summary):
    """Metrics at each k, area, curve, coverage, novelty, diversity and an interval that holds the mean."""
    assert summary.absence is not None
    for scope in (summary.everything, summary.absence):
        assert [one.name for one in scope.figures] == ["popularity", "last item", "item-item cosine"]
        for one in scope.figures:
            assert one.ndcg.low <= one.ndcg.value <= one.ndcg.high
            assert one.ndcg.value == pytest.approx(one.at["NDCG@10"], abs=1e-6)
            kinds = {name.split("@")[0] for name in one.at}
            assert kinds == {"HR", "NDCG", "MRR", "accuracy", "precision", "recall", "F1"}
            assert one.coverage > 0
            assert one.novelty > 0
            assert one.diversity == pytest.approx(1)  # the vectors of distinct items are orthogonal
            assert len(one.roc) == 101


def test_any_two_configurations_are_compared(summary):
    """Every pair is there once in each scope, and its difference is that of the two means."""
    means = {one.name: one.ndcg.value for one in summary.everything.figures}
    assert len({frozenset((pair.one, pair.other)) for pair in summary.everything.pairs}) == 3
    for pair in summary.everything.pairs:
        assert pair.difference.value == pytest.approx(means[pair.one] - means[pair.other])
        assert 0 <= pair.p <= 1


def test_windows_slide_over_the_probes(summary):
    """Each curve has a value for each window's end."""
    assert summary.window == summary.everything.probes
    assert {len(curve) for curve in summary.sliding.values()} == {len(summary.times)}


def test_json_reads_back(summary):
    """The file holds the whole summary."""
    assert msgspec.json.decode(as_json(summary), type=Summary) == summary


def test_the_page_stands_alone(summary):
    """It asks no other address for anything, escapes what it is given, and draws four plots."""
    page = as_html(summary)
    assert page.count("<svg") == 4
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    assert "@import" not in page
    assert "two &lt;crowds&gt;" in page
    assert "<crowds>" not in page
    pairs = re.search(r'<script type="application/json" id="pairs">(.*?)</script>', page)
    assert {len(found) for found in json.loads(pairs[1]).values()} == {3}


def test_the_markdown_table_has_a_row_a_configuration_the_best_first(summary):
    """Rows are of one width, ordered by NDCG@10."""
    rows = [line for line in as_markdown(summary).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert len({row.count("|") for row in rows}) == 1
    best = max(summary.everything.figures, key=lambda one: one.ndcg.value)
    assert rows[2].startswith(f"| {best.name} |")


def test_a_file_is_written_by_its_suffix(tmp_path):
    """A suffix that nobody knows is told before anything is evaluated."""
    with pytest.raises(ConfigurationError, match="unknown kind"):
        writer_for(tmp_path / "quality.pdf")


@pytest.fixture
def folder(tmp_path):
    """A MovieLens folder of forty films and five hundred ratings."""
    random = np.random.default_rng(3)
    films = "".join(f"{film},Film {film} (1999),Drama|Comedy\n" for film in range(40))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + films)
    pairs = [divmod(int(pair), 40) for pair in random.permutation(20 * 40)[:500]]
    ratings = "".join(f"{user},{film},{random.integers(6, 11) / 2},{at}\n" for at, (user, film) in enumerate(pairs))
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    return tmp_path


def test_one_command_reads_evaluates_and_reports(folder, monkeypatch):
    """It needs no broker; the same command gives the same figures again."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PENCHANT_DATA_DIR", str(folder / "data"))
    command = ["evaluate", "movielens", str(folder), "--only", "popularity 30 d", "--only", "EMA 0.3", "--probes", "50"]
    first, again = (CliRunner().invoke(app, [*command, "--json", "--report", name]) for name in ("q.html", "q.md"))
    assert first.exit_code == 0, first.output
    found, same = (json.loads(result.stdout) for result in (first, again))
    assert [one["name"] for one in found["everything"]["figures"]] == ["popularity 30 d", "EMA 0.3"]
    assert found["everything"] == same["everything"]
    assert (folder / "q.html").read_text().startswith("<!doctype html>")
    assert "| popularity 30 d |" in (folder / "q.md").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "popularty"], "Did you mean 'popularity'?"),
        (["--half", "middle"], "a first and a last"),
        (["--report", "q.pdf"], "unknown kind"),
    ],
)
def test_mistakes_are_told(folder, monkeypatch, options, said):
    """A wrong option ends with the exit code of a mistake, and with what would be right."""
    monkeypatch.setenv("PENCHANT_DATA_DIR", str(folder / "data"))
    found = CliRunner().invoke(app, ["evaluate", "movielens", str(folder), *options])
    assert found.exit_code == 2
    assert said in found.output
