"""A process that decodes: it is asked for one picture or sound after the other, over the socket that is its input.

It ends when the other side does, however that ended, for then the socket does. Signals that ask a worker to stop do
not reach it: the worker finishes what it has begun, and needs it for that.
"""

import io
import signal
import socket
import sys
import wave
from typing import Any

import msgspec
import numpy as np
from msgspec.msgpack import Decoder

from penchant.encoders.audio import decode_sound
from penchant.encoders.base import Undecodable, extra
from penchant.encoders.decoding.limits import confine, grant_processor_time
from penchant.encoders.decoding.wire import (
    Answer,
    Bounds,
    Ended,
    Picture,
    Pixels,
    Question,
    Ready,
    Refused,
    Samples,
    Sound,
    receive,
    send,
)
from penchant.encoders.image import FORMATS, decode_picture

__all__ = ["main"]

QUESTIONS: Decoder[Question] = Decoder(Question)


def main() -> None:
    """Decodes until the other side ends. The bounds are this process's one argument, as JSON."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    bounds = msgspec.json.decode(sys.argv[1], type=Bounds)
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        rehearse(bounds)
        confine(bounds)
        try:
            serve(connection, bounds)
        except Ended:
            return


def serve(connection: socket.socket, bounds: Bounds) -> None:
    """Answers questions, one after the other.

    Raises:
        Ended: the other side is there no more.
    """
    send(connection, Ready())
    while True:
        question, data = receive(connection, QUESTIONS, at_most=bounds.max_media_bytes)
        grant_processor_time(bounds)
        send(connection, *answer(question, bytes(data), bounds))


def answer(question: Question, data: bytes, bounds: Bounds) -> tuple[Answer, memoryview]:
    """What comes of decoding `data`."""
    try:
        if isinstance(question, Picture):
            pixels = decode_picture(data, max_pixels=bounds.max_pixels, side=question.side, squeezed=question.squeezed)
            height, width, _ = pixels.shape
            return Pixels(height=height, width=width), np.ascontiguousarray(pixels).data.cast("B")
        samples, rate = decode_sound(data, max_seconds=bounds.max_audio_s)
        return Samples(frames=len(samples), rate=rate), np.ascontiguousarray(samples).data.cast("B")
    except Undecodable as refused:
        return Refused(reason=refused.reason, detail=str(refused)), memoryview(b"")
    except MemoryError:
        return Refused(reason="too-large", detail="Decoding takes more memory than there is for it"), memoryview(b"")


def rehearse(bounds: Bounds) -> None:
    """Decodes something of each format: what decoders load, they load now, for later no file can be opened."""
    for file_format in FORMATS:
        encoded = io.BytesIO()
        picture: Any = extra("PIL.Image").new("RGB", (8, 8))
        picture.save(encoded, file_format)
        answer(Picture(side=4, squeezed=False), encoded.getvalue(), bounds)
        answer(Picture(side=4, squeezed=True), encoded.getvalue()[:-8], bounds)
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(64))
    answer(Sound(), sound.getvalue(), bounds)
    answer(Sound(), sound.getvalue()[:-8], bounds)


if __name__ == "__main__":
    main()
