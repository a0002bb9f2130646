"""What a process gives up before it decodes what strangers send: memory, processor time, files.

The bounds follow from what the settings allow an input to be; what is within them decodes with room to spare.
"""

import math
import resource
import sys
import time
from pathlib import Path

from penchant.encoders.audio import RATES_HZ
from penchant.encoders.decoding.wire import Bounds

__all__ = ["confine", "grant_processor_time", "memory_bytes", "processor_s", "samples_of"]

# Pillow holds up to four copies of a picture of four bytes a pixel: as decoded, converted, turned and scaled.
BYTES_PER_PIXEL = 24
BYTES_PER_SAMPLE = 16  # four as decoded, eight as the mean of channels
SPARE_BYTES = 128 * 2**20
# A picture of a million pixels takes a fiftieth of a second, in the slowest format a tenth.
SPARE_S = 10
PIXELS_PER_S = 4_000_000


def samples_of(bounds: Bounds) -> int:
    """How many samples a sound may have, in all its channels."""
    return int(bounds.max_audio_s * RATES_HZ[1])


def memory_bytes(bounds: Bounds) -> int:
    """How much memory the decoding of one input may take, beside what the process has before."""
    largest = max(BYTES_PER_PIXEL * bounds.max_pixels, BYTES_PER_SAMPLE * samples_of(bounds))
    return largest + 3 * bounds.max_media_bytes + SPARE_BYTES


def processor_s(bounds: Bounds) -> int:
    """How much processor time the decoding of one input may take, in seconds."""
    return SPARE_S + math.ceil(bounds.max_pixels / PIXELS_PER_S)


def confine(bounds: Bounds) -> None:
    """Gives up, for good: memory beyond the bounds, files, core dumps."""
    lower(resource.RLIMIT_CORE, 0)  # would hold what strangers sent
    lower(resource.RLIMIT_FSIZE, 0)
    if sys.platform == "linux":  # elsewhere the limit is not kept
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes(bounds))
    lower(resource.RLIMIT_NOFILE, 0)  # what is open stays, and no file or socket can be opened any more


def grant_processor_time(bounds: Bounds) -> None:
    """From now on, so much processor time is left, and then the process is killed."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + processor_s(bounds), hard))


def lower(limit: int, most: int) -> None:
    """Lowers a limit for good, unless it is lower."""
    _, hard = resource.getrlimit(limit)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))
