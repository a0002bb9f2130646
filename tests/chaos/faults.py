"""Faults, by kind. Each strikes a play, is healed, and gives the seconds until events were applied again.

Where a worker is started again at once the seconds count from its death; else from the moment of healing.
"""

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping

from tests.chaos.embedded import Embedded
from tests.chaos.play import Play
from tests.chaos.proxy import FaultProxy
from tests.chaos.served import Served

__all__ = ["EMBEDDED", "NEEDS_OWN_DISK", "SERVED", "Fault"]

Fault = Callable[[Play, random.Random], float]

RESENT = 1_000


def kill(play: Play, rng: random.Random) -> float:
    """A worker is killed (-9), and started again at once."""
    name = rng.choice(list(play.workers))
    since = time.monotonic()
    play.workers[name].kill()
    play.start(name)
    return play.await_applying(name, since=since)


def kill_twice(play: Play, rng: random.Random) -> float:
    """A worker is killed, started again, and killed while it starts or has just begun."""
    name = rng.choice(list(play.workers))
    play.workers[name].kill()
    play.start(name)
    time.sleep(rng.uniform(0.5, 4.0))
    since = time.monotonic()
    play.workers[name].kill()
    play.start(name)
    return play.await_applying(name, since=since)


def stop(play: Play, rng: random.Random) -> float:
    """A worker is asked to stop (SIGTERM), and started again when it has."""
    name = rng.choice(list(play.workers))
    assert play.workers[name].stop() == 0, play.tail()
    since = time.monotonic()
    play.start(name)
    return play.await_applying(name, since=since)


def pause(play: Play, rng: random.Random) -> float:
    """A worker is stopped (SIGSTOP) for longer than its session, and continues as if nothing had been."""
    name = rng.choice(list(play.workers))
    return paused(play, name, rng.uniform(1.0, 3.0))


def paused(play: Play, name: str, longer_s: float) -> float:
    """Pauses a worker for its session and longer, if it is not paused yet.

    What it had taken before it goes on to apply at once, for nothing: only what is committed says that it is back.
    """
    process = play.workers[name].process
    process.send_signal(signal.SIGSTOP)
    time.sleep(play.stage.settings.kafka.session_timeout_ms / 1_000 + longer_s)
    had = play.committed()
    process.send_signal(signal.SIGCONT)
    taken = play.await_committing(beyond=had, since=time.monotonic())
    play.note_fences(play.workers[name])
    return taken


def kill_broker(play: Play, rng: random.Random) -> float:
    """The broker is killed (-9), and started again on its data."""
    play.broker.kill()
    time.sleep(rng.uniform(0.1, 3.0))
    had = play.count()
    play.restart_broker()
    return play.await_applying(beyond=had, since=time.monotonic())


def pause_broker(play: Play, rng: random.Random) -> float:
    """The broker stops answering for a while (SIGSTOP)."""
    os.kill(play.broker_pid, signal.SIGSTOP)
    time.sleep(rng.uniform(1.0, 12.0))
    had = play.count()
    os.kill(play.broker_pid, signal.SIGCONT)
    return play.await_applying(beyond=had, since=time.monotonic())


def resend(play: Play, rng: random.Random) -> float:
    """A producer sends again what it has sent before."""
    had = play.count()
    play.resend(rng.randint(RESENT // 2, RESENT))
    return play.await_applying(beyond=had, since=time.monotonic())


# On the embedded store.


def fill_disk(play: Embedded, rng: random.Random) -> float:
    """The disk under the store fills up, and has space again after a while."""
    with play.full_disk():
        time.sleep(rng.uniform(1.0, 4.0))
        had = play.count()
    return play.await_applying(beyond=had, since=time.monotonic())


def refuse_growth(play: Embedded, rng: random.Random) -> float:
    """No file of the worker may grow for a while, as under a quota: the engine's log cannot be written."""
    pid = play.workers["first"].process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    time.sleep(rng.uniform(1.0, 4.0))
    had = play.count()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    return play.await_applying(beyond=had, since=time.monotonic())


def restore(play: Embedded, _: random.Random) -> float:
    """The worker is killed, and its store replaced by an older copy."""
    since = time.monotonic()
    play.workers["first"].kill()
    play.restore_copy()
    play.start("first")
    return play.await_applying(since=since)


# On a store of its own, with several workers.


def zombie(play: Served, rng: random.Random) -> float:
    """A worker is paused between its store write and its transaction, until others have its partitions; it wakes."""
    name = rng.choice(list(play.workers))
    play.pause_after_write(name, rng.randint(1, 3))
    return paused(play, name, rng.uniform(1.0, 3.0))


def absent(play: Served, rng: random.Random) -> float:
    """A worker dies and does not come back before the others have its partitions."""
    name = rng.choice(list(play.workers))
    play.workers[name].kill()
    time.sleep(play.stage.settings.kafka.session_timeout_ms / 1_000 + rng.uniform(1.0, 3.0))
    since = time.monotonic()
    play.start(name)
    return play.await_applying(name, since=since)


def add(play: Served, rng: random.Random) -> float:
    """A further worker comes and takes its share, and goes in order after a while."""
    play.start("guest")
    taken = play.await_applying("guest", since=time.monotonic())
    time.sleep(rng.uniform(0.0, 2.0))
    guest = play.workers.pop("guest")
    play.note_fences(guest)
    assert guest.stop() == 0, play.tail()
    return taken


def without_store(play: Served, fails: Callable[[FaultProxy], None], for_s: float) -> float:
    """Has the store fail for a while, in one way."""
    with play.store_that(fails):
        time.sleep(for_s)
        had = play.count()
    return play.await_applying(beyond=had, since=time.monotonic())


def refuse(play: Served, rng: random.Random) -> float:
    """The store refuses everything for a while."""
    return without_store(play, FaultProxy.refuse, rng.uniform(0.5, 4.0))


def cut(play: Served, rng: random.Random) -> float:
    """All connections to the store break, and nobody listens for a while."""
    return without_store(play, FaultProxy.cut, rng.uniform(0.5, 4.0))


def hang(play: Served, rng: random.Random) -> float:
    """The store takes requests and never answers, for a while."""
    return without_store(play, FaultProxy.hang, rng.uniform(2.0, 6.0))


def late(play: Served, rng: random.Random) -> float:
    """The store does what it is asked, and answers after the deadline."""
    return without_store(play, FaultProxy.late, rng.uniform(3.0, 6.0))


def kill_store(play: Served, rng: random.Random) -> float:
    """The store's process is killed (-9), and started again on its data."""
    assert play.engine is not None
    play.engine.kill()
    time.sleep(rng.uniform(0.1, 3.0))
    had = play.count()
    play.engine.start()
    return play.await_applying(beyond=had, since=time.monotonic())


ANYWHERE: Mapping[str, Fault] = {
    "worker killed": kill,
    "worker killed twice": kill_twice,
    "worker stopped": stop,
    "worker paused": pause,
    "broker killed": kill_broker,
    "broker paused": pause_broker,
    "events sent again": resend,
}
EMBEDDED: Mapping[str, Callable[[Embedded, random.Random], float]] = {
    **ANYWHERE,
    "disk full": fill_disk,
    "files may not grow": refuse_growth,
    "older store restored": restore,
}
NEEDS_OWN_DISK = ("disk full",)
SERVED: Mapping[str, Callable[[Served, random.Random], float]] = {
    **ANYWHERE,
    "zombie": zombie,
    "worker absent": absent,
    "worker added, removed": add,
    "store refuses": refuse,
    "store gone": cut,
    "store hangs": hang,
    "store answers late": late,
    "store killed": kill_store,
}
