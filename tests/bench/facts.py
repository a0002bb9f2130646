"""What a measurement was made on: the machine, and the versions of what does the work."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import confluent_kafka

__all__ = ["machine"]

PACKAGES = ("confluent-kafka", "faust-streaming", "qdrant-edge-py", "numpy", "scipy", "msgspec", "torch")
GIB = 2**30


def machine() -> dict[str, str]:
    """Facts by name; the load is that before anything was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{memory / GIB:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": " ".join(f"{one:.2f}" for one in os.getloadavg()),
        "Python": platform.python_version(),
        "broker": f"Apache Kafka {kafka_version()}, one node on this machine, 3 partitions",
        "librdkafka": confluent_kafka.libversion()[0],
        **{name: installed(name) for name in PACKAGES},
    }


def kafka_version() -> str:
    """The version of Kafka that the local broker is."""
    (found,) = re.findall(r"<kafka.version>(.*?)<", resources.files("penchant").joinpath("kafka.pom.xml").read_text())
    return str(found)


def processor() -> str:
    """The processor's name for itself, where the system tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed(name: str) -> str:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
