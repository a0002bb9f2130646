"""The worker's HTTP port: what is asked under a name is answered for that name, and strangers' names are refused."""

import asyncio
import socket
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import pytest

from penchant.errors import ConfigurationError
from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Item, Items
from penchant.profile.profiles import Profiles
from penchant.profile.ranking.calibrations import Calibrations
from penchant.profile.ranking.features import content_names
from penchant.profile.ranking.recommend import Ranker
from penchant.profile.ranking.weights import Weights
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.rows import Rows
from penchant.profile.signals import Action, Signal
from penchant.profile.state import Limits
from penchant.profile.store.base import StoreUnavailable
from penchant.profile.store.edge import EdgeStore
from penchant.profile.updater import ProfileUpdater
from penchant.settings import WorkerSettings, load_settings
from penchant.streams.events import ANYONE, Recommendations
from penchant.streams.http import HttpPort, build_api
from penchant.streams.weights import Standing, WeightsView

SPACE = Space((Slice("text", 3, 0.5, "t"), Slice("image", 2, 0.5, "i")))
NOW = 1_750_000_000_000
USERS = ["ada", "a/b", "/", "../x", "a b?c=d&e#f", "100%2F", "Zoë 🦊", "日本", "." * 20]


class Parts:
    """What an API is built of, on an embedded store."""

    def __init__(self, store):
        identity, limits = Identity("key"), Limits(strong=9, weak=9, seen_bits=1_024)
        horizons = Horizons(short_ms=1e7, long_ms=1e9, short_share_at=3.0)
        self.items = Items(store, "items", SPACE)
        self.profiles = Profiles(store, "profiles", SPACE, identity, limits)
        vectors = ItemVectors(self.items, capacity=99, ttl_s=9)
        self.rows = Rows(store, "affinity")
        self.ranker = Ranker(
            self.items,
            self.rows,
            vectors,
            identity,
            horizons=horizons,
            weights=Weights.of({"text_long": 0.5, "image_long": 0.5}, {}, content_names(["text", "image"])),
            calibration=Calibration(),
            count=3,
            candidates=9,
            relevance_share=0.8,
            reasons=2,
        )
        self.updater = ProfileUpdater(self.profiles, vectors, horizons, limits, capacity=99)
        self.standing = Standing(load_settings(), self.ranker.features, self.ranker.weigh)
        self.ready = {"interest": True}
        self.store = store

    def api(self, host="127.0.0.1"):
        """The API as if bound to `host`."""
        ready, snapshot, weights = (lambda: self.ready), self.store.snapshot, self.standing.view
        return build_api(
            self.profiles, self.ranker, SPACE, ready, snapshot, calibrate=self.calibrate, weights=weights, host=host
        )

    async def calibrate(self, folder):
        """A calibration of the store, if it is the one in the folder."""
        if folder != self.store.folder:
            raise ConfigurationError("another store")
        return await Calibrations(self.store, "calibration", self.items).renew()

    def client(self, host="127.0.0.1", asking="http://127.0.0.1:8321"):
        """A client of the API as if bound to `host`."""
        api = self.api(host)
        return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url=asking)


@pytest.fixture
async def parts(tmp_path):
    """A store with items, and users who each like one of them."""
    store = EdgeStore(tmp_path / "store")
    parts = Parts(store)
    calibrations = Calibrations(store, "calibration", parts.items)
    await store.open([parts.items.layout, parts.profiles.layout, parts.rows.layout, calibrations.layout])
    generator = np.random.default_rng(1)
    made = []
    for number in range(8):
        vector = generator.normal(size=SPACE.dimension).astype(np.float32)
        made.append((Item(item_id=f"i{number}", version=(1, 1, 0), listed=True), vector / np.linalg.norm(vector)))
    await parts.items.put(made)
    await parts.updater.apply(
        {user: [Signal(NOW, f"of {user}", "i0", Action.LIKE, 2.0), Signal(NOW, "e2", "later", Action.VIEW, 0.5)]
         for user in USERS}
    )  # fmt: skip
    yield parts
    await store.close()


