"""Buckets of a server of the tests' own, on loopback, that speaks what S3 does."""

import asyncio
import contextlib

import pytest

from penchant.encoders.base import Undecodable
from penchant.encoders.media import MediaReader
from penchant.settings import EncoderSettings

CONTENT = b"the picture"
MOST = 10_000


def error(status, code):
    """An answer of S3 that says no."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>secret</Message></Error>'.encode()
    return (
        f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\ncontent-type: application/xml\r\n\r\n".encode() + body
    )


ANSWERS = {
    "/media/a/b%20c%23d.png": b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + CONTENT,
    "/media/large": b"HTTP/1.1 200 OK\r\ncontent-length: 10001\r\n\r\n" + bytes(MOST + 1),
    "/media/largest": b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n" + bytes(MOST),
    "/media/half": b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + CONTENT,
    "/media/forbidden": error(403, "AccessDenied"),
    "/media/missing": error(404, "NoSuchKey"),
    "/media/busy": error(503, "SlowDown"),
    "/media/broken": error(500, "InternalError"),
}


@pytest.fixture
async def asked(monkeypatch):
    """What the server was asked for; the environment leads to it, as an operator's would."""
    requests = []

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            requests.append(request.split("\r\n")[0])
            path = request.split(" ")[1]
            writer.write(ANSWERS[path] if path in ANSWERS else error(404, "NoSuchKey"))
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield requests


async def outcome(uri, **settings):
    """The bytes that a reference leads to, or the reason why there are none."""
    limits = EncoderSettings(**{"media_buckets": ("media",), "max_media_bytes": MOST} | settings)
    async with MediaReader(limits, pauses_s=(0.0, 0.0)) as media:
        try:
            return await media.read(uri, None)
        except Undecodable as error:
            refused = error
    assert "secret" not in str(refused)
    return refused.reason


async def test_what_lies_in_a_bucket_is_read(asked):
    """By its bucket and key, whatever characters that has."""
    assert await outcome("s3://media/a/b c#d.png") == CONTENT
    assert await outcome("S3://media/largest") == bytes(MOST)
    assert [request.split(" ")[1] for request in asked] == ["/media/a/b%20c%23d.png", "/media/largest"]


@pytest.mark.parametrize(
    ("key", "reason", "attempts"),
    [
        ("large", "too-large", 1),
        ("forbidden", "not-given", 1),
        ("missing", "not-found", 1),
        ("busy", "unavailable", 3),
        ("broken", "unavailable", 3),
        ("half", "unavailable", 3),
    ],
)
async def test_what_is_not_to_be_had_has_its_reason(asked, key, reason, attempts):
    """What may pass is tried a few times, all else once."""
    assert await outcome(f"s3://media/{key}") == reason
    assert len(asked) == attempts


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://other/key", "not-allowed"),
        ("s3://media.other/key", "not-allowed"),
        ("s3://MEDIA/key", "not-allowed"),
        ("s3://user:word@media/key", "not-allowed"),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint/key", "not-allowed"),
        ("s3://media", "malformed-uri"),
        ("s3://media/", "malformed-uri"),
        ("s3:///media/key", "malformed-uri"),
        ("s3:media/key", "malformed-uri"),
        ("s3://media/a\0b", "malformed-uri"),
    ],
)
async def test_no_other_bucket_is_read(asked, uri, reason):
    """Buckets are compared whole, and nothing is asked before they are."""
    assert await outcome(uri) == reason
    assert asked == []


async def test_without_buckets_none_is_read(asked):
    """Settings allow none unless they name it."""
    assert await outcome("s3://media/largest", media_buckets=()) == "not-allowed"
    assert asked == []
