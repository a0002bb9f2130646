"""docker-compose.yml and deploy/Dockerfile, as far as they can be held to their word without an engine."""

import http.server
import importlib.metadata
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from penchant.broker import QUIET_LOG, find_java, kafka_jars
from penchant.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
WORKERS = ("content", "interest", "affinity", "learner")


def interpolated(text: str) -> str:
    """The file as Compose reads it where no variable is set: defaults taken, doubled dollars single."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services by name, with anchors and defaults resolved."""
    return yaml.safe_load(interpolated(COMPOSE))["services"]


def instructions(name: str) -> list[str]:
    """What follows each instruction `name` in the Dockerfile."""
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, flags=re.MULTILINE)


def image_environment() -> dict[str, str]:
    """What the image sets by itself."""
    return dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())


def image_command() -> list[str]:
    """What the image runs when it is told nothing."""
    return [*json.loads(instructions("ENTRYPOINT")[0]), *json.loads(instructions("CMD")[0])]


@pytest.fixture
def page() -> Iterator[tuple[int, list[int], list[str]]]:
    """An HTTP server on a free port: its port, the status that it answers with (to be set), the paths asked for."""
    status, asked = [200], []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, status, asked
        server.shutdown()


def test_the_file_is_what_the_compose_specification_allows():
    """docker-compose.yml is valid under the specification's own JSON schema."""
    carried = importlib.metadata.files("check-jsonschema") or ()
    schema = json.loads(next(file for file in carried if file.name == "compose-spec.json").read_text())
    document = yaml.safe_load(COMPOSE)
    jsonschema.validate(document, schema)
    document["services"]["kafka"]["imagee"] = "misspelt"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_settings_in_containers_are_real_ones(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Every PENCHANT_ variable of the image and the services is a setting, and holds a value that it takes."""
    for name in ("topics", *WORKERS):
        environment = {**image_environment(), **services[name]["environment"]}
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                if variable.startswith("PENCHANT_"):
                    patch.setenv(variable, value)
            settings = load_settings()
        assert settings.kafka.bootstrap_servers == "kafka:19092"
        assert settings.store.url == "http://qdrant:6333"
        assert settings.worker.http_host == "0.0.0.0"  # noqa: S104  within the container


def test_commands_in_containers_are_real_ones(services: dict[str, Any]):
    """Every command that a service or the image runs is one that `penchant` knows, with its options."""
    program, *default = image_command()
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for arguments in (default, *(services[name]["command"] for name in ("topics", *WORKERS))):
        command = [Path(sys.executable).with_name(program), *arguments, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_workers_are_ready_when_their_page_says_so(services: dict[str, Any], page: tuple[int, list[int], list[str]]):
    """The health checks of services and image ask /readyz on the workers' port and believe its status."""
    port, status, asked = page
    checks = [services[name]["healthcheck"]["test"][1:] for name in WORKERS]
    checks += [json.loads(line.partition("CMD ")[2]) for line in instructions("HEALTHCHECK")]
    assert len(checks) == len(WORKERS) + 1
    for program, *arguments in checks:
        assert program == "python"
        own = [part.replace(f":{load_settings().worker.http_port}/", f":{port}/") for part in arguments]
        status[0] = 200
        assert subprocess.run([sys.executable, *own], check=False, capture_output=True).returncode == 0
        status[0] = 503
        assert subprocess.run([sys.executable, *own], check=False, capture_output=True).returncode != 0
    assert set(asked) == {"/readyz"}


def test_qdrants_health_check_reads_the_status(services: dict[str, Any], page: tuple[int, list[int], list[str]]):
    """The shell's own means tell a ready Qdrant from one that is not, and from none."""
    port, status, asked = page
    check = [part.replace("6333", str(port)) for part in services["qdrant"]["healthcheck"]["test"][1:]]
    assert subprocess.run(check, check=False).returncode == 0
    status[0] = 503
    assert subprocess.run(check, check=False).returncode != 0
    assert asked == ["/readyz", "/readyz"]
    nowhere = [part.replace(str(port), "1") for part in check]
    assert subprocess.run(nowhere, check=False, capture_output=True).returncode != 0


def test_kafkas_environment_is_a_configuration_that_it_takes(kafka: object, services: dict[str, Any], tmp_path: Path):
    """Kafka itself, of the image's version, accepts the properties that the image makes of its environment."""
    environment = services["kafka"]["environment"]
    properties = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_")
    }
    properties["log.dirs"] = str(tmp_path / "records")
    file = tmp_path / "server.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    java = find_java()
    jars = kafka_jars(java, say=print)
    assert services["kafka"]["image"].split(":")[1] in {jar.stem.rpartition("-")[2] for jar in jars.glob("kafka_*")}
    command = [java, *QUIET_LOG, "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format"]
    command += ["--cluster-id", environment["CLUSTER_ID"], "--config", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]):
    """Every published port is bound to loopback."""
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_services_wait_for_what_they_need(services: dict[str, Any]):
    """Workers start when broker and store are healthy and topics exist; whatever is waited for tells its health."""
    for name in WORKERS:
        assert services[name]["depends_on"] == {
            "kafka": {"condition": "service_healthy"},
            "qdrant": {"condition": "service_healthy"},
            "topics": {"condition": "service_completed_successfully"},
        }
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "test" in services[needed]["healthcheck"]


def test_lanes_can_be_scaled(services: dict[str, Any]):
    """No worker has a container name or a single host port, which only one replica could have."""
    for name in WORKERS:
        assert "container_name" not in services[name]
        assert all(re.match(r"[\d.]+:\d+-\d+:", port) for port in services[name].get("ports", ()))


def test_workers_have_time_to_stop(services: dict[str, Any]):
    """Compose waits longer for a worker than the worker takes for an orderly stop."""
    for name in WORKERS:
        assert float(services[name]["stop_grace_period"].removesuffix("s")) > load_settings().worker.stop_timeout_s


def test_the_image_is_built_of_what_is_there():
    """Each path that the image copies exists and is not ignored, and a lock with hashes decides the versions."""
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for line in instructions("COPY") if not line.startswith("--from") for source in line.split()[:-1]]
    assert sorted(copied) == sorted(admitted)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert "--require-hashes -r /build/requirements.lock" in DOCKERFILE


def test_the_image_does_not_run_as_root(services: dict[str, Any]):
    """Processes in the final stage run as a user without privileges, and can gain none."""
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", final, flags=re.MULTILINE) == ["penchant"]
    for name in ("topics", *WORKERS):
        assert services[name]["cap_drop"] == ["ALL"]
        assert "user" not in services[name]
