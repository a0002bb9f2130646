"""The long run: `make chaos EVENTS=1000000 FAULTS=100 SEED=1`. Prints the table; exits with 1 if anything is wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from penchant.broker import LocalBroker
from tests.chaos.contrast import contrast
from tests.chaos.run import contrast_table, endings, endings_table, perform, table

CONTRAST_PART = 100  # of the events: the ordinary agent is slow
CONTRAST_FAULTS = 6

parser = argparse.ArgumentParser(prog="make chaos", description="Faults of all kinds under traffic, on real parts.")
parser.add_argument("--events", type=int, default=100_000, help="to send")
parser.add_argument("--faults", type=int, default=40, help="to strike with")
parser.add_argument("--seed", type=int, default=1, help="of traffic and faults")
given = parser.parse_args()
say = Console(stderr=True, highlight=False).print
with tempfile.TemporaryDirectory(prefix="penchant-chaos-") as folder:
    outcomes = perform(
        Path(folder),
        seed=given.seed,
        events=given.events,
        faults=given.faults,
        say=say,
    )
    with LocalBroker.start(Path(folder) / "broker", 0, "kafka") as broker:
        ended = endings(broker, Path(folder) / "endings", say)
    say("an ordinary agent, for contrast")
    other = contrast(
        Path(folder) / "contrast", seed=given.seed, events=given.events // CONTRAST_PART, faults=CONTRAST_FAULTS
    )
sys.stdout.write(f"{table(outcomes)}\n\n{endings_table(ended)}\n\n{contrast_table(other)}\n")
sys.exit(0 if all(outcome.verdict.exact for outcome in outcomes) else 1)
