"""Sounds of the demo's themes, synthesised from a seeded generator: 16 kHz, mono, a second and a half."""

import io
import random
import wave
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["sound"]

RATE_HZ = 16_000
SECONDS = 1.5
PEAK = 0.8 * 2**15
NOTE_S = 0.12

Samples = NDArray[np.float64]

TIME: Samples = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ


def sound(theme: str, rng: random.Random) -> bytes:
    """A sound of a theme, WAV."""
    samples = PLAYERS[theme](np.random.default_rng(rng.getrandbits(64)))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes((PEAK * samples / np.abs(samples).max()).astype("<i2").tobytes())
    return file.getvalue()


def surf(rng: np.random.Generator) -> Samples:
    """Dull noise that swells and ebbs."""
    noise = np.convolve(rng.standard_normal(len(TIME)), np.ones(24) / 24, "same")
    swell = 1 + 0.9 * np.sin(2 * np.pi * (rng.uniform(0.6, 0.9) * TIME + rng.random()))
    return swell * noise


def cowbells(rng: np.random.Generator) -> Samples:
    """Struck metal: partials that are no multiples of one tone, dying away."""
    strokes = np.zeros_like(TIME)
    for start in np.sort(rng.uniform(0, 1.2, 5)):
        tone = rng.uniform(380, 520)
        since = np.clip(TIME - start, 0, None)
        ring = sum(np.sin(2 * np.pi * tone * ratio * since) / ratio for ratio in (1, 1.52, 2.31, 3.87))
        strokes += (start <= TIME) * np.exp(-7 * since) * ring
    return strokes


def crackle(rng: np.random.Generator) -> Samples:
    """Sparse clicks over near silence."""
    clicks = (rng.random(len(TIME)) < rng.uniform(0.002, 0.004)) * rng.standard_normal(len(TIME))
    return np.convolve(clicks, np.exp(-np.arange(40) / 6), "same") + 0.002 * rng.standard_normal(len(TIME))


def bleeps(rng: np.random.Generator) -> Samples:
    """A quick arpeggio of square waves."""
    notes = rng.choice([262, 330, 392, 523, 659, 784], size=round(SECONDS / NOTE_S) + 1)
    tones = notes[(TIME / NOTE_S).astype(int)]
    return np.sign(np.sin(2 * np.pi * np.cumsum(tones) / RATE_HZ))


def chords(rng: np.random.Generator) -> Samples:
    """Soft seventh chords, one after the other."""
    played = np.zeros_like(TIME)
    for start in (0, 0.75):
        root = rng.choice([110.0, 130.8, 146.8, 174.6])
        since = np.clip(TIME - start, 0, 0.75)
        chord = sum(np.sin(2 * np.pi * root * 2 ** (step / 12) * since) for step in (0, 3, 7, 10, 14))
        played += ((start <= TIME) & (start + 0.75 > TIME)) * np.exp(-2 * since) * chord
    return played


def chirps(rng: np.random.Generator) -> Samples:
    """High whistles that slide down."""
    song = 0.003 * rng.standard_normal(len(TIME))
    for start in np.arange(rng.uniform(0, 0.1), SECONDS, rng.uniform(0.16, 0.22)):
        since = np.clip(TIME - start, 0, 0.1)
        slide = rng.uniform(3_600, 4_600) * since - 8_000 * since**2
        song += ((start <= TIME) & (start + 0.1 > TIME)) * np.sin(np.pi * since / 0.1) * np.sin(2 * np.pi * slide)
    return song


PLAYERS: Mapping[str, Callable[[np.random.Generator], Samples]] = {
    "sea": surf,
    "mountains": cowbells,
    "bread": crackle,
    "computers": bleeps,
    "jazz": chords,
    "birds": chirps,
}
