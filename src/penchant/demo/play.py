"""What happens on the stage: a catalogue, the scenes, and the proof."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penchant.demo.catalogue import build_catalogue
from penchant.demo.proof import Burst, Comparison, build_burst, compare, expected_of
from penchant.demo.scenes import Scene, build_scenes
from penchant.demo.screen import Board, Screen, milliseconds, percentile
from penchant.demo.stage import Heard, Listener, Worker
from penchant.errors import PenchantError
from penchant.profile.identity import Identity
from penchant.settings import Settings
from penchant.streams.client import Event, Publisher
from penchant.streams.content import LANE as CONTENT_LANE
from penchant.streams.events import Click, MediaUpload, Post, Recommendations
from penchant.streams.topics import Topic

__all__ = ["NotExact", "Play"]

LIST_TIMEOUT_S = 60.0
EMBED_TIMEOUT_S = 180.0
DRAIN_TIMEOUT_S = 60.0
POLL_S = 0.1
INDENT = (0, 0, 0, 2)

STEP_PAUSE_S = 0.8  # between what a user does, to see the list change
SCENE_PAUSE_S = 1.5  # to read a list
BURST_S = 4.0  # over which the proof's events are sent
KILL_AFTER = 0.35  # of them
RUSH = 60  # sent without a pause just before, so that the worker is at work when it is killed

CLICK = "a click"
CONTENT = "a post, a search, a picture or a sound (embedded first)"
BURST = "a click among many at once, while the worker lives"


class NotExact(PenchantError):
    """The profiles are not what was sent: a promise is broken."""


class Play:
    """Plays the demo; a context manager, while the worker lives.

    Args:
        screen: to show it on.
        settings: of the demo.
        worker: that has been started.
    """

    def __init__(self, screen: Screen, settings: Settings, worker: Worker) -> None:
        self._screen = screen
        self._settings = settings
        self._worker = worker
        self._identity = Identity(settings.id_key.get_secret_value())
        self._publisher = Publisher(settings)
        self._listener = Listener(settings)
        self._titles: dict[str, str] = {}
        self._sent: list[Event] = []
        self._latencies_ms: dict[str, list[float]] = {CLICK: [], CONTENT: [], BURST: []}

    def __enter__(self) -> Self:
        self._publisher.__enter__()
        self._listener.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.__exit__(kind, error, trace)
        self._publisher.__exit__(kind, error, trace)

    def all(self) -> None:
        """The whole of it.

        Raises:
            NotExact: an event was lost, counted twice or altered.
        """
        items = self._publish_catalogue()
        scenes = build_scenes(now_ms())
        for number, scene in enumerate(scenes, 1):
            self._screen.heading(f"{number} of {len(scenes)}  {scene.title}")
            self._play(scene)
            self._screen.pause(SCENE_PAUSE_S)
        self._screen.heading("The proof: some events sent twice, and the worker killed in mid-stream")
        self._prove(build_burst(items, now_ms()))

    def _publish_catalogue(self) -> list[str]:
        """Publishes the items, waits until all are embedded, and gives their ids."""
        with self._screen.doing("A worker starts, in a process of its own") as doing:
            items, entries = build_catalogue()
            for item in items:
                self._publisher.send(item)
            self._publisher.flush()
            self._worker.await_ready()
            deadline = time.monotonic() + EMBED_TIMEOUT_S
            topic = self._settings.prefixed(Topic.ITEMS)
            while (done := self._worker.handled(CONTENT_LANE, topic)) < len(items):
                if time.monotonic() > deadline:
                    raise PenchantError(
                        "The worker has not embedded the catalogue in time", hint="worker.log may say why."
                    )
                doing.update(f"The worker loads its encoders, and embeds the catalogue: {done} of {len(items)} items")
                time.sleep(POLL_S)
            pictures = sum(entry.picture for entry in entries.values())
            sounds = sum(entry.sound for entry in entries.values())
            doing.update(f"{len(items)} items embedded by a worker, {pictures} with a picture, {sounds} with a sound")
        self._titles = {item_id: entry.title for item_id, entry in entries.items()}
        return list(entries)

    def _play(self, scene: Scene) -> None:
        """One scene: each event is published, and the list waited for that takes it into account."""
        board = Board(scene, self._titles)
        with self._screen.board(board):
            for number, step in enumerate(scene.steps):
                if number:
                    self._screen.pause(STEP_PAUSE_S)
                if step.label:
                    self._titles[self._identity.own_item(scene.user, step.event.event_id)] = step.label
                board.begin(step.says)
                board.follow(*self._send_and_hear(step.event))

    def _send_and_hear(self, event: Click | Post | MediaUpload) -> tuple[Recommendations, float]:
        """Publishes an event; gives the list that it led to, and the milliseconds from sending to hearing."""
        is_click = isinstance(event, Click)
        since, sent_ms = len(self._listener.heard), time.time_ns() / 1e6
        self._send(event)

        def follows(found: Recommendations) -> bool:
            if found.user_id != event.user_id or found.timings is None or found.timings.recorded < int(sent_ms):
                return False
            # A list may come before a post's content is embedded, and knows nothing of it: one that does gives it as
            # a reason. The script's users have so few events by then that each is among the reasons of some item.
            return is_click or any(why.event_id == event.event_id for item in found.items for why in item.because)

        heard = self._hear(follows, since)
        latency_ms = heard.at_ms - sent_ms
        self._latencies_ms[CLICK if is_click else CONTENT].append(latency_ms)
        return heard.list, latency_ms

    def _hear(self, wanted: Callable[[Recommendations], bool], since: int) -> Heard:
        """The first list wanted, from the one numbered `since` on.

        Raises:
            PenchantError: the worker has ended, or none comes.
        """
        deadline = time.monotonic() + LIST_TIMEOUT_S
        while (heard := self._listener.wait(wanted, since=since, timeout_s=1.0)) is None:
            self._worker.check()
            if time.monotonic() > deadline:
                raise PenchantError(f"No list came within {LIST_TIMEOUT_S:g} s", hint="worker.log may say why.")
        return heard

    def _send(self, event: Click | Post | MediaUpload) -> None:
        self._publisher.send(event)
        self._sent.append(event)

    def _prove(self, burst: Burst) -> None:
        """Sends many events, kills the worker among them, and compares all profiles with all that was sent.

        Raises:
            NotExact: they differ.
        """
        kill_after = round(KILL_AFTER * len(burst.sends))
        with self._screen.doing("Events flow") as doing:
            since, pause_s = len(self._listener.heard), BURST_S / (len(burst.sends) - RUSH)
            for number, click in enumerate(burst.sends):
                if number == kill_after:
                    self._worker.kill()
                    killed_ms = time.time_ns() / 1e6
                    self._worker.start()
                    doing.update("Events flow on; the worker is killed, and started again")
                self._send(click)
                if not kill_after - RUSH <= number < kill_after:
                    time.sleep(pause_s)
            self._publisher.flush()
            self._worker.await_ready()
            back = self._hear(lambda found: found.timings is not None and found.timings.ranked > killed_ms, since)
            doing.update("The worker catches up")
            self._await_drained(burst)
            doing.update("The worker has caught up")
        expected = expected_of(self._sent, self._identity, self._settings.profile)
        result = compare(expected, {user: self._worker.signals_of(user) for user in expected})
        self._latencies_ms[BURST] += [
            heard.at_ms - heard.list.timings.recorded
            for heard in self._listener.heard[since:]
            if heard.list.timings is not None and heard.at_ms < killed_ms
        ]
        self._screen.show(self._verdict(burst, kill_after, (back.at_ms - killed_ms) / 1_000, result))
        self._screen.heading("From event to list, as a consumer measures it")
        self._screen.show(self._latency_table())
        if not result.exact:
            raise NotExact(
                f"{result.lost} signals lost, {result.twice} counted twice, {result.altered} altered",
                hint="This should never happen: please report it, with the logs.",
            )

    def _await_drained(self, burst: Burst) -> None:
        """Waits until each user's closing event is in their profile, and with it all that was sent before.

        Ends after a while in any case: what is missing then is what the comparison finds.
        """
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        waiting = dict(burst.closing)
        while waiting and time.monotonic() < deadline:
            for user, event_id in tuple(waiting.items()):
                if any(signal["event_id"] == event_id for signal in self._worker.signals_of(user)):
                    del waiting[user]
            time.sleep(POLL_S)

    def _verdict(self, burst: Burst, kill_after: int, away_s: float, result: Comparison) -> Padding:
        table = Table.grid(padding=(0, 3))
        table.add_row("events sent", f"{burst.events}, {burst.twice} of them twice")
        table.add_row("worker killed (-9)", f"after {kill_after} of {len(burst.sends)} records")
        table.add_row("worker restarted", f"first list {away_s:.1f} s after the kill; events flowed on meanwhile")
        table.add_row(
            "compared", f"{result.signals} signals of {result.users} users, with what was sent, field by field"
        )
        for name, count in (("lost", result.lost), ("counted twice", result.twice), ("altered", result.altered)):
            table.add_row(Text(name, "bold"), Text(str(count), "bold red" if count else "bold green"))
        return Padding(table, INDENT)

    def _latency_table(self) -> Padding:
        table = Table(box=None, padding=(0, 3), pad_edge=False, header_style="bold")
        table.add_column("after", no_wrap=True)
        for name in ("p50", "p99", "lists"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, found in self._latencies_ms.items():
            if found:
                p50, p99 = (milliseconds(percentile(found, share)) for share in (0.5, 0.99))
                table.add_row(name, p50, p99, str(len(found)))
        return Padding(table, INDENT)


def now_ms() -> int:
    """The wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
