"""The demo: in a minute, what penchant does and what it promises, on real parts and made content.

A local broker, a worker in its own process and a small catalogue of text, drawn pictures and synthesised sounds;
then a few users whose tastes move, scene by scene, and the lists that follow them; then the proof that events sent
twice and a worker killed in mid-stream neither lose anything nor count it twice.
"""

import contextlib
import os
import shlex
import sys
import time
from pathlib import Path

from penchant.broker import LocalBroker
from penchant.demo.play import NotExact, Play
from penchant.demo.screen import Screen
from penchant.demo.stage import Ending, Worker, check_installed, own_settings, quiet_client, temporary_folder
from penchant.errors import PenchantError
from penchant.settings import Settings
from penchant.streams.topics import create_topics

__all__ = ["NotExact", "run_demo"]


def run_demo(settings: Settings, *, keep: bool) -> None:
    """Runs the demo; call it from the main thread.

    Args:
        settings: of the caller; only what fits the machine is taken from them.
        keep: leave broker and worker running at the end, until Ctrl-C.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
        BrokerNotInstalled: no broker can be had here.
        NotExact: an event was lost, counted twice or altered.
        PenchantError: a part ended, or did not answer in time.
    """
    check_installed()
    screen = Screen()
    with contextlib.ExitStack() as stack:
        ending = stack.enter_context(Ending())
        stack.enter_context(quiet_client())
        folder = stack.enter_context(temporary_folder(screen.say))
        screen.heading("penchant: recommendations that follow what people do")
        with screen.doing("A Kafka broker starts, for the demo alone") as doing:
            broker = LocalBroker.start(folder / "broker", port=0, say=screen.say)
            stack.callback(broker.kill)  # its records are thrown away: nothing to stop in order for
            own, config = own_settings(settings, folder, broker)
            create_topics(own)
            doing.update(f"{broker.engine.capitalize()} listens on {broker.bootstrap_servers}")
        if not broker.supports_transactions:
            screen.say("  It has no transactions: after a crash a list may come twice. Profiles stay exact.", "yellow")
        worker = stack.enter_context(Worker(own, config, ending))
        worker.start()
        with Play(screen, own, worker) as play:
            play.all()
        if keep:
            stay(screen, config, broker, worker)
        else:
            screen.heading("What next")
            screen.say(f"  {command()} demo --keep   the same, left running to try commands on")
            screen.say(f"  {command()} --help        all commands, and how to start the parts by hand")


def stay(screen: Screen, config: Path, broker: LocalBroker, worker: Worker) -> None:
    """Leaves everything running until Ctrl-C.

    Raises:
        PenchantError: a part has ended by itself.
    """
    screen.heading("Broker and worker keep running. In another terminal:")
    screen.say(f"  export PENCHANT_CONFIG={shlex.quote(str(config))}")
    for arguments in (
        "watch ann",
        "send click ann jazz-05 --action like",
        "profile ann",
        "recommendations ben",
        "dead-letters list",
        "doctor",
    ):
        screen.say(f"  {command()} {arguments}")
    screen.say("Ctrl-C here stops both, and removes their data.")
    with contextlib.suppress(KeyboardInterrupt):
        while broker.running:
            worker.check()
            time.sleep(0.5)
        raise PenchantError("The broker has ended by itself")


def command() -> str:
    """How `penchant` was called, so that what is shown can be typed as it is."""
    called = Path(sys.argv[0])
    if called.name != "penchant":
        return "penchant"
    with contextlib.suppress(ValueError):
        return shlex.quote(str(called.absolute().relative_to(Path.cwd())))
    return "penchant" if str(called.parent) in os.environ.get("PATH", "").split(os.pathsep) else str(called)
