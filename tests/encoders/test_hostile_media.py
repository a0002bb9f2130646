"""Pictures and sounds made to harm whoever decodes them: each has its reason, and harms nobody else."""

import gc
import io
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image, PngImagePlugin

from penchant.encoders.base import Undecodable
from penchant.encoders.decoding.pool import DecodingPool
from penchant.encoders.embedder import Content, Embedder
from penchant.settings import EncoderSettings

SETTINGS = EncoderSettings()


def chunk(name, content):
    """A PNG's chunk, checksum and all."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *, depth=8, colours=2, rows=b"", before=b""):
    """A PNG that declares a size, whatever it holds."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    content = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def saved(file_format, image=None, **options):
    """A picture as a file."""
    encoded = io.BytesIO()
    (image or Image.effect_noise((64, 48), 50).convert("RGB")).save(encoded, file_format, **options)
    return encoded.getvalue()


def zipped():
    """An archive, which is read from its end."""
    encoded = io.BytesIO()
    with zipfile.ZipFile(encoded, "w") as archive:
        archive.writestr("run.sh", "rm -rf /")
    return encoded.getvalue()


def with_text(key, text):
    """A PNG with words in it, compressed."""
    words = PngImagePlugin.PngInfo()
    words.add_text(key, text, zip=True)
    return saved("PNG", pnginfo=words)


