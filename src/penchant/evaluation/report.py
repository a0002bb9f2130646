"""A summary written down: a page with plots that opens without a network, a table for documentation, or JSON."""

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penchant.errors import ConfigurationError
from penchant.evaluation.compare import CONFIDENCE, DRAWS, Interval
from penchant.evaluation.protocol import NEGATIVES
from penchant.evaluation.summary import Figures, Scope, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["as_html", "as_json", "as_markdown", "writer_for"]

COLUMNS = ("NDCG@10", "HR@10", "MRR@10", "AUC", "coverage", "novelty", "diversity", "calibration")
AWAY = "NDCG@10 on return"
DRAWN = 8  # curves that a plot can show and an eye tell apart
GAINS = 40

NOTE = (
    f"Intervals hold {CONFIDENCE:.0%} of {DRAWS:,} draws of users. Novelty in bits, calibration as divergence in nats: "
    f"0 is best. AUC and ROC are against {NEGATIVES} sampled negatives a probe, averaged over probes."
)
GAIN_NOTE = (
    "Of features, and of configurations' own scores, from their percentiles among a probe's item and its sampled "
    "negatives."
)

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
table { display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto }
small, figcaption { color: #555 }
figure { margin: 1.5rem 0 }
select { font: inherit; max-width: 22rem }
"""

# Reads the pairs from the page's own data: any two configurations, either way round.
SCRIPT = """
const pairs = JSON.parse(document.getElementById("pairs").textContent);
const [one, other] = ["one", "other"].map((id) => document.getElementById(id));
const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(4);
function show() {
  const lines = Object.entries(pairs).map(([scope, found]) => {
    for (const [a, b, value, low, high, onlyA, onlyB, p] of found) {
      const turned = b === one.value && a === other.value;
      if (!turned && !(a === one.value && b === other.value)) continue;
      const [v, l, h, x, y] = turned ? [-value, -high, -low, onlyB, onlyA] : [value, low, high, onlyA, onlyB];
      return `${scope}: NDCG@10 ${signed(v)} (95 %: ${signed(l)} to ${signed(h)}); hits that only the one had ${x}, ` +
        `only the other ${y}, McNemar p = ${p < 1e-4 ? p.toExponential(1) : p.toFixed(4)}`;
    }
    return `${scope}: choose two`;
  });
  document.getElementById("difference").replaceChildren(...lines.map((line) => {
    const shown = document.createElement("li");
    shown.textContent = line;
    return shown;
  }));
}
one.addEventListener("change", show);
other.addEventListener("change", show);
show();
"""


def writer_for(path: Path) -> Callable[[Summary], str]:
    """What writes a summary for a file, by its suffix.

    Raises:
        ConfigurationError: the suffix is unknown, or what draws is not installed.
    """
    writers: Mapping[str, Callable[[Summary], str]] = {".html": as_html, ".md": as_markdown, ".json": as_json}
    if path.suffix not in writers:
        raise ConfigurationError(f"{path.name}: unknown kind of report", hint="Known are .html, .md and .json.")
    if path.suffix == ".html":
        drawing()
    return writers[path.suffix]


def as_json(summary: Summary) -> str:
    """The whole summary."""
    return msgspec.json.encode(summary).decode() + "\n"


def as_markdown(summary: Summary) -> str:
    """The table of all configurations, the best first."""
    header, *rows = table(summary)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return f"{heading(summary)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_html(summary: Summary) -> str:
    """One page with everything in it.

    Raises:
        ConfigurationError: what draws is not installed.
    """
    title = escape(f"penchant evaluate: {summary.title}")
    scopes = {"all": summary.everything} | ({"on return": summary.absence} if summary.absence else {})
    names = [one.name for one in ranked(summary.everything)]
    seconds = [("configurations", "to score, s", "to learn, s")]
    seconds += [(name, f"{scoring:.1f}", f"{learning:.1f}") for name, (scoring, learning) in summary.seconds.items()]
    gains = [("feature", "bits", "of what there is to tell")]
    gains += [(gain.feature, f"{gain.bits:.4f}", f"{gain.share:.1%}") for gain in summary.gains[:GAINS]]
    parts = [
        f"<h1>{title}</h1><p>{escape(heading(summary))}</p>",
        as_table(table(summary)),
        f"<p><small>{NOTE}</small></p>",
        *(figure(draw, summary) for draw in (draw_ndcg, draw_sliding, draw_roc, draw_lists)),
        f"<h2>Any two</h2><p>{selection('one', names)} against {selection('other', names[1:] + names[:1])}</p>",
        '<ul id="difference"></ul>',
    ]
    for name, scope in scopes.items():
        parts += [f"<h2>At k, {name}</h2>", as_table(at_lengths(scope))]
    pairs = embedded({name: flat(scope) for name, scope in scopes.items()})
    parts += [
        f"<h2>Information gain</h2><p>{GAIN_NOTE}</p>",
        as_table(gains),
        "<h2>Time</h2>",
        as_table(seconds),
        f'<script type="application/json" id="pairs">{pairs}</script>',
        f"<script>{SCRIPT}</script>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def heading(summary: Summary) -> str:
    """What was evaluated, in a sentence or two."""
    rules, away = summary.rules, summary.absence
    said = (
        f"{summary.title}: {summary.events:,} events of {summary.users:,} users, {summary.listed:,} items listed. "
        f"{summary.everything.probes:,} of {summary.eligible:,} probes in the {rules.half} half, seed {rules.seed}."
    )
    hours = rules.absence_ms / 3_600_000
    return said + (f" On return: {away.probes:,} positive events {hours:g} h or more after the last." if away else "")


def ranked(scope: Scope) -> list[Figures]:
    """The configurations, the best first."""
    return sorted(scope.figures, key=lambda one: (-one.ndcg.value, one.name))


def table(summary: Summary) -> list[list[str]]:
    """A header, and a row a configuration, the best first."""
    away = {one.name: one.ndcg for one in summary.absence.figures} if summary.absence else {}
    rows = [["configuration", COLUMNS[0], *([AWAY] if away else []), *COLUMNS[1:]]]
    for one in ranked(summary.everything):
        figures = (f"{one.at['HR@10']:.3f}", f"{one.at['MRR@10']:.4f}", f"{one.auc:.3f}", f"{one.coverage:.1%}")
        lists = (
            f"{one.novelty:.1f}",
            f"{one.diversity:.2f}",
            "" if one.calibration is None else f"{one.calibration:.2f}",
        )
        rows.append([one.name, *map(told, [one.ndcg, *([away[one.name]] if away else [])]), *figures, *lists])
    return rows


def told(interval: Interval) -> str:
    """A figure with its interval."""
    return f"{interval.value:.4f} ({interval.low:.4f}-{interval.high:.4f})"


def at_lengths(scope: Scope) -> list[list[str]]:
    """Every metric at every length, a row a configuration."""
    figures = ranked(scope)
    return [["configuration", *figures[0].at], *([one.name, *(f"{v:.4f}" for v in one.at.values())] for one in figures)]


def flat(scope: Scope) -> list[tuple[Any, ...]]:
    """The pairs of a scope as the page's script reads them."""
    return [
        (one.one, one.other, *msgspec.structs.astuple(one.difference), one.only_one, one.only_other, one.p)
        for one in scope.pairs
    ]


def embedded(value: object) -> str:
    """JSON that can stand within a script element, whatever names it holds."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first a header."""
    header, *body = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"


def selection(name: str, options: Sequence[str]) -> str:
    """A choice of one, the first to begin with."""
    return f'<select id="{name}">{"".join(f"<option>{escape(option)}</option>" for option in options)}</select>'


def drawing() -> Any:
    """Matplotlib's figure, without its global state.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an optional package
    except ImportError:
        raise ConfigurationError(
            "An HTML report needs the package matplotlib", hint='`pip install "penchant[evaluation]"` installs it.'
        ) from None
    return Figure


def figure(draw: Callable[["Axes", Summary], str], summary: Summary) -> str:
    """A plot as inline SVG, with its caption."""
    shape = drawing()(figsize=(9, max(3.2, 0.28 * len(summary.everything.figures)) if draw is draw_ndcg else 4.2))
    axes = shape.add_subplot()
    caption = draw(axes, summary)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    shape.tight_layout()
    drawn = io.StringIO()
    shape.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{escape(caption)}</figcaption></figure>"


def draw_ndcg(axes: "Axes", summary: Summary) -> str:
    """NDCG@10 with intervals, both scopes."""
    figures = ranked(summary.everything)[::-1]
    places = {one.name: place for place, one in enumerate(figures)}
    scopes = [("all", summary.everything, 0.12)] + ([("on return", summary.absence, -0.12)] if summary.absence else [])
    for label, scope, shift in scopes:
        values = [one.ndcg for one in scope.figures]
        axes.errorbar(
            [one.value for one in values],
            [places[one.name] + shift for one in scope.figures],
            xerr=[[one.value - one.low for one in values], [one.high - one.value for one in values]],
            fmt="o",
            capsize=2,
            label=label,
        )
    axes.set_yticks(range(len(figures)), [one.name for one in figures])
    axes.set_xlabel("NDCG@10")
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    return "NDCG@10 with 95 % intervals, over the sample and over the events that end an absence."


def draw_sliding(axes: "Axes", summary: Summary) -> str:
    """NDCG@10 over the stream."""
    times = [datetime.fromtimestamp(time / 1_000, UTC) for time in summary.times]
    for one in ranked(summary.everything)[:DRAWN]:
        axes.plot(times, summary.sliding[one.name], label=one.name, linewidth=1.2)  # type: ignore[arg-type]  # dates do
    axes.set_ylabel("NDCG@10")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    return f"NDCG@10 over sliding windows of {summary.window} probes, the best {DRAWN} configurations."


def draw_roc(axes: "Axes", summary: Summary) -> str:
    """ROC curves."""
    for one in sorted(summary.everything.figures, key=lambda one: -one.auc)[:DRAWN]:
        axes.plot([at / (len(one.roc) - 1) for at in range(len(one.roc))], one.roc, label=f"{one.name} {one.auc:.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(frameon=False, fontsize="small")
    return f"ROC curves against sampled negatives with their areas, the largest {DRAWN}."


def draw_lists(axes: "Axes", summary: Summary) -> str:
    """Novelty against NDCG@10, with coverage as size."""
    for one in summary.everything.figures:
        axes.scatter(one.novelty, one.ndcg.value, s=20 + 900 * one.coverage, alpha=0.6)
        axes.annotate(
            one.name, (one.novelty, one.ndcg.value), fontsize="x-small", xytext=(4, 4), textcoords="offset points"
        )
    axes.set_xlabel("novelty, bits")
    axes.set_ylabel("NDCG@10")
    axes.set_ylim(bottom=0)
    return "What is right against what is new; the area of a dot grows with how much of the catalogue was listed."
