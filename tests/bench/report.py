"""Results as Markdown and as plots, and the page that shows them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from msgspec import Struct

from tests.bench.result import Cell, Curve, Part, Table

__all__ = ["BEGIN", "END", "Results", "as_markdown", "as_page", "rewrite"]

BEGIN, END = "<!-- bench: written by `make bench` -->", "<!-- bench: end -->"
LARGE, MIDDLE = 100, 10
SIZE_INCHES = (6.4, 4.0)
DPI = 110
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


class Results(Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        command: that made it.
        machine: facts by name.
        parts: measurements.
        seconds: that it took.
    """

    command: str
    machine: Mapping[str, str]
    parts: Sequence[Part]
    seconds: float


def as_markdown(table: Table) -> str:
    """A table under its title."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)]]
    lines += [[shown(cell) for cell in row] for row in table.rows]
    return f"**{table.title}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(cell: Cell) -> str:
    """A figure with as many digits as it deserves."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if cell == int(cell) or abs(cell) >= LARGE:
        return f"{cell:,.0f}"
    return f"{cell:.1f}" if abs(cell) >= MIDDLE else f"{cell:.3g}"


def as_page(results: Results, plots: Mapping[str, str]) -> str:
    """All results.

    Args:
        results: of a run.
        plots: names of files, by plot.
    """
    facts = "\n".join(f"- {name}: {value}" for name, value in results.machine.items())
    parts = [f"`{results.command}`, {results.seconds / 60:.0f} minutes, on this machine:\n\n{facts}\n"]
    for part in results.parts:
        shown_plots = [f"![{part.title}]({plots[plot]})\n" for plot in part.curves if plot in plots]
        parts += [f"### {part.title}\n", *map(as_markdown, part.tables), *shown_plots]
    return "\n".join(parts)


def rewrite(page: Path, results: Results) -> None:
    """Writes anew what stands between two marks of a page, and the plots beside it.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for results between {BEGIN} and {END}")
    plots = {}
    for part in results.parts:
        for plot, curves in part.curves.items():
            plots[plot] = f"{page.stem}-{plot}.png"
            draw(plot, curves, page.with_name(plots[plot]))
    page.write_text(f"{before}{BEGIN}\n\n{as_page(results, plots)}\n{END}{after}")


def draw(plot: str, curves: Sequence[Curve], file: Path) -> None:
    """Draws a plot into a file."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    PLOTS[plot](figure.add_subplot(), curves)
    figure.savefig(file, dpi=DPI)


def draw_throughput(axes: Axes, curves: Sequence[Curve]) -> None:
    """A point for each contestant, the first on top: lengths of bars say nothing on a logarithmic scale."""
    for place, curve in enumerate(reversed(curves)):
        (rate,) = curve.y
        axes.plot(rate, place, "o", color="tab:blue" if "penchant" in curve.name else "tab:gray")
        axes.annotate(f"{rate:,.0f}", (rate, place), (7, -3), textcoords="offset points", fontsize="small")
    axes.set_yticks(range(len(curves)), [curve.name for curve in reversed(curves)])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.margins(x=0.2)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("events a second")


def draw_freshness(axes: Axes, curves: Sequence[Curve]) -> None:
    """How many clicks still wait after a time; logarithmic, so that the slowest show."""
    kinds = list(dict.fromkeys(kind_of(curve) for curve in curves))
    for curve in curves:
        waiting = [100 - share for share in curve.y]
        axes.plot(
            curve.x, waiting, label=curve.name, linestyle=style_of(curve), color=f"C{kinds.index(kind_of(curve))}"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_xlabel("ms since the click")
    axes.set_ylabel("% of first clicks that wait")
    axes.grid(alpha=0.3)
    explain(axes)


def draw_catalogue(axes: Axes, curves: Sequence[Curve]) -> None:
    """Rates by size, both on logarithmic scales."""
    for curve in curves:
        axes.plot(curve.x, curve.y, marker="o", label=curve.name, linestyle=style_of(curve))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({size for curve in curves for size in curve.x}), minor=False)
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_xlabel("items of the catalogue")
    axes.set_ylabel("users served a second")
    axes.grid(alpha=0.3)
    explain(axes)


def style_of(curve: Curve) -> str:
    """Others are dashed."""
    return "-" if "penchant" in curve.name else "--"


def kind_of(curve: Curve) -> str:
    """What different contestants were asked for alike, and are shown in the same colour for."""
    return curve.name.rpartition(", ")[-1]


def explain(axes: Axes) -> None:
    """Names the curves, above all of them: within the plot there is no place that none of them takes."""
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)


PLOTS: Mapping[str, Callable[[Axes, Sequence[Curve]], None]] = {
    "throughput": draw_throughput,
    "freshness": draw_freshness,
    "catalogue": draw_catalogue,
}
