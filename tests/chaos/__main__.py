"""The long run: `make chaos EVENTS=1000000 FAULTS=100 SEED=1`. Prints the table; exits with 1 if anything is wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.run import perform, table

parser = argparse.ArgumentParser(prog="make chaos", description="Faults of all kinds under traffic, on real parts.")
parser.add_argument("--events", type=int, default=100_000, help="to send")
parser.add_argument("--faults", type=int, default=40, help="to strike with")
parser.add_argument("--seed", type=int, default=1, help="of traffic and faults")
given = parser.parse_args()
with tempfile.TemporaryDirectory(prefix="penchant-chaos-") as folder:
    outcomes = perform(
        Path(folder),
        seed=given.seed,
        events=given.events,
        faults=given.faults,
        say=Console(stderr=True, highlight=False).print,
    )
sys.stdout.write(table(outcomes) + "\n")
sys.exit(0 if all(outcome.verdict.exact for outcome in outcomes) else 1)
