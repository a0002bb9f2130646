"""Another text model under a running system: lists go on, and in the end all is as if it had always been there."""

import itertools
import os
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from penchant.encoders.options.text import HashedWordsOptions
from penchant.importing import movielens_click, movielens_item, open_rows
from penchant.streams.codec import encode
from penchant.streams.connection import common_options
from penchant.streams.events import Click, Post
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from penchant.verify import verify
from tests.stage import Stage, environment

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

FILMS, RATINGS = 1_200, 6_000
PAUSE_S = 0.3
AT_ALL_S = 30.0  # within which a list comes, or none does
SIZES = {"old": 128, "new": 192}


class Probes:
    """People who come by all the while, one click each, and how long each of them waits for a list.

    Args:
        stage: where they click.
        films: that they click on.
    """

    def __init__(self, stage, films):
        self.stage = stage
        self.films = films
        self.sent = {}
        self.searched = []
        self.answered = {}
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self.click, self.listen)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Nobody comes any more."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def click(self):
        """Sends a click now and then, and sometimes a search."""
        for number in itertools.count():
            if self.stopping.wait(PAUSE_S):
                return
            user, film = f"probe-{number}", self.films[number % len(self.films)]
            events = [(Topic.CLICKS, Click(event_id=f"{user}-e", user_id=user, item_id=film, action="like"))]
            if number % 5 == 0:
                asked = Post(event_id=f"{user}-s", user_id=user, text="something with ghosts", recommendable=False)
                events.append((Topic.POSTS, asked))
                self.searched.append(user)
            self.sent[user] = time.monotonic()
            self.stage.send(
                Output(topic=self.stage.topic(topic), key=user.encode(), value=encode(one)) for topic, one in events
            )

    def listen(self):
        """Notes when each has a list that a reader of committed records sees."""
        topic = self.stage.topic(Topic.RECOMMENDATIONS)
        options = {"group.id": "nobody", "enable.auto.commit": False, "isolation.level": "read_committed"}
        consumer = Consumer({**common_options(self.stage.settings), **options})
        numbers = self.stage.partitions([Topic.RECOMMENDATIONS])
        consumer.assign([TopicPartition(topic, one.partition, 0) for one in numbers])
        while not self.stopping.is_set():
            for message in consumer.consume(500, 0.1):
                if message.error() is None and message.key():
                    self.answered.setdefault(message.key().decode(), time.monotonic())
        consumer.close()

    def waits(self):
        """How long each has waited, in seconds, until now where there is no list yet."""
        now = time.monotonic()
        return {user: self.answered.get(user, now) - sent for user, sent in list(self.sent.items())}

    def await_all(self, *, since):
        """Waits until everybody who came up to a moment, and somebody behind it, has a list."""
        deadline = time.monotonic() + AT_ALL_S
        while True:
            sent = dict(self.sent)
            late = [user for user, moment in sent.items() if moment > since]
            if late[:1] and not [user for user in sent if user not in self.answered and user <= late[0]]:
                return
            assert time.monotonic() < deadline, "a list does not come at all"
            time.sleep(0.1)


def files_of(folder):
    """Films, and ratings of them in the order of their times."""
    with open_rows(folder / "movies.csv") as rows:
        films = [movielens_item(row) for row in itertools.islice(rows.rows, FILMS)]
    known = {film.item_id for film in films}
    with open_rows(folder / "ratings.csv") as rows:
        clicks = sorted((movielens_click(row) for row in rows.rows), key=lambda click: click.at)
    return films, [click for click in clicks if click.item_id in known][:RATINGS]


def beside(stage, name):
    """A stage on the same topics, with a store of its own and the new text model."""
    text = HashedWordsOptions(kind="hashing", dimension=SIZES["new"])
    encoders = stage.settings.encoders.model_copy(update={"text": text})
    settings = stage.settings.model_copy(update={"data_dir": stage.log_file.parent / name, "encoders": encoders})
    return Stage(settings, stage.log_file.parent / f"log-{name}")


