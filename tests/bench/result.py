"""What a measurement gives: tables of figures, curves to draw, and how long it took. One shape for all of them."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

__all__ = ["PERCENTILES", "Cell", "Curve", "Part", "Table", "interpolated_rate", "median", "percentiles", "window"]

Cell = str | float | None
PERCENTILES = (50, 99, 99.9)
WINDOW = (0.1, 0.9)  # of the records: neither starting nor ending counts


class Table(Struct, frozen=True, kw_only=True):
    """Figures under a heading.

    Attributes:
        columns: what each holds, with its unit; the first names the rows.
        rows: None stands for what was not measured.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Curve(Struct, frozen=True, kw_only=True):
    """Points to draw."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Part(Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        key: as it is asked for.
        title: what was measured.
        tables: of it.
        curves: of it, by the plot that they belong into.
        seconds: that it took, everything included.
    """

    key: str
    title: str
    tables: Sequence[Table]
    curves: Mapping[str, Sequence[Curve]] = {}
    seconds: float


def interpolated_rate(marks: Sequence[tuple[float, float]]) -> float:
    """Records a second between a tenth and nine tenths of the records counted last.

    Args:
        marks: moments, seconds, and how many records were done by then.
    """
    begin, end = window(marks)
    total = marks[-1][1]
    return (WINDOW[1] - WINDOW[0]) * total / max(end - begin, 1e-9)


def window(marks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """When a tenth and nine tenths of the records counted last were done."""
    moments, counts = np.array(marks, float).T
    # Counts that stand still say nothing of when the next one came: the last of equal ones does.
    kept = np.append(np.diff(counts) > 0, True)
    begin, end = np.interp([share * counts[-1] for share in WINDOW], counts[kept], moments[kept])
    return float(begin), float(end)


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def percentiles(values: Sequence[float]) -> list[float | None]:
    """The `PERCENTILES`, each None where there are too few values to tell it from the largest."""
    return [
        float(np.percentile(values, share)) if len(values) * (100 - share) >= 100 else None for share in PERCENTILES
    ]
