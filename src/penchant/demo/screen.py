"""What the demo shows: one scene a screen of some twenty-five lines, on a terminal live, elsewhere as plain text."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from penchant.demo.scenes import Scene
from penchant.streams.events import Because, Recommendations, Recommended

__all__ = ["Board", "Screen", "milliseconds", "percentile"]

PLAIN_WIDTH = 100
ROWS = 8
BAR = 12
COLOURS = {"text": "cyan", "image": "green", "audio": "magenta", "others": "yellow"}
BLOCKS = {"text": "█", "image": "▓", "audio": "▒", "others": "░"}  # told apart without colours, too
OTHERS = "others"  # what other users like, and in which order
PAST = {
    "view": "viewed",
    "click": "clicked",
    "like": "liked",
    "save": "saved",
    "post": "wrote",
    "upload": "uploaded",
    "search": "searched for",
}


class Screen:
    """Writes to standard output; a terminal gets colours, live tables, and time to read.

    Attributes:
        live: whether a person watches.
    """

    def __init__(self) -> None:
        self._console = Console(markup=False, highlight=False, emoji=False)
        self.live = self._console.is_terminal
        if not self.live:
            self._console = Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)

    def say(self, text: str, style: str = "") -> None:
        """A line, which is not broken: it may hold a path."""
        self._console.print(text, style=style, soft_wrap=True)

    def show(self, *parts: RenderableType) -> None:
        """Anything, one below the other."""
        self._console.print(Group(*parts))

    def heading(self, text: str) -> None:
        """Begins a part of the demo."""
        self._console.print()
        self._console.print(Rule(Text(text, "bold"), align="left", style="dim"))

    def pause(self, seconds: float) -> None:
        """Time to read, where a person watches."""
        if self.live:
            time.sleep(seconds)

    @contextmanager
    def doing(self, what: str) -> Iterator["Doing"]:
        """Shows that something takes its time, and afterwards how long it took."""
        started = time.monotonic()
        doing = Doing(self._console, what, live=self.live)
        with doing.shown():
            yield doing
        self._console.print(f"  ✓ {doing.text}  ({time.monotonic() - started:.1f} s)", style="dim")

    @contextmanager
    def board(self, board: "Board") -> Iterator[None]:
        """Shows a board: live, as it changes; elsewhere once, as it is in the end."""
        if not self.live:
            yield
            self._console.print(board)
            return
        with Live(board, console=self._console, refresh_per_second=10):
            yield


class Doing:
    """Something that takes its time.

    Attributes:
        text: what it is; may change while it lasts.
    """

    def __init__(self, console: Console, text: str, *, live: bool) -> None:
        self._status = console.status(text) if live else None
        self.text = text

    def update(self, text: str) -> None:
        """Says it anew."""
        self.text = text
        if self._status is not None:
            self._status.update(text)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Turns a spinner, on a terminal."""
        if self._status is None:
            yield
            return
        with self._status:
            yield


class Board:
    """A scene: what the user does, line by line, and the list that follows.

    Args:
        scene: to show.
        titles: of items, by id.
    """

    def __init__(self, scene: Scene, titles: Mapping[str, str]) -> None:
        self._scene = scene
        self._titles = titles
        self._done: list[Text] = []
        self._now: str = ""
        self._list: Recommendations | None = None

    def begin(self, says: str) -> None:
        """The user does something."""
        self._now = says

    def follow(self, found: Recommendations, latency_ms: float) -> None:
        """The list that followed, and how soon."""
        line = Text(f"  {self._scene.user.capitalize()} {self._now}  ", no_wrap=True, overflow="ellipsis")
        line.append(f"→ list after {milliseconds(latency_ms)}", "green")
        if found.items:
            line.append(f", led by “{self._title(found.items[0].item_id)}”", "green")
        self._done.append(line)
        self._now = ""
        self._list = found

    def __rich__(self) -> RenderableType:
        """The board as it is now."""
        parts: list[RenderableType] = [Text(self._scene.story, "italic"), *self._done]
        if self._now:
            parts.append(Text(f"  {self._scene.user.capitalize()} {self._now} …"))
        if self._list is not None:
            parts.append(self._table(self._list))
        return Group(*parts)

    def _table(self, found: Recommendations) -> Table:
        name = self._scene.user.capitalize()
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", expand=True)
        table.add_column(f"  for {name}", ratio=6, no_wrap=True, overflow="ellipsis")
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("of which", no_wrap=True, width=BAR)
        for origin, colour in COLOURS.items():
            table.add_column(Text(origin, colour), justify="right", no_wrap=True)
        table.add_column(f"because {name}", ratio=5, no_wrap=True, overflow="ellipsis", style="dim")
        whole = max((above_zero(by_origin(item)) for item in found.items[:ROWS]), default=0)
        for place, item in enumerate(found.items[:ROWS], 1):
            origins = by_origin(item)
            parts = [Text(share(origins[origin]), colour) for origin, colour in COLOURS.items()]
            because = self._because(item.because[0]) if item.because else ""
            title = f"  {place}. {self._title(item.item_id)}"
            table.add_row(title, f"{item.score:.2f}", bar(origins, whole), *parts, because)
        return table

    def _title(self, item_id: str) -> str:
        return self._titles.get(item_id, item_id)

    def _because(self, why: Because) -> str:
        return f"{PAST.get(why.action, why.action)} {self._title(why.item_id)}"


def by_origin(item: Recommended) -> dict[str, float]:
    """A score by what speaks: the item's words, its picture, its sound, and other users."""
    origins = dict.fromkeys(COLOURS, 0.0)
    for feature, part in item.parts.items():
        modality = feature.partition("_")[0]
        origins[modality if modality in origins else OTHERS] += part
    return origins


def above_zero(origins: Mapping[str, float]) -> float:
    """All that speaks for an item, without what speaks against it."""
    return sum(max(0.0, part) for part in origins.values())


def bar(origins: Mapping[str, float], whole: float) -> Text:
    """What speaks for an item as a bar; a whole bar is what speaks for the item that has most of it."""
    drawn, filled = Text(), 0.0
    for origin, part in origins.items():
        if part > 0:
            blocks = round(BAR * (filled + part) / whole) - round(BAR * filled / whole)
            drawn.append(BLOCKS[origin] * blocks, COLOURS[origin])
            filled += part
    return drawn


def share(part: float) -> str:
    """A part of a score in two digits; nothing where they would be zero."""
    return f"{part:.2f}".replace("0.", ".") if round(part, 2) else ""


def milliseconds(value: float) -> str:
    """A time span."""
    return f"{value:,.0f} ms"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
