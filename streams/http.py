"""A worker's HTTP port: health, metrics, and what only it can reach while it holds the embedded store.

It is meant for loopback: no request is authenticated. Names of hosts are checked, so that a page in a browser on
this machine cannot read profiles by pointing a name of its own at it. What changes something (a snapshot writes files,
a calibration ranks otherwise) is done on loopback alone, and asked for with a content type that such a page may not
send unasked.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from msgspec import Meta, Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from penchant.errors import ConfigurationError, PenchantError, Unavailable
from penchant.profile.fusion import Space
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.ranking.calibrations import Recalibration
from penchant.profile.ranking.recommend import Ranker
from penchant.settings import WorkerSettings
from penchant.streams.anyone import list_for_anyone
from penchant.streams.interest import now_ms, recommendations
from penchant.streams.weights import WeightsView

__all__ = ["CalibrationRequest", "HttpPort", "SnapshotRequest", "SnapshotTaken", "build_api"]

JSON = "application/json"

Asked = TypeVar("Asked", bound=Struct)

Folder = Annotated[str, Meta(max_length=4_096, pattern=r"^/[^\x00]*(?![\s\S])")]  # named from the root


class SnapshotRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a copy of the store in a folder, named from the root, that does not exist."""

    folder: Folder


class CalibrationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a new calibration of the store in a folder, named from the root. The answer is a `Recalibration`."""

    store: Folder


class SnapshotTaken(Struct, frozen=True):
    """The copy is in `folder`; `store` is the folder that was copied."""

    folder: str
    store: str


def build_api(
    profiles: Profiles,
    ranker: Ranker,
    space: Space,
    ready: Callable[[], dict[str, bool]],
    snapshot: Callable[[Path], Awaitable[Path]],
    *,
    calibrate: Callable[[Path], Awaitable[Recalibration]],
    weights: Callable[[], WeightsView],
    host: str,
) -> FastAPI:
    """The worker's API.

    Args:
        profiles: to show.
        ranker: makes lists.
        space: of the profiles' vectors.
        ready: by lane, whether it works.
        snapshot: copies the store to a new folder, and gives the one copied.
        calibrate: makes a new calibration of the store in a folder.
        weights: of the ranking, as they are in force.
        host: that the port is bound to.
    """
    api = FastAPI(title="penchant worker", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    api.add_exception_handler(Unavailable, unavailable)
    if is_loopback(host):
        api.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> Response:
        """All lanes have joined their groups."""
        lanes = ready()
        return as_json({"lanes": lanes}, 200 if all(lanes.values()) else 503)

    @api.get("/metrics")
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/profiles/{user:path}")
    async def profile(user: str) -> Response:
        """What is known of a user."""
        found = await profiles.load([user])
        return as_json(view(found[user], space), 200) if user in found else unknown()

    @api.get("/recommendations/{user:path}")
    async def list_for(user: str) -> Response:
        """What to show a user now; of whom nothing is known, what to show to anyone."""
        found = await profiles.load([user])
        now = now_ms()
        if user not in found:
            return as_json(await list_for_anyone(profiles, ranker, now), 200)
        [ranked] = await ranker.rank([found[user]], [now])
        return as_json(recommendations(found[user], ranked.items, None, now), 200)

    api.add_api_route("/weights", weights_page(weights), methods=["GET"])

    @api.post("/snapshot")
    async def copy_store(request: Request) -> Response:
        """Copies the store to a new folder of this machine."""
        return await done(request, host, SnapshotRequest, partial(taken, snapshot))

    calibrating = asyncio.Lock()  # each holds a sample of the catalogue in memory

    @api.post("/calibrate")
    async def calibrate_anew(request: Request) -> Response:
        """Centres and whitens content by the catalogue as it is now."""
        async with calibrating:
            return await done(request, host, CalibrationRequest, lambda asked: calibrate(Path(asked.store)))

    return api


def weights_page(view: Callable[[], WeightsView]) -> Callable[[], Awaitable[Response]]:
    """Answers with the weights in force."""

    async def weights() -> Response:
        """What each feature of the ranking counts here, and where that comes from."""
        return as_json(view(), 200)

    return weights


async def done(request: Request, host: str, kind: type[Asked], work: Callable[[Asked], Awaitable[Struct]]) -> Response:
    """Does what a request asks for, where it may be asked.

    Args:
        request: has a JSON value of the kind.
        host: that the port is bound to.
        kind: of what is asked.
        work: does it.
    """
    if not is_loopback(host):
        return as_json({"error": "this is done where the port is on loopback only"}, 403)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != JSON:
        return as_json({"error": f"the content type must be {JSON}"}, 415)
    try:
        return as_json(await work(msgspec.json.decode(await request.body(), type=kind)), 200)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return as_json({"error": str(error)}, 400)
    except Unavailable:
        raise
    except PenchantError as error:
        return as_json({"error": str(error)}, 409)


async def taken(snapshot: Callable[[Path], Awaitable[Path]], asked: SnapshotRequest) -> SnapshotTaken:
    """Takes a snapshot."""
    copied = await snapshot(Path(asked.folder))
    return SnapshotTaken(folder=asked.folder, store=str(copied.resolve()))


def view(profile: Profile, space: Space) -> dict[str, Any]:
    """A profile as shown: its signals, and how its interest divides over the modalities (shares sum to one)."""
    shares = space.norms(profile.interest[None, :])[0] ** 2
    total = float(shares.sum())
    return {
        "user_id": profile.user,
        "version": profile.version,
        "as_of": profile.state.as_of,
        "short_share": profile.rho,
        "modalities": {
            part.name: float(share) / total for part, share in zip(space.slices, shares, strict=True) if total
        },
        "waiting_for": sorted(profile.awaits),
        "signals": [
            {
                "event_id": signal.event_id,
                "item_id": signal.item_id,
                "action": signal.action,
                "weight": signal.weight,
                "time": signal.time,
            }
            for signal in sorted(profile.state.signals, key=lambda signal: (-signal.time, signal.event_id))
        ],
    }


class HttpPort:
    """A port that is taken at once, and served as soon as there is something to serve.

    Args:
        settings: where to listen.

    Raises:
        ConfigurationError: the port is taken, or may not be bound.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._socket = listening_socket(settings.http_host, settings.http_port)
        self.port: int = self._socket.getsockname()[1]
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    def serve(self, api: FastAPI) -> None:
        """Begins to serve an API."""
        config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        self._server = Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")

    async def close(self) -> None:
        """Finishes the requests under way, and releases the port."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()


class Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigurationError: the port is taken, or may not be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # a port is not taken before that: several may bind it until one listens
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        raise ConfigurationError(
            f"The worker cannot listen on {host}:{port}: {'the port is in use' if taken else error.strerror}",
            hint="Set worker.http_port to another one (0: any free one), or stop what uses it.",
        ) from None
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def as_json(content: Any, status: int) -> Response:
    """Any structure as a JSON answer."""
    return Response(msgspec.json.encode(content), status, media_type=JSON)


async def unavailable(_: Request, error: Exception) -> Response:
    """The store does not answer now: 503."""
    return as_json({"error": str(error)}, 503)


def unknown() -> Response:
    """There is no such user: 404."""
    return as_json({"error": "nothing is known of this user"}, 404)
