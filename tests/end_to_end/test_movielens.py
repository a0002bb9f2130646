"""MovieLens, from the files to profiles and lists: the result is that of an offline computation, however it came."""

import csv
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from penchant.importing import movielens_click, movielens_item, open_rows
from penchant.streams.codec import encode
from penchant.streams.records import Output
from penchant.streams.topics import Topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

ITEMS, EVENTS, USERS = 9_742, 100_836, 610
NEWEST = 192
HOUR_MS = 3_600_000
SHORT_MS, LONG_MS, SHARE_AT = 8 * HOUR_MS, 50 * 24 * HOUR_MS, 3.0
KILLS = 3


class Offline:
    """What the CSV files say each profile must be, computed without any of the project's code.

    Attributes:
        signals: by user, newest first: (time, event id, item, action, weight).
    """

    def __init__(self, folder):
        everything = defaultdict(list)
        with (folder / "ratings.csv").open() as file:
            for row in csv.DictReader(file):
                weight = 2.0 * (2 * (float(row["rating"]) - 0.5) / (5.0 - 0.5) - 1)
                name = f"ml-{row['userId']}-{row['movieId']}"
                everything[row["userId"]].append((int(row["timestamp"]) * 1_000, name, row["movieId"], "rate", weight))
        self.signals = {user: sorted(signals, reverse=True)[:NEWEST] for user, signals in everything.items()}
        self.items = {signal[2] for signals in self.signals.values() for signal in signals}

    def views(self, user, vectors):
        """`short`, `long` and `interest` of a user in double precision, from the items' stored vectors."""
        signals = self.signals[user]
        items = np.array([vectors[signal[2]] for signal in signals], np.float64)
        weights = np.array([signal[4] for signal in signals])
        ages = signals[0][0] - np.array([signal[0] for signal in signals], np.float64)
        means, masses = [], []
        for half_life in (SHORT_MS, LONG_MS):
            decayed = weights * 0.5 ** (ages / half_life)
            masses.append(np.abs(decayed).sum())
            means.append((decayed[:, None] * items).sum(axis=0) / masses[-1] if masses[-1] else 0 * items[0])
        share = masses[0] / (masses[0] + SHARE_AT)
        mix = share * normalised(means[0]) + (1 - share) * normalised(means[1])
        return means[0], means[1], normalised(mix)


def normalised(vector):
    """A vector at unit length; zero stays."""
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def applied(worker):
    """Records of the interest lane that are in the store."""
    return worker.metric("penchant_records_total", lane="interest")


class Replay:
    """A stage whose catalogue is MovieLens', the ratings to send, and what must come of them."""

    def __init__(self, stage, folder):
        self.stage = stage
        self.offline = Offline(folder)
        self.folder = folder
        with open_rows(folder / "ratings.csv") as rows:
            self.clicks = sorted((movielens_click(row) for row in rows.rows), key=lambda click: click.at)

    def send_catalogue(self):
        """Sends the films; gives how many."""
        with open_rows(self.folder / "movies.csv") as rows:
            items = [movielens_item(row) for row in rows.rows]
        topic = self.stage.topic(Topic.ITEMS)
        self.stage.send(Output(topic=topic, key=item.item_id.encode(), value=encode(item)) for item in items)
        return len(items)

    def send(self, variant, clicks):
        """Sends ratings, as ratings of users of this variant's own."""
        topic = self.stage.topic(Topic.CLICKS)
        self.stage.send(
            Output(topic=topic, key=user.encode(), value=encode(msgspec.structs.replace(click, user_id=user)))
            for click in clicks
            for user in [f"{variant}-{click.user_id}"]
        )

    def snapshot(self):
        """What the store holds now."""
        return self.stage.snapshot(self.offline.items)

    def check(self, variant, snapshot):
        """Every profile of a variant is the one computed offline, and every user has the list of that profile."""
        profiles = {
            user.removeprefix(f"{variant}-"): profile
            for user, profile in snapshot.profiles.items()
            if user.startswith(f"{variant}-")
        }
        assert profiles.keys() == self.offline.signals.keys()
        assert len(profiles) == USERS
        lists = self.stage.lists()
        for user, profile in profiles.items():
            signals = [(one.time, one.event_id, one.item_id, one.action, one.weight) for one in profile.state.strong]
            assert signals == self.offline.signals[user]
            assert not profile.state.weak
            assert not profile.awaits
            expected = self.offline.views(user, snapshot.vectors)
            for stored, computed in zip((profile.short, profile.long, profile.interest), expected, strict=True):
                np.testing.assert_allclose(stored, computed, rtol=0, atol=1e-5)
            published = lists[profile.user]
            assert published.profile_version == profile.version
            assert published.items


