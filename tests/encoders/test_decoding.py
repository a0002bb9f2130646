import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from penchant.encoders.audio import decode_sound
from penchant.encoders.base import Undecodable
from penchant.encoders.decoding import pool as pool_module
from penchant.encoders.decoding.limits import memory_bytes
from penchant.encoders.decoding.pool import DecodingPool
from penchant.encoders.decoding.wire import Bounds
from penchant.encoders.image import FORMATS, decode_picture
from penchant.errors import Unavailable
from penchant.settings import EncoderSettings

SETTINGS = EncoderSettings()
OWN_FILES = Path("/proc/self/fd")
# Stands for a process that decodes: says that it is ready, reads the question, and then does what follows.
READY = """
import os, signal, socket, struct, sys, time, msgspec
from penchant.encoders.decoding import wire
other = socket.socket(fileno=0)
wire.send(other, wire.Ready())
while True:
    wire.receive(other, msgspec.msgpack.Decoder(wire.Question), at_most=2**30)
"""
WORKER = """
import sys, time
from pathlib import Path
from penchant.settings import EncoderSettings
from penchant.encoders.decoding.pool import DecodingPool
pool = DecodingPool(EncoderSettings(), processes=1)
pool.picture(Path(sys.argv[1]).read_bytes(), side=8)
print([one._child.pid for one in pool._idle.queue if one][0], flush=True)
time.sleep(600)
"""


def processes(pool):
    """The ids of the processes that a pool has running."""
    return [process._child.pid for process in pool._idle.queue if process is not None]


def is_there(pid):
    """Whether a process runs: neither gone nor waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition):
    """Waits for a condition, and for no longer than the test's own limit."""
    while not condition():
        time.sleep(0.01)


def acting(code):
    """The command of a process that behaves as `code` says when it is asked."""
    return (sys.executable, "-c", READY + "".join(f"    {line}\n" for line in code.splitlines()))


def refusal(decode, data, **options):
    """The reason for which `data` is refused."""
    with pytest.raises(Undecodable) as refused:
        decode(data, **options)
    return refused.value.reason


def outcome(decode, data, **options):
    """What `data` is decoded to, or why it is not: as values that can be compared."""
    try:
        found = decode(data, **options)
    except Undecodable as refused:
        return refused.reason
    return (found[0].tolist(), found[1]) if isinstance(found, tuple) else found.tolist()


