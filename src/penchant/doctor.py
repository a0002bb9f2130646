"""Looks at everything that penchant needs, and says what to do about what is missing.

Each check is a function from settings to a finding; none of them raises. It runs with the base dependencies
alone: what is optional is looked for, never imported blindly.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import httpx
from filelock import FileLock, Timeout
from msgspec import Struct

from penchant.errors import ConfigurationError, PenchantError
from penchant.settings import EncoderSettings, Settings

__all__ = ["CHECKS", "Diagnosis", "examine"]

Status = Literal["ok", "warn", "fail"]

REQUEST_TIMEOUT_S = 5.0
HTTP_TIMEOUT_S = 2.0
LEAST_PYTHON = (3, 11)
NEEDS = {"topics": "broker"}
LEAST_QDRANT = (1, 19)
INSTALL_ENCODERS = (
    'Install them with: pip install "penchant[encoders]"; without, run `penchant worker --lane interest`.'
)


class Diagnosis(Struct, frozen=True, kw_only=True):
    """What a check has found.

    Attributes:
        part: what was looked at.
        status: ok; warn: something will not work that not everybody needs; fail: a worker cannot run.
        detail: what was found.
        remedy: what to do about it.
    """

    part: str
    status: Status
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Diagnosis]:
    """Runs all checks; each finding comes as soon as it is known."""
    remedies: dict[str, str] = {}  # of what has failed
    for part, check in CHECKS.items():
        status: Status
        try:
            if (needed := NEEDS.get(part, "")) in remedies:  # it would be waited for once more
                status, detail, remedy = "fail", f"cannot be looked at without the {needed}", remedies[needed]
            else:
                status, detail, remedy = check(settings)
        except PenchantError as error:
            status, detail, remedy = "fail", str(error.args[0]), error.hint
        if status == "fail":
            remedies[part] = remedy
        yield Diagnosis(part=part, status=status, detail=detail, remedy=remedy)


Found = tuple[Status, str, str]


def python(_: Settings) -> Found:
    """The interpreter, and penchant itself."""
    said = f"Python {sys.version.split()[0]}, penchant {version('penchant')}"
    if sys.version_info < LEAST_PYTHON:
        return "fail", said, "penchant needs Python {}.{} or later.".format(*LEAST_PYTHON)
    return "ok", said, ""


def broker(settings: Settings) -> Found:
    """Whether a broker answers, and which."""
    from confluent_kafka import KafkaException, libversion  # noqa: PLC0415  a large library; each check has its own

    from penchant.streams.connection import broker_error, open_admin  # noqa: PLC0415  as above

    admin = open_admin(settings)
    try:
        cluster = admin.list_topics(timeout=REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise broker_error(error) from error
    brokers = f"{len(cluster.brokers)} broker{'s' if len(cluster.brokers) != 1 else ''}"
    detail = (
        f"{brokers} at {settings.kafka.bootstrap_servers}, cluster {cluster.cluster_id}, librdkafka {libversion()[0]}"
    )
    return "ok", detail, ""


def topics(settings: Settings) -> Found:
    """Whether the topics are there and as they should be."""
    from penchant.streams.topics import check_topics, topic_specs  # noqa: PLC0415  as above

    findings = check_topics(settings)
    if not findings:
        return "ok", f"all {len(topic_specs(settings))} topics are as they should be", ""
    detail = "; ".join(f"{finding.topic} {finding.problem}" for finding in findings)
    return "fail", detail, " ".join(dict.fromkeys(finding.remedy for finding in findings))


def store(settings: Settings) -> Found:
    """Whether the store can be used: the server answers, or the embedded one's folder is free or the worker's."""
    return server_store(settings) if settings.store.url else embedded_store(settings)


def embedded_store(settings: Settings) -> Found:
    """Whether the engine is there and its folder can be taken."""
    folder = settings.data_dir / "store"
    try:
        engine = f"embedded engine {version('qdrant-edge-py')}"
    except PackageNotFoundError:
        return "fail", "the embedded engine is not installed", "Install penchant anew, or set store.url to a server."
    if not folder.exists():
        return "ok", f"{engine}; {folder} is created on first use", ""
    try:
        with FileLock(folder / "lock", timeout=0):
            return "ok", f"{engine}; {folder} is free", ""
    except Timeout:
        return "ok", f"{engine}; {folder} is in use by a running worker", ""
    except OSError as error:
        return "fail", f"{folder} cannot be used: {error.strerror}", "Set data_dir to a folder of yours."


def server_store(settings: Settings) -> Found:
    """Whether the Qdrant server answers, and is recent enough."""
    try:
        key = settings.store.api_key.get_secret_value()
        answer = httpx.get(
            settings.store.url, headers={"api-key": key} if key else {}, timeout=settings.store.timeout_s
        )
        answer.raise_for_status()
        said = str(answer.json()["version"])
        number = tuple(int(part) for part in said.split(".")[:2])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return (
            "fail",
            f"no Qdrant server answers at store.url ({type(error).__name__})",
            "Start it, or correct store.url.",
        )
    if number < LEAST_QDRANT:
        return "fail", f"Qdrant server {said}", "penchant needs Qdrant {}.{} or later.".format(*LEAST_QDRANT)
    return "ok", f"Qdrant server {said}", ""


def text_encoder(settings: Settings) -> Found:
    """Whether texts can be embedded."""
    return encoder("text", settings.encoders)


def image_encoder(settings: Settings) -> Found:
    """Whether pictures can be embedded."""
    return encoder("image", settings.encoders)


def audio_encoder(settings: Settings) -> Found:
    """Whether sounds can be embedded."""
    return encoder("audio", settings.encoders)


def encoder(modality: str, settings: EncoderSettings) -> Found:
    """Whether what embeds a modality is installed, and loads."""
    try:
        dimension, fingerprint = load(modality, settings)
    except ConfigurationError as error:
        if isinstance(error.__cause__, ImportError):
            return "warn", str(error.args[0]), INSTALL_ENCODERS
        raise
    except (ImportError, OSError, RuntimeError) as error:
        return "fail", f"does not load: {type(error).__name__}: {error}", 'Reinstall: pip install "penchant[encoders]".'
    return "ok", f"loaded; {dimension} components, fingerprint {fingerprint}", ""


def load(modality: str, settings: EncoderSettings) -> tuple[int, str]:
    """Loads what embeds a modality: its dimension and fingerprint."""
    # The optional part's modules, which take seconds to load.
    from penchant.encoders.devices import host_of  # noqa: PLC0415  as above
    from penchant.encoders.registry import build, slot_of  # noqa: PLC0415  as above

    encoder = build(slot_of(settings, modality).options, host_of(settings))
    return encoder.dimension, encoder.fingerprint


def worker(settings: Settings) -> Found:
    """Whether a worker runs, and is ready."""
    start = "Start one with `penchant worker`; without it events wait in Kafka."
    if not settings.worker.http_port:
        return "warn", "worker.http_port is 0, so that nobody can ask it", "Set worker.http_port."
    address = f"http://{settings.worker.http_host}:{settings.worker.http_port}"
    try:
        ready = httpx.get(f"{address}/readyz", timeout=HTTP_TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return "warn", f"no worker answers at {address}", start
    if ready.is_success:
        return "ok", f"ready at {address}", ""
    return "warn", f"at {address}, not ready (status {ready.status_code})", "Its log says what it waits for."


CHECKS: Mapping[str, Callable[[Settings], Found]] = {
    "python": python,
    "broker": broker,
    "topics": topics,
    "store": store,
    "text encoder": text_encoder,
    "image encoder": image_encoder,
    "audio encoder": audio_encoder,
    "worker": worker,
}
