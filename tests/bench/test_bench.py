"""The measurements run, and what they make of figures is right."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.bench.freshness import Exchange, answers, latencies
from tests.bench.report import BEGIN, END, Results
from tests.bench.result import interpolated_rate, percentiles

ROOT = Path(__file__).resolve().parents[2]
NS = 1_000_000_000


@pytest.mark.usefixtures("kafka")
def test_the_ceiling_and_the_lane_are_measured_in_one_run(tmp_path):
    """The command ends by itself, and leaves its results as JSON and in a page with a plot."""
    page, file = tmp_path / "page.md", tmp_path / "found.json"
    page.write_text(f"before\n{BEGIN}\nformer\n{END}\nafter\n")
    told = ["--quick", "--only", "a,b", "--json", str(file), "--report", str(page)]
    subprocess.run([sys.executable, "-m", "tests.bench", *told], cwd=ROOT, check=True, timeout=120)
    found = msgspec.json.decode(file.read_bytes(), type=Results)
    (part,) = found.parts
    assert [row[0] for row in part.tables[0].rows] == ["confluent-kafka consume", "lane with decoding"]
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "former" not in text
    assert "lane with decoding" in text
    assert (tmp_path / "page-throughput.png").exists()


def test_a_rate_leaves_out_how_it_begins_and_ends():
    """A slow start and a slow end change nothing of what was done between them."""
    steady = [(10 + second, 100 * second) for second in range(11)]
    assert interpolated_rate(steady) == pytest.approx(100)
    slow_start = [(0, 0), *[(second + 50, count) for second, count in steady[1:]]]
    assert interpolated_rate(slow_start) == pytest.approx(100)


def test_a_percentile_needs_enough_values():
    """Of a hundred values the 99th percentile can be told, the 99.9th cannot."""
    assert [one is None for one in percentiles(range(100))] == [False, False, True]


def test_a_click_is_answered_by_the_first_list_that_covers_it():
    """A list covers its user's clicks of its partition up to the offset that it names, and nobody else's."""
    sent = {"partitions": np.array([0, 0, 1, 0]), "offsets": np.array([5, 9, 5, 12])}
    received = {
        "keys": np.array([b"ada", b"ada", b"bob", b"eve"]),
        "partitions": np.array([0, 0, 1, 0]),
        "offsets": np.array([7, 9, 4, 99]),
        "moments": np.array([100, 200, 300, 400]),
    }
    assert answers(sent, received, [b"ada", b"ada", b"bob", b"ada"]).tolist() == [100, 200, 0, 0]


def test_a_first_click_finds_quiet():
    """First is who finds no list within the interval and nobody waiting; all others are behind one."""
    moments = [10.0, 10.5, 12.0, 30.0, 31.0, 33.0]
    waits = [0.1, 0.6, 0.1, None, 3.0, 0.1]  # the fourth is never answered: all behind it wait for that
    exchange = Exchange(
        users=np.zeros(6, np.int64),
        sent=np.array([round(one * NS) for one in moments]),
        answered=np.array(
            [0 if wait is None else round((at + wait) * NS) for at, wait in zip(moments, waits, strict=True)]
        ),
    )
    found = latencies(exchange, 1.0)
    assert found.first == pytest.approx([0.1])
    assert found.behind == pytest.approx([0.6, 0.1, 3.0, 0.1])
    assert found.unanswered == 1
