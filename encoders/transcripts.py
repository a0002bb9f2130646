"""Transcripts of the sounds of many events: heard one after the other, and remembered for a while."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Executor

from penchant.encoders.base import Undecodable
from penchant.encoders.speech import SpeechToText

__all__ = ["Transcripts"]

KEPT = 4_096  # some kilobytes each at most
DIGEST_BYTES = 16


class Transcripts:
    """What is said in sounds.

    Args:
        speech: writes it down.
        pool: threads to prepare in.
        device: the one thread that forwards. Each sound is a job of its own there, so that what is encoded meanwhile
            waits for one at most.
    """

    def __init__(self, speech: SpeechToText, *, pool: Executor, device: Executor) -> None:
        self._speech = speech
        self._pool = pool
        self._device = device
        self._kept: OrderedDict[bytes, str] = OrderedDict()

    async def of(self, sounds: Iterable[bytes]) -> dict[bytes, str]:
        """For each sound what is said in it; nothing where it cannot be used, which is for its encoder to refuse."""
        loop = asyncio.get_running_loop()
        found: dict[bytes, str] = {}
        for sound in dict.fromkeys(sounds):
            key = await loop.run_in_executor(self._pool, digest, sound)
            if key not in self._kept:
                try:
                    prepared = await loop.run_in_executor(self._pool, self._speech.prepare, sound)
                except Undecodable:
                    found[sound] = ""
                    continue
                (self._kept[key],) = await loop.run_in_executor(self._device, self._speech.forward, [prepared])
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            found[sound] = self._kept[key]
        return found


def digest(sound: bytes) -> bytes:
    """Stands for a sound."""
    return hashlib.blake2b(sound, digest_size=DIGEST_BYTES).digest()