@pytest.fixture(scope="module")
def replay(kafka, make_stage, shared_data, measured) -> Iterator[Replay]:
    """The catalogue embedded once; nobody has rated anything yet, and no worker runs."""
    encoders = {"threads": os.cpu_count()}  # nothing else runs meanwhile
    with make_stage(kafka, worker={"content_batch_records": 512}, encoders=encoders) as stage:
        found = Replay(stage, shared_data / "movielens-small")
        started = time.monotonic()
        assert found.send_catalogue() == ITEMS
        with stage.worker("content") as worker:
            stage.await_settled(worker, "content")
            measured(f"{ITEMS} films embedded in {time.monotonic() - started:.0f} s, start of the worker included")
            assert worker.stop() == 0
        assert len(found.clicks) == EVENTS
        yield found


@pytest.fixture(scope="module")
def in_order(replay, measured):
    """What the store holds after all ratings were sent in the order of their times."""
    replay.send("order", replay.clicks)
    with replay.stage.worker("interest") as worker:
        worker.await_that(lambda: applied(worker), "the first batch")
        started = time.monotonic()
        replay.stage.await_settled(worker, "interest")
        measured(f"{EVENTS / (time.monotonic() - started):.0f} ratings/s in time order, lists included")
        assert worker.stop() == 0
    return replay.snapshot()


def test_ratings_in_the_order_of_their_times(replay, in_order):
    """Profiles are those of an offline computation, and all 610 users have the list of their last version."""
    replay.check("order", in_order)


def test_the_whole_topic_replayed_over_the_result(replay, in_order):
    """A replay from the first offset changes no profile, not even its version, and publishes every list again."""
    replay.stage.rewind("interest", Topic.CLICKS)
    before = len(replay.stage.read(Topic.RECOMMENDATIONS))
    with replay.stage.worker("interest") as worker:
        replay.stage.await_settled(worker, "interest")
        assert applied(worker) >= EVENTS
        assert worker.stop() == 0
    assert len(replay.stage.read(Topic.RECOMMENDATIONS)) >= before + USERS
    again = replay.snapshot()
    replay.check("order", again)
    assert {user: profile.token for user, profile in again.profiles.items()} == {
        user: profile.token for user, profile in in_order.profiles.items()
    }


def test_ratings_shuffled_and_ratings_sent_twice(replay, measured):
    """Order and repetition do not matter: shuffled, and with a tenth sent twice, the profiles are the same."""
    chance = random.Random(2)
    shuffled = chance.sample(replay.clicks, EVENTS)
    repeated = replay.clicks + chance.sample(replay.clicks, EVENTS // 10)
    repeated.sort(key=lambda click: (click.at + chance.randrange(86_400_000), click.event_id))
    replay.send("shuffled", shuffled)
    replay.send("twice", repeated)
    with replay.stage.worker("interest") as worker:
        worker.await_that(lambda: applied(worker), "the first batch")
        started = time.monotonic()
        replay.stage.await_settled(worker, "interest")
        rate = (len(shuffled) + len(repeated)) / (time.monotonic() - started)
        measured(f"{rate:.0f} ratings/s shuffled, lists included")
        assert worker.stop() == 0
    snapshot = replay.snapshot()
    replay.check("shuffled", snapshot)
    replay.check("twice", snapshot)


def test_kills_at_random_moments(replay, measured):
    """Kill -9 at three random moments of a replay changes nothing, and no list in force is older than its profile."""
    chance = random.Random(3)
    replay.send("killed", replay.clicks)
    recoveries = []
    for _ in range(KILLS):
        with replay.stage.worker("interest") as worker:
            worker.await_that(lambda: applied(worker), "the first batch")
            recoveries.append(time.monotonic() - worker.started)
            goal = chance.randrange(1, EVENTS // (KILLS + 1))
            worker.await_that(lambda: applied(worker) >= goal, "the moment to die")  # noqa: B023  used in this turn alone
            time.sleep(chance.uniform(0, 0.2))
            worker.kill()
        assert replay.stage.lag("interest") > 0
    with replay.stage.worker("interest") as worker:
        worker.await_that(lambda: applied(worker), "the first batch")
        recoveries.append(time.monotonic() - worker.started)
        replay.stage.await_settled(worker, "interest")
        assert worker.stop() == 0
    after_kill = recoveries[1:]
    measured(f"after kill -9 a restarted worker applies again after {min(after_kill):.1f}-{max(after_kill):.1f} s")
    replay.check("killed", replay.snapshot())