def test_a_text_model_changed_under_clicks(kafka, make_stage, shared_data, measured, tmp_path):
    """Each click gets a list throughout; afterwards the store is that of a fresh run, and the log agrees with it."""
    encoders = {"text": {"kind": "hashing", "dimension": SIZES["old"]}}
    with make_stage(kafka, encoders=encoders) as stage:
        films, ratings = files_of(shared_data / "movielens-small")
        stage.send(Output(topic=stage.topic(Topic.ITEMS), key=one.item_id.encode(), value=encode(one)) for one in films)
        clicks = stage.topic(Topic.CLICKS)
        stage.send(Output(topic=clicks, key=one.user_id.encode(), value=encode(one)) for one in ratings)
        new = beside(stage, "new")
        with stage.worker() as first, new:
            stage.await_settled(first)
            with Probes(stage, [film.item_id for film in films]) as probes:
                probes.await_all(since=time.monotonic())
                before = probes.waits()
                made = remade(stage, first, new, tmp_path)
                assert made["tally"]["items"] >= FILMS
                with new.worker() as second:
                    second.await_ready()
                    probes.await_all(since=time.monotonic())
                    during = probes.waits()
                    assert first.stop() == 0
                    probes.await_all(since=time.monotonic())
                    waits = probes.waits()
                    probes.stop()
                    # Partitions that were the first worker's count as settled until they are the second's.
                    second.await_that(lambda: not unknown(second, probes), "it knows what everybody did", 60)
                    new.await_settled(second)
                    assert second.stop() == 0
        assert waits.keys() <= stage.lists().keys()
        tally = made["tally"]
        items, profiles = (tally[name] / tally[f"{name}_s"] for name in ("items", "profiles"))
        measured(f"reindexing: {items:.0f} items/s, {profiles:.0f} profiles/s, {made['seconds']:.0f} s in all")
        measured(
            f"the longest wait for a list: {max(before.values()):.1f} s before, {max(during.values()):.1f} s until "
            f"both workers ran, {max(waits.values()):.1f} s in all"
        )
        assert verify(new.settings).exact
        compare(new, fresh_run(stage, len(ratings), len(films)), films)


def unknown(worker, probes):
    """Somebody of whom the worker does not know all that they did, or not yet what it is about."""
    for user in probes.sent:
        profile = worker.profile(user) or {"signals": (), "waiting_for": ()}
        if len(profile["signals"]) < 1 + (user in probes.searched) or profile["waiting_for"]:
            return user
    return None


def remade(stage, worker, new, folder):
    """Runs `penchant reindex` beside the worker; gives what it says."""
    old = folder / "old.toml"
    old.write_text(
        f'data_dir = "{stage.settings.data_dir}"\n[encoders.text]\nkind = "hashing"\ndimension = {SIZES["old"]}\n'
        f"[worker]\nhttp_port = {worker.port}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "penchant.cli", "reindex", "--from", str(old), "--json"],
        env={**os.environ, **environment(new.settings)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "start the new worker" in done.stderr
    return msgspec.json.decode(done.stdout)


def fresh_run(stage, ratings, films):
    """A store that the new model has filled from the log alone; its items are there before the first rating."""
    fresh = beside(stage, "fresh")
    with fresh:
        for lane, least in (("content", films), ("interest", ratings)):
            with fresh.worker(lane) as worker:
                worker.await_that(
                    lambda: worker.metric("penchant_records_total", lane=lane) >= least,  # noqa: B023  called within this turn
                    f"the {lane} lane has all partitions",
                )
                fresh.await_settled(worker, lane)
                assert worker.stop() == 0
    return fresh


def compare(new, fresh, films):
    """Both stores hold the same items and profiles: sets exactly, vectors to 1e-5."""
    found, expected = (one.snapshot([film.item_id for film in films]) for one in (new, fresh))
    assert found.items == expected.items
    assert len(found.items) == len(films)
    for item_id, vector in expected.vectors.items():
        np.testing.assert_allclose(found.vectors[item_id], vector, rtol=0, atol=1e-5)
    assert found.profiles.keys() == expected.profiles.keys()
    for user, profile in expected.profiles.items():
        one = found.profiles[user]
        assert (one.state, one.awaits) == (profile.state, profile.awaits)
        for name in ("short", "long", "interest"):
            np.testing.assert_allclose(getattr(one, name), getattr(profile, name), rtol=0, atol=1e-5)
