import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.image import FORMATS, ColourShape, decode_picture, membership, webp_size
from penchant.encoders.options.image import ColourShapeOptions

REASONS = {"empty", "unsupported-format", "too-large", "corrupt"}


def encode(encoder, pictures):
    """All three steps."""
    return encoder.finish(encoder.forward([encoder.prepare(one) for one in pictures]))


def outcome(encoder, data):
    """The unit vector of `data`, checked, or the reason of its refusal. Any other exception is not caught."""
    try:
        vectors = encode(encoder, [data])
    except Undecodable as refused:
        return refused.reason
    np.testing.assert_allclose(np.linalg.norm(vectors), 1, atol=1e-6)
    return "vector"


def save(image, file_format="PNG", **options):
    """An image as the bytes of a file."""
    encoded = io.BytesIO()
    image.save(encoded, file_format, **options)
    return encoded.getvalue()


def declaring(png, width, height):
    """`png` with another size in its header, checksum and all."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_a_picture_has_one_unit_vector_whatever_its_batch(colour_shape, picture):
    """Alone or in a batch a picture has the same unit vector of float32, time and again."""
    pictures = [picture(hue=hue) for hue in (0, 80, 160, 240)]
    together = encode(colour_shape, pictures)
    assert together.dtype == np.float32
    assert together.shape == (4, colour_shape.dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, np.vstack([encode(colour_shape, [one]) for one in pictures]), atol=1e-5)
    np.testing.assert_array_equal(encode(colour_shape, pictures), together)


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_same_picture_in_any_format_is_nearly_the_same_vector(colour_shape, picture, file_format):
    """What counts is the picture, not the format that carries it."""
    original, other = encode(colour_shape, [picture("PNG"), picture(file_format)])
    assert original @ other > 0.8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_pixels_is_understood(colour_shape, picture, mode):
    """Grey, palette, transparent, print and 16-bit pixels give a unit vector."""
    encoded = picture("JPEG" if mode == "CMYK" else "PNG", mode=mode)
    np.testing.assert_allclose(np.linalg.norm(encode(colour_shape, [encoded])), 1, atol=1e-6)


def test_sixteen_bits_are_scaled_not_clipped(colour_shape, picture):
    """A grey picture of 16 bits looks like the same one of eight."""
    eight = picture(mode="L")
    grey = np.asarray(Image.open(io.BytesIO(eight))).astype(np.uint16)
    first, second = encode(colour_shape, [eight, save(Image.fromarray(grey * 257))])
    assert first @ second > 0.999


def test_a_flat_picture_has_a_vector(colour_shape):
    """A picture of one colour has no edges and still a unit vector, that says its colour."""
    red, dark_red, blue = encode(
        colour_shape, [save(Image.new("RGB", (9, 9), colour)) for colour in ("#f00000", "#e00000", "#0000f0")]
    )
    np.testing.assert_allclose(np.linalg.norm(red), 1, atol=1e-6)
    assert red @ dark_red > red @ blue + 0.2


def test_orientation_is_followed(colour_shape, picture):
    """A photo stored on its side, and marked so, is seen upright."""
    upright = Image.open(io.BytesIO(picture()))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    sideways = save(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    first, second, unmarked = encode(
        colour_shape, [picture(), sideways, save(upright.transpose(Image.Transpose.ROTATE_90))]
    )
    assert first @ second > 0.99
    assert first @ unmarked < 0.9


def test_transparent_pixels_show_the_background(colour_shape):
    """What lies hidden under full transparency counts for nothing."""
    hidden = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    first, second = encode(colour_shape, [save(hidden), save(Image.new("RGB", (30, 30), "white"))])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_an_animation_is_its_first_frame(colour_shape):
    """Of a GIF that moves, the first frame counts."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    moving = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first, second = encode(colour_shape, [moving, save(frames[0], "GIF")])
    np.testing.assert_allclose(first, second, atol=1e-6)