@pytest.mark.parametrize("user", USERS)
async def test_a_profile_is_found_whatever_its_user_is_called(parts, user):
    """Slashes, dots, percent signs and other alphabets name the user that they name."""
    async with parts.client() as client:
        for page in ("profiles", "recommendations"):
            answer = await client.get(f"/{page}/{quote(user, safe='')}")
            assert answer.status_code == 200
            assert answer.json()["user_id"] == user
        shown = (await client.get(f"/profiles/{quote(user, safe='')}")).json()
    assert [signal["event_id"] for signal in shown["signals"]] == ["e2", f"of {user}"]
    assert shown["waiting_for"] == ["later"]
    assert sum(shown["modalities"].values()) == pytest.approx(1)


async def test_recommendations_are_those_of_the_contract(parts):
    """What the port answers is what would be published, less what only a publication has."""
    async with parts.client() as client:
        answer = await client.get("/recommendations/ada")
    made = msgspec.json.decode(answer.content, type=Recommendations)
    assert len(made.items) == 3
    assert made.profile_version == 1
    assert made.timings is None
    assert "i0" not in {item.item_id for item in made.items}


async def test_of_strangers_nothing_is_known(parts):
    """404, in JSON, for any id; not an empty profile. There is a list all the same: the one for anyone."""
    async with parts.client() as client:
        for stranger in ("stranger", "", "%FF%00", "~anyone"):
            answer = await client.get(f"/profiles/{stranger}")
            assert answer.status_code == 404
            assert "error" in answer.json()
            answer = await client.get(f"/recommendations/{stranger}")
            assert answer.status_code == 200
            made = msgspec.json.decode(answer.content, type=Recommendations)
            assert (made.user_id, made.profile_version, made.as_of) == (ANYONE, 0, 0)
            assert len(made.items) == 3


async def test_health_readiness_and_metrics(parts):
    """Alive is not ready: that takes all lanes. Metrics are Prometheus's text."""
    async with parts.client() as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).status_code == 200
        parts.ready["content"] = False
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"lanes": {"interest": True, "content": False}})
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "penchant_records_total" in metrics.text


async def test_weights_are_shown_as_they_are_in_force(parts):
    """Of every feature, where it started and what it counts; nothing learned yet is said so."""
    async with parts.client() as client:
        view = msgspec.json.decode((await client.get("/weights")).content, type=WeightsView)
    assert [one.feature for one in view.features] == list(parts.ranker.features)
    assert (view.examples, view.as_of, view.learning) == (0, None, True)
    assert {one.base.learned for one in view.features} == {None}
    assert all(one.base.in_force == one.base.prior for one in view.features)


@pytest.mark.parametrize(
    ("host", "asking", "allowed"),
    [
        ("127.0.0.1", "http://localhost:8321", True),
        ("127.0.0.1", "http://127.0.0.1:9", True),
        ("::1", "http://[::1]:8321", True),
        ("127.0.0.1", "http://evil.example", False),
        ("127.0.0.1", "http://localhost.evil.example:8321", False),
        ("192.0.2.1", "http://worker:8321", True),
    ],
)
async def test_on_loopback_only_names_of_this_machine_are_answered(parts, host, asking, allowed):
    """A page in a browser cannot read profiles by pointing a name of its own at the port."""
    async with parts.client(host, asking) as client:
        assert ((await client.get("/profiles/ada")).status_code == 200) == allowed


async def test_a_store_that_does_not_answer_is_said_so(parts, monkeypatch):
    """503 and a reason, not a stack trace."""

    async def away(_):
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(parts.profiles, "load", away)
    async with parts.client() as client:
        for page in ("profiles", "recommendations"):
            answer = await client.get(f"/{page}/ada")
            assert (answer.status_code, answer.json()["error"]) == (503, "the store is away")


async def test_a_snapshot_is_a_store_of_its_own(parts, tmp_path):
    """A copy is taken beside the running store, opens with all that was written, and never overwrites anything."""
    asked = {"folder": str(tmp_path / "copy" / "store")}
    async with parts.client() as client:
        answer = await client.post("/snapshot", json=asked)
        assert (answer.status_code, answer.json()) == (200, {**asked, "store": str(parts.store.folder)})
        again = await client.post("/snapshot", json=asked)
        assert (again.status_code, "exists" in again.json()["error"]) == (409, True)
        within = await client.post("/snapshot", json={"folder": str(parts.store.folder / "copy")})
        assert within.status_code == 409
    await parts.updater.apply({"ada": [Signal(NOW, "later", "i1", Action.LIKE, 2.0)]})
    copy = Parts(EdgeStore(tmp_path / "copy" / "store"))
    await copy.store.open([copy.items.layout, copy.profiles.layout], create=False)
    found = await copy.profiles.load(USERS)
    await copy.store.close()
    assert found.keys() == set(USERS)
    assert {signal.event_id for signal in found["ada"].state.signals} == {"of ada", "e2"}


