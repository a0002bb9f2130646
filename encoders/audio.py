"""Sound: what its spectrum looks like on average, how far it spreads, and how fast it changes.

Mel-frequency cepstral coefficients (Davis and Mermelstein, 1980) of 16 kHz mono, brought to one level first, so
that loudness says nothing; of each coefficient over time the mean, the spread and the spread of its changes.
Coefficients differ in size by two orders, and a few would decide every cosine: each is standardised by fixed
constants, so that a vector depends on its sound alone.

Decoding trusts nothing: a short list of formats by their first bytes, rate, channels and length checked before
anything is decoded.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import FixedEncoder, Host, Undecodable, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.options.audio import LogMelOptions, MfccOptions

__all__ = [
    "RATE_HZ",
    "SILENCE",
    "LogMelStatistics",
    "MfccStatistics",
    "Samples",
    "decode_sound",
    "levelled",
    "resampled",
    "sound_of",
    "steady",
]

# The parsers that foreign bytes may reach, among the two dozen of libsndfile, and what each may hold.
MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"FORM")
FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF"})
SUBTYPES = frozenset(
    {
        *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
        *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
    }
)
RATES_HZ = (4_000, 192_000)
OGG_HEADER = 27  # bytes of a page's header before the table of its segments, whose length is the last of them
OGG_END = 4  # the flag of a stream's last page
UNKNOWN_SIZE = 0x7FFF_0000  # who streams a WAV cannot know its size, and declares the largest

RATE_HZ = 16_000
# Resampling filters are as long as the two rates have few factors in common: 44,101 Hz would take gigabytes. A
# rate is therefore taken as the nearest multiple of this: exact for the usual ones, off by 0.6% at worst.
RATE_STEP_HZ = 50
SILENCE = 1e-5  # a peak below -100 dB of full scale
LEVEL = 0.1  # root mean square that every sound is brought to

# The choices below are by 1-NN accuracy on environmental sounds from other recordings: means alone 0.53, with
# spreads 0.65, with changes 0.69 to 0.75.
COEFFICIENTS, MELS, WINDOW, HOP, LOWEST_HZ = 30, 64, 1_024, 256, 50.0
NUMBER = np.arange(1, COEFFICIENTS + 1)
# Centre and scale of the three statistics, each shape (30,): laws fitted over natural sounds.
MEAN_CENTRE = np.where(NUMBER == 1, -17.0, np.where(NUMBER == 2, 5.3, 0.0))  # noqa: PLR2004  the second coefficient
MEAN_SCALE = 16.0 * NUMBER**-1.1
SPREAD_CENTRE = 1.7 - 0.6 * np.log(NUMBER)
SPREAD_SCALE = 0.75
CHANGE_CENTRE = -1.27
CHANGE_SCALE = 0.29
LEAST_ENERGY = 1e-6  # of a mel band, where there is none: far below what is heard at that level

Samples = NDArray[np.float32]


class Source(io.BytesIO):
    """Bytes for libsndfile, whose callbacks cannot carry an exception: damaged files make it seek before the start."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to an offset, or to the start where that is negative."""
        return super().seek(max(offset, 0) if whence == io.SEEK_SET else offset, whence)


