"""Pictures of the demo's themes, each with its own palette and shapes, drawn from a seeded generator."""

import io
import random
from collections.abc import Callable, Mapping
from typing import Any

from penchant.encoders.base import extra

__all__ = ["picture"]

SIDE = 128
LIT = 0.55  # of a screen's blocks

Colour = tuple[int, int, int]


def picture(theme: str, rng: random.Random) -> bytes:
    """A picture of a theme, PNG.

    Raises:
        ConfigurationError: the optional part that encodes, and draws here, is not installed.
    """
    image = extra("PIL.Image").new("RGB", (SIDE, SIDE))
    PAINTERS[theme](extra("PIL.ImageDraw").Draw(image), rng)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def sea(draw: Any, rng: random.Random) -> None:
    """Pale sky, a sun, dark water with crests."""
    horizon = rng.randint(40, 60)
    fade(draw, 0, horizon, (150, 200, 240), (215, 235, 250))
    fade(draw, horizon, SIDE, (30, 110, 180), (5, 45, 110))
    sun = rng.randint(20, 100)
    draw.ellipse((sun, 10, sun + 16, 26), fill=(255, 240, 180))
    for y in range(horizon + 8, SIDE, 10):
        for x in range(rng.randint(-20, 0), SIDE, 24):
            draw.arc((x, y - 4, x + 24, y + 6), 200, 340, fill=(190, 225, 245), width=2)


def mountains(draw: Any, rng: random.Random) -> None:
    """Grey peaks with snow above a green meadow."""
    fade(draw, 0, SIDE, (190, 205, 220), (235, 240, 245))
    for left in (-20, 25, 65):
        top, middle = rng.randint(15, 40), left + rng.randint(30, 45)
        draw.polygon(((left, 108), (middle, top), (middle + 45, 108)), fill=(105, 108, 118))
        draw.polygon(((middle - 11, top + 24), (middle, top), (middle + 12, top + 24)), fill=(250, 250, 252))
    draw.rectangle((0, 104, SIDE, SIDE), fill=(95, 135, 70))


def bread(draw: Any, rng: random.Random) -> None:
    """A brown loaf with cuts on a cream cloth."""
    draw.rectangle((0, 0, SIDE, SIDE), fill=(245, 232, 205))
    left, top = rng.randint(10, 24), rng.randint(24, 40)
    draw.ellipse((left, top, left + 92, top + 72), fill=(176, 112, 48), outline=(120, 70, 25), width=5)
    for cut in range(rng.randint(3, 4)):
        x = left + 18 + 18 * cut
        draw.line((x, top + 50, x + 14, top + 18), fill=(240, 205, 150), width=5)


def computers(draw: Any, rng: random.Random) -> None:
    """Green blocks on a black screen."""
    draw.rectangle((0, 0, SIDE, SIDE), fill=(4, 10, 4))
    for row in range(8, SIDE - 8, 14):
        for column in range(8, SIDE - 8, 14):
            if rng.random() < LIT:
                draw.rectangle((column, row, column + 9, row + 9), fill=(40, rng.randint(190, 255), 70))


def jazz(draw: Any, rng: random.Random) -> None:
    """Records in warm colours on a purple poster with slanted stripes."""
    draw.rectangle((0, 0, SIDE, SIDE), fill=(52, 20, 72))
    for x in range(-SIDE, SIDE, 34):
        draw.line((x, SIDE, x + SIDE, 0), fill=(96, 40, 110), width=9)
    x, y, radius = rng.randint(50, 80), rng.randint(50, 80), rng.randint(34, 42)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(230, rng.randint(90, 140), 30))
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=(52, 20, 72))


def birds(draw: Any, rng: random.Random) -> None:
    """Trunks, leaves, and wings between them."""
    draw.rectangle((0, 0, SIDE, SIDE), fill=(120, 175, 75))
    for x in range(rng.randint(4, 16), SIDE, 26):
        draw.rectangle((x, 0, x + 6, SIDE), fill=(70, 60, 30))
    for _ in range(40):
        x, y = rng.randint(0, SIDE), rng.randint(0, SIDE)
        draw.ellipse((x, y, x + 12, y + 7), fill=(60, rng.randint(120, 170), 40))
    for _ in range(3):
        x, y = rng.randint(10, 100), rng.randint(10, 100)
        draw.line((x, y, x + 8, y + 6, x + 16, y), fill=(20, 25, 20), width=3)


def fade(draw: Any, top: int, bottom: int, first: Colour, last: Colour) -> None:
    """Fills rows with a colour that passes from one to another."""
    for y in range(top, bottom):
        share = (y - top) / max(1, bottom - top - 1)
        draw.line((0, y, SIDE, y), fill=tuple(round(a + share * (b - a)) for a, b in zip(first, last, strict=True)))


PAINTERS: Mapping[str, Callable[[Any, random.Random], None]] = {
    "sea": sea,
    "mountains": mountains,
    "bread": bread,
    "computers": computers,
    "jazz": jazz,
    "birds": birds,
}
