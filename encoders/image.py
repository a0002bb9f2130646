"""Images: what colours a picture has, and which way its edges run.

A soft histogram over hue, saturation and value says the first, histograms of oriented gradients (Dalal and
Triggs, "Histograms of Oriented Gradients for Human Detection", 2005) the second. No weights, nothing to load:
near pictures look alike, which is less than that they show the same thing.

Decoding trusts nothing: a short list of formats, the size checked from the header before any pixel is decoded,
and whatever a decoder does about a file that is not what it claims comes out as `Undecodable`.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import FixedEncoder, Host, Undecodable, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.options.image import ColourHistogramOptions, ColourShapeOptions, OrientedGradientsOptions

__all__ = ["ColourHistogram", "ColourShape", "OrientedGradients", "Pixels", "decode_picture", "pixels_of"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
BACKGROUND = (255, 255, 255)  # what shows through transparent pixels

# The choices below are by 1-NN accuracy on natural images: of colour alone 0.25, of gradients alone 0.25, of both
# 0.30, centred 0.32; more bins or finer cells gain nothing.
SIDE = 48
HUES, SATURATIONS, VALUES = 8, 3, 3
ORIENTATIONS, CELL, BLOCK = 6, 12, 2
SHAPE_SHARE = 0.6  # of the squared length; colour has the rest

COLOURS = HUES * SATURATIONS * VALUES
BLOCKS = (SIDE // CELL - BLOCK + 1) ** 2
SHAPES = BLOCKS * BLOCK**2 * ORIENTATIONS
# Both parts have no negative component, so any two pictures would have a cosine of some 0.6. The mean component
# over natural images, taken off, brings unrelated pictures near 0.2.
COLOUR_MEAN, SHAPE_MEAN = 0.063, 0.060

# Gradients alone are read finer. By the same measure: cells of 16 in 96 and nine orientations 0.29, of 8 in 64 and as
# many 0.32 with twice as many components.
FINE_SIDE, FINE_ORIENTATIONS, FINE_CELL, FINE_BLOCK = 56, 6, 8, 2
FINE_SHAPES = (FINE_SIDE // FINE_CELL - FINE_BLOCK + 1) ** 2 * FINE_BLOCK**2 * FINE_ORIENTATIONS
FINE_MEAN = 0.028

Pixels = NDArray[np.uint8]


class ColourShape(FixedEncoder[bytes, Pixels, NDArray[np.float64]]):
    """Encoded pictures (bytes) to vectors of 288 components: 72 of colour, 216 of shape.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """

    dimension = COLOURS + SHAPES
    fingerprint = fingerprint(
        *("colour-shape", 1, SIDE, (HUES, SATURATIONS, VALUES), (ORIENTATIONS, CELL, BLOCK)),
        *(SHAPE_SHARE, COLOUR_MEAN, SHAPE_MEAN, BACKGROUND),
    )

    def __init__(self, options: ColourShapeOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        self._host = host
        self._color = extra("skimage.color")
        extra("skimage.feature")  # should it be missing, that is said now and not with the first picture

    def prepare(self, one: bytes) -> Pixels:
        """A picture, upright and squeezed to shape (48, 48, 3), RGB.

        Raises:
            Undecodable: as `decode_picture`.
        """
        return pixels_of(one, self._host, side=SIDE, squeezed=True)

    def forward(self, batch: Sequence[Pixels]) -> NDArray[np.float64]:
        """Colour and shape side by side, centred: shape (pictures, 288)."""
        colours = np.array([np.sqrt(colour_histogram(self._color.rgb2hsv(pixels))) for pixels in batch])
        shapes = unit_rows(np.array([gradients(pixels, ORIENTATIONS, CELL, BLOCK) for pixels in batch]))
        return np.hstack(
            [
                np.sqrt(1 - SHAPE_SHARE) * unit_rows(colours - COLOUR_MEAN),
                np.sqrt(SHAPE_SHARE) * unit_rows(shapes - SHAPE_MEAN),
            ]
        )

    def finish(self, raw: NDArray[np.float64]) -> Vectors:
        """Unit vectors: shape (pictures, 288)."""
        return unit_rows(raw)


class ColourHistogram(FixedEncoder[bytes, Pixels, NDArray[np.float64]]):
    """Encoded pictures (bytes) to vectors of 72 components: the shares of as many colours.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """

    dimension = COLOURS
    fingerprint = fingerprint("histogram", 1, SIDE, (HUES, SATURATIONS, VALUES), COLOUR_MEAN, BACKGROUND)

    def __init__(self, options: ColourHistogramOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        self._host = host
        self._color = extra("skimage.color")

    def prepare(self, one: bytes) -> Pixels:
        """A picture, upright and squeezed to shape (48, 48, 3), RGB.

        Raises:
            Undecodable: as `decode_picture`.
        """
        return pixels_of(one, self._host, side=SIDE, squeezed=True)

    def forward(self, batch: Sequence[Pixels]) -> NDArray[np.float64]:
        """Roots of the shares, centred: shape (pictures, 72). Of roots, the cosine is Bhattacharyya's coefficient."""
        colours = [np.sqrt(colour_histogram(self._color.rgb2hsv(pixels))) for pixels in batch]
        return np.array(colours, np.float64) - COLOUR_MEAN

    def finish(self, raw: NDArray[np.float64]) -> Vectors:
        """Unit vectors: shape (pictures, 72)."""
        return unit_rows(raw)