class MfccStatistics(FixedEncoder[bytes, Samples, NDArray[np.float32]]):
    """Encoded sounds (bytes) to vectors of 90 components: three statistics of 30 coefficients.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """

    dimension = 3 * COEFFICIENTS
    fingerprint = fingerprint(
        *("mfcc-statistics", 1, RATE_HZ, RATE_STEP_HZ, LEVEL, COEFFICIENTS, MELS, WINDOW, HOP, LOWEST_HZ),
        *(MEAN_CENTRE.tolist(), MEAN_SCALE.tolist(), SPREAD_CENTRE.tolist(), SPREAD_SCALE),
        *(CHANGE_CENTRE, CHANGE_SCALE),
    )

    def __init__(self, options: MfccOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        self._host = host
        self._torch = extra("torch")
        transforms = extra("torchaudio.transforms")
        melkwargs = {"n_fft": WINDOW, "hop_length": HOP, "n_mels": MELS, "f_min": LOWEST_HZ, "pad_mode": "constant"}
        self._mfcc = transforms.MFCC(RATE_HZ, n_mfcc=COEFFICIENTS, log_mels=True, melkwargs=melkwargs)
        self._changes = transforms.ComputeDeltas()

    def prepare(self, one: bytes) -> Samples:
        """A sound as samples of 16 kHz mono at one level, shape (samples,).

        Raises:
            Undecodable: the sound cannot be used ("empty", "unsupported-format", "too-large", "corrupt",
                "not-finite", "silent").
        """
        mono, rate = sound_of(one, self._host)
        return levelled(resampled(steady(mono), rate, RATE_HZ))

    def forward(self, batch: Sequence[Samples]) -> NDArray[np.float32]:
        """Standardised statistics: shape (sounds, 90).

        One sound at a time: its hundreds of frames are a batch already, and padding would enter the statistics.
        """
        with self._torch.inference_mode():
            return np.array([self._statistics(samples) for samples in batch], np.float32)

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (sounds, 90)."""
        return unit_rows(raw)

    def _statistics(self, samples: Samples) -> NDArray[np.float64]:
        cepstrum = self._mfcc(self._torch.from_numpy(samples))  # (coefficients, frames)
        spread = cepstrum.std(dim=1, correction=0).numpy()
        changes = self._changes(cepstrum).std(dim=1, correction=0).numpy()
        return np.concatenate(
            [
                (cepstrum.mean(dim=1).numpy() - MEAN_CENTRE) / MEAN_SCALE,
                (np.log(spread + 1e-2) - SPREAD_CENTRE) / SPREAD_SCALE,
                # Relative to the spread, of which it would repeat most.
                (np.log((changes + 1e-3) / (spread + 1e-3)) - CHANGE_CENTRE) / CHANGE_SCALE,
            ]
        )


class LogMelStatistics(FixedEncoder[bytes, Samples, NDArray[np.float32]]):
    """Encoded sounds (bytes) to vectors of 128 components: mean and spread of the logarithms of 64 mel bands.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """

    dimension = 2 * MELS
    fingerprint = fingerprint("log-mel", 1, RATE_HZ, RATE_STEP_HZ, LEVEL, MELS, WINDOW, HOP, LOWEST_HZ, LEAST_ENERGY)

    def __init__(self, options: LogMelOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        self._host = host
        self._torch = extra("torch")
        self._mels = extra("torchaudio.transforms").MelSpectrogram(
            RATE_HZ, n_fft=WINDOW, hop_length=HOP, n_mels=MELS, f_min=LOWEST_HZ, pad_mode="constant"
        )

    def prepare(self, one: bytes) -> Samples:
        """As `MfccStatistics.prepare`."""
        mono, rate = sound_of(one, self._host)
        return levelled(resampled(steady(mono), rate, RATE_HZ))

    def forward(self, batch: Sequence[Samples]) -> NDArray[np.float32]:
        """Statistics of each sound by itself: shape (sounds, 128). Standardised they tell sounds apart less well."""
        statistics = []
        with self._torch.inference_mode():
            for samples in batch:
                loudness = self._torch.log(
                    self._mels(self._torch.from_numpy(samples)) + LEAST_ENERGY
                )  # (bands, frames)
                statistics.append(self._torch.cat([loudness.mean(dim=1), loudness.std(dim=1, correction=0)]).numpy())
        return np.array(statistics, np.float32)

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (sounds, 128)."""
        return unit_rows(raw)


def sound_of(data: bytes, host: Host) -> tuple[NDArray[np.float64], int]:
    """As `decode_sound`, by the decoder of a host where it has one.

    Raises:
        Undecodable: as `decode_sound`, or as that decoder.
    """
    if host.decoder is not None:
        return host.decoder.sound(data)
    return decode_sound(data, max_seconds=host.max_audio_s)


def decode_sound(data: bytes, *, max_seconds: float) -> tuple[NDArray[np.float64], int]:
    """An encoded sound, its channels averaged, as samples of shape (frames,), and their rate in Hz.

    Raises:
        Undecodable: the sound cannot be used ("empty", "unsupported-format", "too-large", "corrupt").
    """
    if not data:
        raise Undecodable("The sound has no bytes", reason="empty")
    if not data.startswith(MAGIC):
        raise Undecodable("The bytes are no WAV, FLAC, OGG, MP3 or AIFF", reason="unsupported-format")
    check_container(data)
    soundfile = extra("soundfile")
    try:
        with soundfile.SoundFile(Source(data)) as file:
            check_header(file, max_seconds)
            declared, rate = file.frames, file.samplerate
            samples: Samples = file.read(dtype="float32", always_2d=True)
    except Undecodable:
        raise
    except Exception as error:  # noqa: BLE001  a parser of foreign bytes fails in more ways than it documents
        raise Undecodable(f"The sound is damaged ({type(error).__name__})", reason="corrupt") from None
    if len(samples) < declared:
        raise Undecodable(f"The sound ends after {len(samples)} of {declared} frames", reason="corrupt")
    return samples.mean(axis=1, dtype=np.float64), rate


def check_header(file: Any, max_seconds: float) -> None:
    """Refuses what an opened file declares, before anything of it is decoded."""
    if file.format not in FORMATS or file.subtype not in SUBTYPES:
        raise Undecodable(f"{file.format} with {file.subtype} is not supported", reason="unsupported-format")
    lowest, highest = RATES_HZ
    if not lowest <= file.samplerate <= highest:
        raise Undecodable(f"{file.samplerate} Hz is not within {lowest} to {highest}", reason="unsupported-format")
    if file.frames > max_seconds * file.samplerate:
        raise Undecodable(f"The sound is longer than {max_seconds:g} s", reason="too-large")
    if file.frames * file.channels > max_seconds * highest:
        raise Undecodable(f"{file.frames} frames of {file.channels} channels are too many", reason="too-large")
    if file.frames == 0:
        raise Undecodable("The sound has no samples", reason="empty")


def steady(mono: NDArray[np.float64]) -> Samples:
    """Samples of one channel, shape (frames,), without their constant, the highest peak brought to 1.

    Raises:
        Undecodable: there is nothing to hear ("not-finite", "silent").
    """
    if not np.isfinite(mono).all():
        raise Undecodable("The sound has samples that are not finite", reason="not-finite")
    peak = np.abs(mono - mono.mean()).max()
    if peak < SILENCE:
        raise Undecodable("The sound is silent", reason="silent")
    # By the peak first: squares of samples far out of range would overflow.
    level: NDArray[np.float64] = (mono - mono.mean()) / peak
    return level.astype(np.float32)


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Samples of one channel, shape (frames,), at another rate; both in Hz."""
    taken = max(RATE_STEP_HZ, round(rate / RATE_STEP_HZ) * RATE_STEP_HZ)
    brought: Samples = (
        extra("torchaudio.functional").resample(extra("torch").from_numpy(samples), taken, wanted).numpy()
    )
    return brought


def levelled(samples: Samples) -> Samples:
    """Samples brought to one root mean square.

    Raises:
        Undecodable: next to nothing is left of the sound at this rate ("silent").
    """
    level = np.sqrt(np.mean(np.square(samples)))
    if level < SILENCE:
        raise Undecodable("The sound has nothing below 8 kHz", reason="silent")
    return samples * np.float32(LEVEL / level)


def check_container(data: bytes) -> None:
    """Refuses a WAV, AIFF or OGG cut short: libsndfile would take what is left for the whole."""
    if data.startswith(b"OggS"):
        last = data[data.rfind(b"OggS") :]
        segments = last[OGG_HEADER : OGG_HEADER + last[OGG_HEADER - 1]] if len(last) >= OGG_HEADER else b""
        if not segments or not last[5] & OGG_END or len(last) < OGG_HEADER + len(segments) + sum(segments):
            raise Undecodable("The sound lacks its end", reason="corrupt")
    elif data.startswith((b"RIFF", b"FORM")):
        declared = int.from_bytes(data[4:8], "little" if data.startswith(b"RIFF") else "big")  # of what follows
        if len(data) < declared < UNKNOWN_SIZE:
            raise Undecodable(f"The sound ends after {len(data)} of {declared + 8} bytes", reason="corrupt")
