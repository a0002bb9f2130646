"""`make bench`: everything that is measured, side by side in one run, which ends by itself."""

import argparse
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from penchant.broker import LocalBroker
from tests.bench import catalogues, footprint, freshness, report, starting, throughput
from tests.bench.facts import machine
from tests.bench.report import Results, as_page
from tests.bench.result import Part
from tests.bench.rig import FULL, QUICK, Rig, Sizes

MANY_PROFILES = 1_000_000

MEASUREMENTS: Mapping[str, tuple[str, Callable[[Rig], Part]]] = {
    "e": ("freshness", freshness.measure),
    "f": ("catalogues", catalogues.measure),
    "g": ("footprint", footprint.measure),
    "h": ("start-up", starting.measure),
}
KEYS = (*throughput.KEYS, *MEASUREMENTS)


def main() -> None:
    """Measures what is asked for."""
    given = arguments()
    sizes = QUICK if given.quick else FULL
    if given.full:
        sizes = msgspec.structs.replace(sizes, stored=MANY_PROFILES)
    # Where results are put is nobody's concern who repeats it.
    command = shlex.join(
        ["python", "-m", "tests.bench", *(Path(one).name if "/" in one else one for one in sys.argv[1:])]
    )
    results, failures = perform(command, sizes, given.only)
    text = as_page(results, {})
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    if given.report:
        report.rewrite(given.report, results)
    sys.stdout.write(f"{text}\n")
    if failures:
        sys.exit(f"not measured: {', '.join(failures)}")


def perform(command: str, sizes: Sizes, keys: set[str]) -> tuple[Results, list[str]]:
    """Measures some of `KEYS`, one behind the other; names what could not be measured, which costs the others nothing.

    Returns:
        What was found, and the names of what failed.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}")

    facts = machine()
    parts: list[Part] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="penchant-bench-") as folder:
        say("starting Kafka")
        broker = LocalBroker.start(Path(folder) / "broker", 0, "kafka", say=lambda _: None)
        try:
            rig = Rig(broker=broker, folder=Path(folder), sizes=sizes, say=say)
            wanted = {name: measure for key, (name, measure) in MEASUREMENTS.items() if key in keys}
            if compared := keys.intersection(throughput.KEYS):
                wanted = {"throughput": partial(throughput.measure, keys=compared), **wanted}
            for name, measure in wanted.items():
                say(name)
                try:
                    parts.append(measure(rig))
                except Exception:  # noqa: BLE001  whatever it is, what others take minutes for is not lost
                    say(f"{name} failed:\n{traceback.format_exc()}")
                    failures.append(name)
        finally:
            broker.kill()  # nobody reads its records again
    for part in parts:
        say(f"{part.title} took {part.seconds:.0f} s")
    return Results(command=command, machine=facts, parts=parts, seconds=time.monotonic() - began), failures


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measures penchant beside ordinary solutions.")
    parser.add_argument("--quick", action="store_true", help="small sizes, for trying: the figures mean little")
    parser.add_argument("--full", action="store_true", help=f"start up after {MANY_PROFILES:,} profiles")
    parser.add_argument("--only", type=chosen, default=set(KEYS), help="some measurements alone, such as a,c,e")
    parser.add_argument("--json", type=Path, help="file for all results")
    parser.add_argument("--report", type=Path, help="page whose results are written anew, with plots beside it")
    return parser.parse_args()


def chosen(text: str) -> set[str]:
    """Keys with commas between.

    Raises:
        ArgumentTypeError: there is no such measurement.
    """
    keys = {key.strip() for key in text.split(",") if key.strip()}
    if unknown := keys.difference(KEYS):
        raise argparse.ArgumentTypeError(f"no such measurement: {', '.join(sorted(unknown))}; known: {', '.join(KEYS)}")
    return keys


if __name__ == "__main__":
    main()