class OrientedGradients(FixedEncoder[bytes, Pixels, NDArray[np.float64]]):
    """Encoded pictures (bytes) to vectors of 864 components: histograms of gradients by place.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """

    dimension = FINE_SHAPES
    fingerprint = fingerprint("hog", 1, FINE_SIDE, (FINE_ORIENTATIONS, FINE_CELL, FINE_BLOCK), FINE_MEAN, BACKGROUND)

    def __init__(self, options: OrientedGradientsOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        self._host = host
        extra("skimage.feature")  # as above

    def prepare(self, one: bytes) -> Pixels:
        """A picture, upright and squeezed to shape (56, 56, 3), RGB.

        Raises:
            Undecodable: as `decode_picture`.
        """
        return pixels_of(one, self._host, side=FINE_SIDE, squeezed=True)

    def forward(self, batch: Sequence[Pixels]) -> NDArray[np.float64]:
        """Centred: shape (pictures, 864)."""
        shapes = [gradients(pixels, FINE_ORIENTATIONS, FINE_CELL, FINE_BLOCK) for pixels in batch]
        return unit_rows(np.array(shapes)).astype(np.float64) - FINE_MEAN

    def finish(self, raw: NDArray[np.float64]) -> Vectors:
        """Unit vectors: shape (pictures, 864)."""
        return unit_rows(raw)


def gradients(pixels: Pixels, orientations: int, cell: int, block: int) -> NDArray[np.float64]:
    """Histograms of the directions of edges, one after the other, normalised by block; of a flat picture zero.

    Args:
        pixels: shape (height, width, 3).
        orientations: bins of half a turn.
        cell: side of what a histogram is of, in pixels.
        block: side of what is normalised together, in cells.
    """
    found: NDArray[np.float64] = extra("skimage.feature").hog(
        extra("skimage.color").rgb2gray(pixels),
        orientations=orientations,
        pixels_per_cell=(cell, cell),
        cells_per_block=(block, block),
    )
    return found


def pixels_of(data: bytes, host: Host, *, side: int, squeezed: bool = False) -> Pixels:
    """As `decode_picture`, by the decoder of a host where it has one.

    Raises:
        Undecodable: as `decode_picture`, or as that decoder.
    """
    if host.decoder is not None:
        return host.decoder.picture(data, side=side, squeezed=squeezed)
    return decode_picture(data, max_pixels=host.max_pixels, side=side, squeezed=squeezed)


def decode_picture(data: bytes, *, max_pixels: int, side: int, squeezed: bool = False) -> Pixels:
    """An encoded picture as RGB pixels, upright, on white where it is transparent: shape (height, width, 3).

    Args:
        data: what is in its file.
        max_pixels: what its header may declare, width times height.
        side: the shortest that its shorter side may become: larger pictures are scaled down by a whole factor.
        squeezed: make it a square of `side` instead, whatever its shape.

    Raises:
        Undecodable: the picture cannot be used ("empty", "unsupported-format", "too-large", "corrupt").
    """
    if not data:
        raise Undecodable("The image has no bytes", reason="empty")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        check_size(*webp_size(data), max_pixels)
    image = extra("PIL.Image")
    try:
        with image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            check_size(width, height, max_pixels)
            return squeeze(picture, side) if squeezed else shrink(picture, side)
    except Undecodable:
        raise
    except image.UnidentifiedImageError:
        raise Undecodable(f"The bytes are no image of {', '.join(FORMATS)}", reason="unsupported-format") from None
    except (image.DecompressionBombError, image.DecompressionBombWarning, MemoryError):
        raise Undecodable("The image is larger than can be decoded", reason="too-large") from None
    except Exception as error:  # noqa: BLE001  a parser of foreign bytes raises what it likes, struct.error to SyntaxError
        # The kind of the error alone: its text may quote the picture.
        raise Undecodable(f"The image is damaged ({type(error).__name__})", reason="corrupt") from None


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height that a WebP declares (RFC 9649): its decoder takes memory for them as it opens, the only one."""
    kind, start = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:10], "little")
    if kind == b"VP8L":
        sizes = int.from_bytes(start[1:5], "little")
        return 1 + (sizes & 0x3FFF), 1 + (sizes >> 14 & 0x3FFF)
    return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses a picture of more pixels than are allowed."""
    if width * height > max_pixels:
        raise Undecodable(
            f"The image has {width} x {height} pixels; {max_pixels} are allowed in all", reason="too-large"
        )


def squeeze(picture: Any, side: int) -> Pixels:
    """A Pillow picture as a square of `side`: in its own colours first, which is what takes long where it is large."""
    resampling = extra("PIL.Image").Resampling.BICUBIC
    picture.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at an eighth, a quarter or a half
    small = opaque(coloured(picture).resize((side, side), resampling, reducing_gap=3.0))
    return np.asarray(extra("PIL.ImageOps").exif_transpose(small))


def shrink(picture: Any, side: int) -> Pixels:
    """A Pillow picture in its own proportions; each side at least `side`, where it was so long, and less than twice."""
    picture.draft("RGB", (side, side))
    upright = extra("PIL.ImageOps").exif_transpose(coloured(picture))
    factor = min(upright.size) // side
    return np.asarray(opaque(upright.reduce(factor) if factor > 1 else upright))


def coloured(picture: Any) -> Any:
    """A Pillow picture in red, green and blue, of 8 bits each, with transparency where it has any."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip instead of scale
        picture = extra("PIL.Image").fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def opaque(picture: Any) -> Any:
    """What `coloured` gave, on white."""
    if picture.mode == "RGB":
        return picture
    image = extra("PIL.Image")
    return image.alpha_composite(image.new("RGBA", picture.size, (*BACKGROUND, 255)), picture).convert("RGB")


def colour_histogram(hsv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the 72 colours in a picture of shape (height, width, 3), hue, saturation and value within 0..1.

    Each pixel is shared among the nearest bins on each axis, linearly, so that a slight shift of a colour is a
    slight shift of the histogram.
    """
    hue, saturation, value = hsv.reshape(-1, 3).T
    hues = membership(hue, HUES, circular=True)
    tones = hues[:, :, None] * membership(saturation, SATURATIONS)[:, None, :]
    joint = tones.reshape(len(hue), -1).T @ membership(value, VALUES)
    shares: NDArray[np.float64] = joint.ravel() / len(hue)
    return shares


def membership(values: NDArray[np.float64], bins: int, *, circular: bool = False) -> NDArray[np.float64]:
    """How far each of `values`, shape (n,) within 0..1, belongs to each bin: shape (n, bins), rows of sum 1."""
    if circular:  # bins are centred on 0, 1/bins, ...; the last is next to the first
        distance = np.abs(values[:, None] * bins - np.arange(bins))
        distance = np.minimum(distance, bins - distance)
    else:
        distance = np.abs(np.clip(values * bins - 0.5, 0, bins - 1)[:, None] - np.arange(bins))
    shares: NDArray[np.float64] = np.maximum(1 - distance, 0)
    return shares
