import os
from urllib.parse import quote

import pytest

from penchant.encoders.base import Undecodable
from penchant.encoders.media import MediaReader
from penchant.settings import EncoderSettings


@pytest.fixture
def root(tmp_path):
    """An allowed folder with a file deep inside, and a secret beside it."""
    (tmp_path / "allowed" / "deep").mkdir(parents=True)
    (tmp_path / "allowed" / "deep" / "ä picture#1.png").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "allowed"


@pytest.fixture
def limits(root):
    """Settings that allow that folder, and a hundred bytes."""
    return EncoderSettings(media_roots=(root,), max_media_bytes=100)


async def read(uri, data, limits):
    """What there is."""
    async with MediaReader(limits) as media:
        return await media.read(uri, data)


async def refusal(uri, data, limits):
    """The reason for which media is refused."""
    with pytest.raises(Undecodable) as refused:
        await read(uri, data, limits)
    return refused.value.reason


async def test_inline_data_is_as_it_is(limits):
    """Inline data is given back, and a reference beside it is not followed."""
    assert await read(None, b"data", limits) == b"data"
    assert await read("file:///etc/passwd", b"data", limits) == b"data"


@pytest.mark.parametrize("start", ["file://", "file:", "file://localhost", "FILE://"])
async def test_a_file_below_an_allowed_folder_is_read(root, limits, start):
    """Each way to write a reference to a local file works, percent-encoding included."""
    path = root / "deep" / "ä picture#1.png"
    assert await read(start + quote(str(path)), None, limits) == b"picture"


async def test_an_allowed_folder_may_be_a_link(root, tmp_path):
    """A folder allowed by a link to it is allowed."""
    (tmp_path / "link").symlink_to(root)
    limits = EncoderSettings(media_roots=(tmp_path / "link",))
    assert await read(f"file://{tmp_path}/link/deep/{quote('ä picture#1.png')}", None, limits) == b"picture"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://example.org/a.png", "not-allowed"),
        ("http://example.org/a.png", "not-allowed"),
        ("s3://bucket/key", "not-allowed"),
        ("ftp://example.org/a", "unsupported-scheme"),
        ("gopher://example.org/a", "unsupported-scheme"),
        ("data:image/png;base64,AA==", "unsupported-scheme"),
        ("a.png", "unsupported-scheme"),
        ("", "unsupported-scheme"),
    ],
)
async def test_nothing_but_files_is_fetched_by_default(limits, uri, reason):
    """No network is asked for anything unless settings say so, and no other scheme is followed at all."""
    assert await refusal(uri, None, limits) == reason


async def test_nothing_outside_is_read(root, limits, tmp_path):
    """Neither a path outside, nor `..`, nor a link, nor encoding tricks lead out of the folders allowed."""
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "file").write_bytes(b"secret")
    for path in (
        "/etc/passwd",
        f"{tmp_path}/secret",
        f"{root}/../secret",
        f"{root}/%2e%2e/secret",
        f"{root}/deep/..%2f..%2fsecret",
        f"{root}/link",
        f"{root}/folder/secret",
        f"{tmp_path}/allowed-not/file",
        f"{tmp_path}/no-such-file",
    ):
        assert await refusal(f"file://{path}", None, limits) == "not-allowed", path


async def test_without_folders_no_file_is_read(root):
    """Where settings allow no folder, references to files are refused."""
    assert await refusal(f"file://{root}/deep", None, EncoderSettings()) == "not-allowed"


@pytest.mark.parametrize(
    "uri",
    [
        "file://host/a",
        "file:a.png",
        "file:///a?b",
        "file:///a#b",
        "file:///a%00b",
        "file:///%ff",
        "file://[/a",
        "file:",
    ],
)
async def test_malformed_references_are_refused(limits, uri):
    """What names no local file is refused, and raises nothing else."""
    assert await refusal(uri, None, limits) == "malformed-uri"


async def test_only_regular_files_of_bounded_size_are_read(root, limits):
    """Folders, pipes, links in a circle, missing and unbounded files are refused without hanging."""
    os.mkfifo(root / "pipe")
    (root / "large").write_bytes(bytes(101))
    (root / "circle").symlink_to(root / "circle")
    assert await refusal(f"file://{root}/deep", None, limits) == "not-a-file"
    assert await refusal(f"file://{root}/pipe", None, limits) == "not-a-file"
    assert await refusal(f"file://{root}/large", None, limits) == "too-large"
    assert await refusal(f"file://{root}/missing", None, limits) == "not-found"
    assert await refusal(f"file://{root}/deep/{'a' * 300}", None, limits) == "unreadable"
    assert await refusal(f"file://{root}/circle", None, limits) == "unreadable"


async def test_inline_data_is_bounded_and_something_must_be_there(limits):
    """Too much inline data is refused, and so is media with neither data nor reference."""
    assert await refusal(None, bytes(101), limits) == "too-large"
    assert await refusal(None, None, limits) == "empty"