def jpeg_of(width, height):
    """A JPEG that declares another size."""
    whole = saved("JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def bmp_of(width, height, *, compression=0):
    """A BMP that declares a size, and holds nothing of it."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 30, 0, 0, 54) + header + bytes(30)


def gif_of_frames(count):
    """A GIF of so many frames."""
    frames = [Image.new("P", (300, 300), number % 256) for number in range(count)]
    return saved("GIF", frames[0], save_all=True, append_images=frames[1:])


def gif_of_screen(width, height):
    """A GIF that declares another screen."""
    whole = saved("GIF", Image.new("P", (8, 8)))
    return whole[:6] + struct.pack("<HH", width, height) + whole[10:]


# What each is, or why it is not: "picture" where it does no harm to take it.
PICTURES = {
    "a bomb of one colour": (lambda: png(30_000, 30_000, depth=1, colours=0, rows=bytes(10**7)), "too-large"),
    "a bomb as large as allowed": (
        lambda: png(6_324, 6_324, depth=8, colours=6, rows=bytes(6_324 * (4 * 6_324 + 1))),
        "picture",
    ),
    "a header of the largest size": (lambda: png(2**31 - 1, 2**31 - 1), "too-large"),
    "a size of nothing": (lambda: png(0, 0), "unsupported-format"),
    "fewer rows than declared": (lambda: png(100, 100, rows=bytes(301)), "picture"),
    "more rows than declared": (lambda: png(10, 10, rows=bytes(31 * 10**5)), "picture"),
    "words that unpack to 100 MB": (lambda: with_text("a", "x" * 10**8), "corrupt"),
    "a profile that unpacks to 100 MB": (
        lambda: png(1, 1, rows=bytes(4), before=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))),
        ("picture", "corrupt"),
    ),
    "a chunk longer than the file": (lambda: png(1, 1)[:33] + struct.pack(">I", 2**31 - 1) + b"IDATx", "corrupt"),
    "a GIF of many frames": (lambda: gif_of_frames(400), "picture"),
    "a GIF of a huge screen": (lambda: gif_of_screen(65_535, 65_535), "too-large"),
    "a JPEG of a huge size": (lambda: jpeg_of(65_500, 65_500), "too-large"),
    "a JPEG of a long side": (lambda: jpeg_of(65_500, 100), ("picture", "corrupt")),
    "a BMP of a huge size": (lambda: bmp_of(2**31 - 1, 2**31 - 1), "too-large"),
    "a BMP upside down": (lambda: bmp_of(1_000, -(2**31)), ("too-large", "corrupt")),
    "a BMP of runs": (lambda: bmp_of(5_000, 5_000, compression=1), ("corrupt", "unsupported-format")),
    "a WebP of a huge size": (
        lambda: (small := saved("WEBP", lossless=True))[:21] + b"\xff\xff\xff\x0f" + small[25:],
        "too-large",
    ),
    "a WebP of many frames": (
        lambda: saved("WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48), (n, 0, 0)) for n in range(200)]),
        "picture",
    ),
    "a picture and an archive": (lambda: saved("GIF") + zipped(), "picture"),
    "a picture and a page": (lambda: saved("PNG") + b"<script>alert(1)</script>", "picture"),
    "a picture with a program": (lambda: saved("JPEG", comment=b"<?php system('id'); ?>"), "picture"),
    "a page that is called a picture": (lambda: b"<svg onload='alert(1)'/>", "unsupported-format"),
    "a document for an interpreter": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "unsupported-format",
    ),
    "a paper": (lambda: b"%PDF-1.7\n" + saved("PNG"), "unsupported-format"),
    "an archive": (zipped, "unsupported-format"),
    "a format that nobody asked for": (lambda: saved("TIFF"), "unsupported-format"),
    "an icon": (lambda: saved("ICO"), "unsupported-format"),
    "a sound": (lambda: sound_of(1), "unsupported-format"),
    "zeros": (lambda: bytes(10**6), "unsupported-format"),
    "nothing": (lambda: b"", "empty"),
}


def sound_of(seconds, *, rate=16_000, channels=1):
    """A WAV with noise."""
    encoded = io.BytesIO()
    samples = np.random.default_rng(7).normal(0, 0.1, (int(seconds * rate), channels))
    soundfile.write(encoded, samples, rate, format="WAV")
    return encoded.getvalue()


def wav_of(*, rate=16_000, channels=1, bits=16, declared=None, kind=1, content=bytes(3_200)):
    """A WAV that declares what it likes."""
    block = channels * bits // 8
    described = struct.pack("<HHIIHH", kind, channels, rate, min(rate * block, 2**32 - 1), block % 2**16, bits)
    size = len(content) if declared is None else declared
    body = b"WAVEfmt " + struct.pack("<I", len(described)) + described + b"data" + struct.pack("<I", size) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flac_of(samples):
    """A FLAC that declares so many samples."""
    encoded = io.BytesIO()
    soundfile.write(encoded, np.random.default_rng(7).normal(0, 0.1, 1_600), 16_000, format="FLAC")
    whole = bytearray(encoded.getvalue())
    whole[21] = whole[21] & 0xF0 | samples >> 32
    whole[22:26] = (samples & 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(whole)


def aiff_of(rate):
    """An AIFF whose rate is the ten bytes given."""
    encoded = io.BytesIO()
    soundfile.write(encoded, np.random.default_rng(7).normal(0, 0.1, 1_600), 16_000, format="AIFF")
    whole = encoded.getvalue()
    place = whole.index(b"COMM") + 16
    return whole[:place] + rate + whole[place + 10 :]


SOUNDS = {
    "a rate of nothing": (lambda: wav_of(rate=0), ("unsupported-format", "corrupt")),
    "a rate of one": (lambda: wav_of(rate=1), "unsupported-format"),
    "a rate of four thousand million": (lambda: wav_of(rate=2**32 - 1), ("unsupported-format", "corrupt")),
    "a rate that is no number": (lambda: aiff_of(b"\x7f\xff" + b"\xff" * 8), ("unsupported-format", "corrupt")),
    "a rate below zero": (lambda: aiff_of(b"\xc0\x0d" + b"\xfa" + bytes(7)), ("unsupported-format", "corrupt")),
    "no channel": (lambda: wav_of(channels=0), "corrupt"),
    "a thousand channels": (lambda: wav_of(channels=1_000, content=bytes(2_000 * 20_000 // 10)), ("sound", "corrupt")),
    "more channels than there are": (lambda: wav_of(channels=65_535), ("corrupt", "empty", "unsupported-format")),
    "a width of nothing": (lambda: wav_of(bits=0), ("corrupt", "unsupported-format")),
    "a kind that nobody knows": (lambda: wav_of(kind=0xBEEF), ("corrupt", "unsupported-format")),
    "two hours of silence in few bytes": (lambda: flac_of(16_000 * 7_200), "too-large"),
    "more samples than there are": (lambda: flac_of(16_000 * 30), "corrupt"),
    "longer than allowed": (lambda: sound_of(61, rate=8_000), "too-large"),
    "more than it declares": (lambda: wav_of(declared=100), "sound"),
    "less than it declares": (lambda: wav_of(declared=2**31), ("corrupt", "sound")),
    "cut short": (lambda: sound_of(1)[:-500], "corrupt"),
    "a tag longer than the file": (
        lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1_000),
        ("corrupt", "unsupported-format"),
    ),
    "a page without end": (lambda: b"OggS" + bytes(22) + b"\xff" * 300, "corrupt"),
    "a picture": (lambda: saved("PNG"), "unsupported-format"),
    "a WebP, which begins like a WAV": (lambda: saved("WEBP"), ("corrupt", "unsupported-format")),
    "a format that nobody asked for": (lambda: b"caff\0\1\0\0desc" + bytes(100), "unsupported-format"),
    "nothing": (lambda: b"", "empty"),
}


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks():
    """Whatever is decoded, no thread and no descriptor stays behind."""
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir()))
    threads = {thread.name for thread in threading.enumerate()}
    yield
    gc.collect()
    assert {thread.name for thread in threading.enumerate()} <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 3  # what torch and the like keep once they are loaded


@pytest.fixture(scope="module")
def pool():
    """One process: what harms it would harm the next input."""
    with DecodingPool(SETTINGS, processes=1) as found:
        yield found


def running(pool):
    """The process that decodes."""
    return [process._child.pid for process in pool._idle.queue if process is not None]


@pytest.mark.parametrize("name", PICTURES)
def test_a_hostile_picture_has_its_reason(pool, name):
    """And the process that decodes it outlives it."""
    make, expected = PICTURES[name]
    before = running(pool)
    try:
        pixels = pool.picture(make(), side=32)
        found = "picture"
        assert pixels.ndim == 3
    except Undecodable as refused:
        found = refused.reason
    assert found in ((expected,) if isinstance(expected, str) else expected)
    assert not before or running(pool) == before


@pytest.mark.parametrize("name", SOUNDS)
def test_a_hostile_sound_has_its_reason(pool, name):
    """And the process that decodes it outlives it."""
    make, expected = SOUNDS[name]
    before = running(pool)
    try:
        samples, rate = pool.sound(make())
        found = "sound"
        assert len(samples) <= SETTINGS.max_audio_s * rate
    except Undecodable as refused:
        found = refused.reason
    assert found in ((expected,) if isinstance(expected, str) else expected)
    assert not before or running(pool) == before


async def test_hostile_media_take_nothing_else_along():
    """All of them in one batch, and what stands among them has the vectors that it has alone."""
    picture, sound = saved("PNG", Image.new("RGB", (64, 48), (200, 40, 90))), sound_of(1)
    good = Content(text="a text", images=(picture,), sounds=(sound,))
    bad = [Content(images=(make(),)) for make, _ in PICTURES.values()]
    bad += [Content(sounds=(make(),)) for make, _ in SOUNDS.values()]
    async with Embedder(SETTINGS) as embedder:
        (alone,) = await embedder.embed([good])
        together = await embedder.embed([*bad[:20], good, *bad[20:], good])
        for found in (together[20], together[-1]):
            assert found.refusals == ()
            for name, vector in alone.slices.items():
                np.testing.assert_allclose(found.slices[name], vector, atol=1e-5)
        refused = [one for one in together if one.refusals]
        assert len(refused) >= len(bad) - 15
        assert all(one.slices == {} for one in refused)