def hostile(picture):
    """Bytes that are no usable picture, by what is wrong with them, with the reason to expect."""
    png, jpeg = picture("PNG"), picture("JPEG")
    return {
        "empty": (b"", "empty"),
        "text": (b"hello, this is no picture", "unsupported-format"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported-format"),
        "wrong magic": (b"\x88" + png[1:], "unsupported-format"),
        "tiff": (save(Image.new("RGB", (9, 9)), "TIFF"), "unsupported-format"),
        "postscript": (save(Image.new("RGB", (9, 9)), "EPS"), "unsupported-format"),
        "a sound's header, then a picture": (b"RIFF\x00\x10\x00\x00WAVEfmt " + png, "unsupported-format"),
        "a picture's header, then a script": (b"GIF89a/*\x00\x00*/=1;alert(1)//", "unsupported-format"),
        "header alone": (png[:33], "unsupported-format"),
        "huge, declared": (declaring(png, 2**31 - 1, 2**31 - 1), "too-large"),
        "just too large, declared": (declaring(png, 40_001, 1_000), "too-large"),
        "wider than its data": (declaring(png, 4_000, 4_000), "corrupt"),
        "no width": (declaring(png, 0, 40), "unsupported-format"),
        "huge bmp": (b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, 60_000, 1, 24, 0) + bytes(60), "too-large"),
        "huge gif": (b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;", "too-large"),
        "half a png": (png[: len(png) // 2], "corrupt"),
        "half a jpeg": (jpeg[: len(jpeg) // 2], "corrupt"),
        "half a gif": (picture("GIF")[:1_000], "corrupt"),
        "half a bmp": (picture("BMP")[:1_000], "corrupt"),
        "half a webp": (picture("WEBP")[:100], "corrupt"),
        "flipped bytes": (png[:60] + bytes(20) + png[80:], "corrupt"),
    }


def test_hostile_bytes_are_refused_with_a_reason(colour_shape, picture):
    """Truncated, mislabelled, bloated and forged files are each refused, with the reason that fits."""
    for name, (data, reason) in hostile(picture).items():
        with pytest.raises(Undecodable) as refused:
            colour_shape.prepare(data)
        assert refused.value.reason == reason, name


def test_the_size_is_checked_before_a_pixel_is_decoded(picture):
    """A picture of more pixels than allowed is refused; one of just as many is not."""
    assert ColourShape(ColourShapeOptions(), Host(max_pixels=60 * 40)).prepare(picture(size=(60, 40))).shape == (
        48,
        48,
        3,
    )
    with pytest.raises(Undecodable) as refused:
        ColourShape(ColourShapeOptions(), Host(max_pixels=60 * 40 - 1)).prepare(picture(size=(60, 40))[:60])
    assert refused.value.reason == "too-large"


@given(
    data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"])
)
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_never_another_error(colour_shape, data, start):
    """Random bytes, with or without a picture's first bytes, are refused and nothing worse."""
    with pytest.raises(Undecodable) as refused:
        colour_shape.prepare(start + data)
    assert refused.value.reason in REASONS


@given(seed=st.integers(0, 2**32), file_format=st.sampled_from(FORMATS), changes=st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_vectors_or_refused(colour_shape, picture, seed, file_format, changes):
    """A picture with bytes changed or cut off is a unit vector, or refused: never another error."""
    draw = random.Random(seed)
    data = bytearray(picture(file_format))
    for _ in range(changes):
        data[draw.randrange(draw.choice([64, len(data)]))] = draw.randrange(256)
    cut = draw.choice([len(data), draw.randrange(len(data))])
    assert outcome(colour_shape, bytes(data[:cut])) in REASONS | {"vector"}


@given(values=st.lists(st.floats(0, 1), min_size=1), bins=st.integers(2, 12), circular=st.booleans())
@settings(deadline=None)
def test_membership_shares_each_value_out_whole(values, bins, circular):
    """Soft bins share every pixel out whole, to two bins at most."""
    shares = membership(np.array(values), bins, circular=circular)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert ((shares > 0).sum(axis=1) <= 2).all()


def test_natural_images_find_their_kind(colour_shape, real_data):
    """On 400 natural images of ten classes the nearest neighbour is of the same class three times as often as chance.

    Measured: 0.32; chance is 0.10.
    """
    files = real_data("cifar10-sample", "*/*.jpg")
    classes = np.array([file.parent.name for file in files])
    vectors = encode(colour_shape, [file.read_bytes() for file in files])
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (classes[similarity.argmax(axis=1)] == classes).mean() > 0.27


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, {"save_all": True}]
)
def test_the_size_of_a_webp_is_known_before_it_is_opened(options):
    """Its decoder would take memory for what a header declares: in each of the format's three kinds."""
    for size in ((1, 1), (300, 77), (5_000, 3)):
        assert webp_size(save(Image.new("RGB", size), "WEBP", **options)) == size
    small = save(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    huge = small[:21] + b"\xff\xff\xff\x0f" + small[25:]
    with pytest.raises(Undecodable, match="16384 x 16384") as refused:
        decode_picture(huge, max_pixels=40_000_000, side=8)
    assert refused.value.reason == "too-large"
