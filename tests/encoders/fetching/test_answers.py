"""What hosts are asked and answer: what is fetched, what is refused at once, and what is tried again.

And how much at a time, what is logged of it, and what a stop leaves.
"""

import asyncio

import pytest
import structlog

from penchant.encoders.media import AT_ONCE_A_HOST
from tests.encoders.fetching.rig import (
    CONTENT,
    HOST,
    MOST,
    outcome,
    reader_of,
)


@pytest.mark.parametrize(
    "path", ["/ok", "/chunked", "/until-closed", "/as-it-is", "/ok?size=1&x=%2F#part", "/to?/ok", "/twice"]
)
async def test_what_is_allowed_is_fetched(host, tls, path):
    """By https, however a host delivers it, and by way of redirects within what is allowed."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}") == CONTENT


async def test_a_request_says_nothing_that_it_need_not(host, tls, monkeypatch):
    """It names the host, takes nothing encoded, and carries neither credentials nor cookies; no proxy is asked."""
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/to?/ok") == CONTENT
    for request in host.asked:
        fields = dict(line.split(": ", 1) for line in request[1:] if line)
        assert fields == {
            "host": f"{HOST}:{host.port}",
            "accept": "image/*, audio/*",
            "accept-encoding": "identity",
            "user-agent": "penchant",
        }


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/empty", "empty"),
        ("/says-endless", "too-large"),
        ("/says-large", "too-large"),
        ("/is-large", "too-large"),
        ("/infinite", "too-large"),
        ("/infinite-chunks", "too-large"),
        ("/bomb", "unsupported-encoding"),
        ("/encoded", "unsupported-encoding"),
        ("/404", "not-found"),
        ("/410", "not-found"),
        ("/401", "not-given"),
        ("/403", "not-given"),
        ("/451", "not-given"),
        ("/204", "not-given"),
        ("/206", "not-given"),
        ("/304", "not-given"),
        ("/300", "not-given"),
        ("/302-nowhere", "not-given"),
        ("/round", "too-many-redirects"),
    ],
)
async def test_what_will_not_pass_is_refused_at_once(host, tls, path, reason):
    """With its reason; no more is asked of the host than it takes to know."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}") == reason
    assert len(host.asked) == (4 if path == "/round" else 1)


@pytest.mark.parametrize(
    "path",
    [
        *("/500", "/503", "/429", "/no-http", "/silence", "/half", "/header-bomb", "/long-line", "/says-more"),
        *("/says-two", "/says-negative", "/switch"),
    ],
)
async def test_what_may_pass_is_tried_again_and_then_refused(host, tls, path):
    """A few times, and the lane goes on."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}") == "unavailable"
    assert len(host.asked) == 3


async def test_bytes_are_counted_not_believed(host, tls):
    """As many as are allowed are taken, and of what goes on behind the length that is said, nothing."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/is-largest") == bytes(MOST)
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/says-less") == CONTENT[:3]


@pytest.mark.parametrize("path", ["/drip", "/never", "/infinite-headers", "/infinite-promises"])
async def test_time_is_bounded_as_a_whole(host, tls, path):
    """A host that always says a little more holds nothing up for longer than one that says nothing."""
    reader = reader_of(host, tls, media_timeout_s=0.2)
    assert await outcome(reader, f"https://{HOST}:{host.port}{path}") == "unavailable"


async def test_what_has_passed_is_fetched(host, tls):
    """A host that answers the second time gives what it has."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/second-time") == CONTENT


async def test_a_host_that_has_failed_lately_is_asked_once(host, tls):
    """A thousand references to a host that is down take a thousand attempts, not three thousand, and no pauses."""
    reader = reader_of(host, tls)
    for _ in range(4):
        assert await outcome(reader, f"https://{HOST}:{host.port}/503") == "unavailable"
    assert len(host.asked) == 3 + 1 + 1 + 1


async def test_a_slow_host_takes_a_part_of_the_room(host, tls):
    """Of all that is fetched at once, so much may be from one host, whoever refers to it how often."""
    async with reader_of(host, tls) as reader:
        uri = f"https://{HOST}:{host.port}/slowly"
        assert await asyncio.gather(*(reader.read(uri, None) for _ in range(20))) == [CONTENT] * 20
    assert host.most_at_once == AT_ONCE_A_HOST


async def test_nothing_of_a_reference_is_logged(host, tls, caplog):
    """A reference may hold what only its author should know."""
    caplog.set_level("INFO")
    with structlog.testing.capture_logs() as said:
        for path in ("/ok?secret", "/404?secret", "/503?secret"):
            await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}")
    assert "secret" not in caplog.text + str(said)
    assert HOST not in caplog.text + str(said)


async def test_being_stopped_leaves_nothing(host, tls):
    """What is under way when a worker stops ends there."""
    async with reader_of(host, tls) as reader:
        tasks = [asyncio.create_task(reader.read(f"https://{HOST}:{host.port}/never", None)) for _ in range(20)]
        while len(host.asked) < AT_ONCE_A_HOST:  # noqa: ASYNC110  a real server tells nobody
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert await reader.read(f"https://{HOST}:{host.port}/ok", None) == CONTENT