async def test_a_snapshot_is_taken_for_this_machine_alone(parts, tmp_path):
    """Not for a page in a browser, which may send no JSON unasked; not on a port that others reach."""
    folder = str(tmp_path / "copy")
    asked = msgspec.json.encode({"folder": folder})
    async with parts.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = await client.post("/snapshot", content=asked, headers={"content-type": kind})
            assert answer.status_code == 415
        for wrong in ({"folder": "copy"}, {"folder": ""}, {"folder": "/a\0b"}, {"folder": 1}, {}, [folder]):
            assert (await client.post("/snapshot", json=wrong)).status_code == 400
    async with parts.client("192.0.2.1", "http://worker:8321") as client:
        assert (await client.post("/snapshot", json={"folder": folder})).status_code == 403
    assert not (tmp_path / "copy").exists()


async def test_a_port_is_served_and_released(parts):
    """On a free port of its own the API answers over the network, and afterwards the port is free again."""
    port = HttpPort(WorkerSettings(http_port=0))
    port.serve(parts.api())
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port.port}/healthz")).status_code == 200
    number = port.port
    await port.close()
    again = HttpPort(WorkerSettings(http_port=number))
    await again.close()


async def test_a_port_in_use_is_refused_at_once(parts):
    """By another program, and by another worker that has taken it and does not serve yet."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigurationError, match="in use") as refused:
            HttpPort(WorkerSettings(http_port=other.getsockname()[1]))
        assert "worker.http_port" in refused.value.hint
    first = HttpPort(WorkerSettings(http_port=0))
    with pytest.raises(ConfigurationError, match="in use"):
        HttpPort(WorkerSettings(http_port=first.port))
    await first.close()


def test_an_address_of_another_machine_is_refused():
    """The error says which address cannot be listened on."""
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        HttpPort(WorkerSettings(http_host="192.0.2.1", http_port=0))


async def test_requests_under_way_are_answered_before_the_port_closes(parts, monkeypatch):
    """A stop cuts nobody off in the middle of an answer."""
    asked, answer_now = asyncio.Event(), asyncio.Event()
    load = parts.profiles.load

    async def slowly(users):
        asked.set()
        await answer_now.wait()
        return await load(users)

    monkeypatch.setattr(parts.profiles, "load", slowly)
    port = HttpPort(WorkerSettings(http_port=0))
    port.serve(parts.api())
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.get(f"http://127.0.0.1:{port.port}/profiles/ada"))
        await asked.wait()
        closing = asyncio.create_task(port.close())
        await asyncio.sleep(0.05)
        answer_now.set()
        assert (await asking).status_code == 200
        await closing


async def test_a_calibration_is_made_of_the_store_that_is_meant_and_for_this_machine_alone(parts):
    """It says what it was made of; another store, a catalogue that is too small, a stranger's request: nothing done."""
    asked = {"store": str(parts.store.folder)}
    async with parts.client() as client:
        made = await client.post("/calibrate", json=asked)
        assert (made.status_code, made.json()["items"], made.json()["before"]) == (200, 8, "")
        again = (await client.post("/calibrate", json=asked)).json()
        assert again["before"] == again["now"] == made.json()["now"]
        assert (await client.post("/calibrate", json={"store": "/elsewhere"})).status_code == 409
        assert (await client.post("/calibrate", content=b'{"store": "/a"}')).status_code == 415
        assert (await client.post("/calibrate", json={"store": "relative"})).status_code == 400
        await parts.items.put(
            [(Item(item_id=f"i{number}", version=(2, 2, 0), listed=False), None) for number in range(8)]
        )
        refused = await client.post("/calibrate", json=asked)
        assert (refused.status_code, "twice as many" in refused.json()["error"]) == (409, True)
    async with parts.client("192.0.2.1", "http://worker:8321") as client:
        assert (await client.post("/calibrate", json=asked)).status_code == 403