@pytest.fixture(scope="module")
def pool():
    """Two processes with the default bounds."""
    with DecodingPool(SETTINGS, processes=2) as found:
        yield found


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("shape", [{"side": 16}, {"side": 16, "squeezed": True}])
def test_a_picture_is_the_same_from_a_process(pool, picture, file_format, shape):
    """Pixel by pixel, in every format, and whether it is whole, cut short or spoilt."""
    whole = picture(file_format)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    for data in (whole, whole[: len(whole) // 2], whole[:20], bytes(spoilt), b""):
        here = outcome(decode_picture, data, max_pixels=SETTINGS.max_pixels, **shape)
        assert outcome(pool.picture, data, **shape) == here


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_sound_is_the_same_from_a_process(pool, sound, file_format):
    """Sample by sample, in every format, and whether it is whole, cut short or spoilt."""
    whole = sound(file_format)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    for data in (whole, whole[: len(whole) // 2], whole[:20], bytes(spoilt), b""):
        here = outcome(decode_sound, data, max_seconds=SETTINGS.max_audio_s)
        assert outcome(pool.sound, data) == here


def test_many_threads_may_ask_at_once(pool, picture, sound):
    """Each has the answer to its own question."""
    pictures = [picture(hue=hue) for hue in range(0, 250, 10)]
    expected = [decode_picture(one, max_pixels=SETTINGS.max_pixels, side=8).tolist() for one in pictures]
    clip = sound()
    with ThreadPoolExecutor(8) as threads:
        clips = [threads.submit(pool.sound, clip) for _ in range(8)]
        assert [found.tolist() for found in threads.map(lambda one: pool.picture(one, side=8), pictures)] == expected
        assert len({found.result()[0].tobytes() for found in clips}) == 1
    assert len(processes(pool)) == 2


def test_little_load_takes_one_process(picture):
    """A process is started when there is something for it to do."""
    with DecodingPool(SETTINGS, processes=4) as pool:
        assert processes(pool) == []
        for _ in range(5):
            pool.picture(picture(), side=8)
        assert len(processes(pool)) == 1


def test_a_process_has_nothing_that_could_be_taken(monkeypatch, picture):
    """It has neither the worker's secrets, nor its files, nor a model, and cannot open anything."""
    monkeypatch.setenv("PENCHANT_STORE__API_KEY", "secret")
    with Path(__file__).open(encoding="utf-8") as file, DecodingPool(SETTINGS, processes=1) as pool:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003  the standard library's way
        pool.picture(picture(), side=8)
        (pid,) = processes(pool)
        about = Path(f"/proc/{pid}")
        assert b"secret" not in (about / "environ").read_bytes()
        assert {one.name for one in (about / "fd").iterdir()} == {"0", "1", "2"}
        assert "torch" not in (about / "maps").read_text(encoding="utf-8")
        limits = (about / "limits").read_text(encoding="ascii").splitlines()[1:]
        soft = {line[:26].strip(): line[26:].split()[0] for line in limits}
        assert (soft["Max open files"], soft["Max core file size"], soft["Max file size"]) == ("0", "0", "0")
        assert int(soft["Max address space"]) < 2 * memory_bytes(Bounds(**bounds_of(SETTINGS)))


def bounds_of(settings):
    """The bounds that a process is told."""
    return {name: getattr(settings, name) for name in Bounds.__struct_fields__}


def test_an_input_survives_the_end_of_its_process(picture):
    """A process killed while it decodes is replaced, and the input tried again: it may be no fault of its own."""
    with DecodingPool(SETTINGS, processes=1) as pool, ThreadPoolExecutor(1) as thread:
        pool.picture(picture(), side=8)
        (pid,) = processes(pool)
        os.kill(pid, signal.SIGSTOP)
        asked = thread.submit(pool.picture, picture(), side=8)
        eventually(lambda: not processes(pool))
        os.kill(pid, signal.SIGKILL)
        assert asked.result().ndim == 3
        assert processes(pool) != [pid]


def test_processes_killed_while_idle_are_replaced(pool, picture):
    """However many there are, no input is refused for it."""
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: pool.picture(picture(), side=8), range(20)))
        for pid in processes(pool):
            os.kill(pid, signal.SIGKILL)
        assert all(found.ndim == 3 for found in threads.map(lambda _: pool.picture(picture(), side=8), range(4)))


@pytest.mark.parametrize(
    "crash",
    [
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os._exit(3)",
        "os.write(0, bytes(100))",
        "os.write(0, struct.pack('<II', 2**32 - 1, 2**32 - 1))",
        "wire.send(other, wire.Pixels(height=3, width=2**30), bytes(9))",
        "wire.send(other, wire.Pixels(height=-1, width=-3), bytes(9))",
        "wire.send(other, wire.Samples(frames=1, rate=1), bytes(8))",
        "wire.send(other, wire.Refused(reason='anything else', detail=''))",
    ],
)
def test_what_ends_every_process_is_refused(crash):
    """What ends two processes in a row, or makes them say what they should not, takes only itself along."""
    with DecodingPool(SETTINGS, processes=1, command=acting(crash)) as pool:
        assert refusal(pool.picture, b"any", side=8) == "crashed"
        assert processes(pool) == []


def test_what_takes_too_long_is_refused():
    """By the clock, where a process says nothing, and by its processor time, where it computes."""
    with DecodingPool(SETTINGS, processes=1, command=acting("time.sleep(600)"), wall_s=0.2) as pool:
        assert refusal(pool.picture, b"any", side=8) == "too-slow"
    drip = "os.write(0, struct.pack('<II', 100, 0))\nwhile True: os.write(0, b'0'); time.sleep(0.05)"
    with DecodingPool(SETTINGS, processes=1, command=acting(drip), wall_s=0.2) as pool:
        assert refusal(pool.picture, b"any", side=8) == "too-slow"
    with DecodingPool(SETTINGS, processes=1, command=acting("os.kill(os.getpid(), signal.SIGXCPU)")) as pool:
        assert refusal(pool.sound, b"any") == "too-slow"


def test_what_eats_memory_is_refused():
    """A picture within the bounds of a setting that is too generous for its decoder runs out of memory, alone."""
    small = EncoderSettings(max_pixels=1_000, max_audio_s=1)
    with DecodingPool(small, processes=1) as pool:
        encoded = io.BytesIO()
        Image.new("RGB", (12_000, 12_000)).save(encoded, "WEBP")  # whose decoder takes its canvas as it opens
        assert refusal(pool.picture, encoded.getvalue(), side=8) in {"too-large", "corrupt", "unsupported-format"}
        (pid,) = processes(pool)
        assert pool.picture(tiny(), side=8).shape == (1, 1, 3)
        assert processes(pool) == [pid]


def tiny():
    """A picture of one pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    content = b"IDAT" + zlib.compress(bytes(4))
    chunks = (header, content, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_a_process_starts_afresh_now_and_then(monkeypatch, picture):
    """What decoders leak does not add up."""
    monkeypatch.setattr(pool_module, "INPUTS", 3)
    with DecodingPool(SETTINGS, processes=1) as pool:
        seen = []
        for _ in range(7):
            pool.picture(picture(), side=8)
            seen += processes(pool)
        assert len(set(seen)) == 3


def test_a_process_that_cannot_start_is_said():
    """Waiting may heal it, and nothing is refused for it."""
    for command in ((sys.executable, "-c", "pass"), ("/nonexistent",)):
        with DecodingPool(SETTINGS, processes=1, command=command) as pool, pytest.raises(Unavailable, match="decode"):
            pool.picture(b"any", side=8)


def test_a_stop_asked_of_all_does_not_reach_what_decodes(pool, picture):
    """A service manager asks every process to stop: the worker has yet to finish what it has begun."""
    pool.picture(picture(), side=8)
    before = processes(pool)
    for pid in before:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert pool.picture(picture(), side=8).ndim == 3
    assert processes(pool) == before


def test_nothing_is_left_when_it_is_closed(picture):
    """Neither processes nor threads nor descriptors."""
    files, threads = len(list(OWN_FILES.iterdir())), threading.active_count()
    with DecodingPool(SETTINGS, processes=2) as pool:
        pool.picture(picture(), side=8)
        (pid,) = processes(pool)
    assert not is_there(pid)
    assert len(list(OWN_FILES.iterdir())) == files
    assert threading.active_count() == threads


def test_nothing_is_left_when_the_worker_is_killed(picture, tmp_path):
    """A worker killed without a word leaves no process behind, idle or at work."""
    (tmp_path / "picture").write_bytes(picture())
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path / "picture")],
        stdout=subprocess.PIPE,
    )
    with worker:
        pid = int(worker.stdout.readline())
        assert is_there(pid)
        worker.kill()
        worker.wait()
        eventually(lambda: not is_there(pid))
