"""A simulated camera: real H.264 recordings of any duration and size, written as a dashcam writes them."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

# sample.mp4: 20 frames in 2 s of a synthetic test picture; movie timescale 1000, track timescale 20000. One millisecond
# of the movie is one tick per frame, so every duration in milliseconds is exact.
_FRAMES = 20
_MAX_SECONDS = 200_000  # 32-bit header fields hold 59 hours at 20000 ticks per second
_BLOCK_BYTES = 64 * 1024
_BOX_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file that the camera wrote.

    Args:
        size_bytes, sha256: of the bytes in the file.
        whole: False if power failed before the recording was complete.
    """

    path: Path
    size_bytes: int
    sha256: str
    whole: bool


class Recorder:
    """Writes files as a dashcam does: under the final name, in chunks, the index last.

    Args:
        folder: where the files are written; created if missing.
        registration: the vehicle registration in the file names.
        wait: called with a number of seconds between two chunks; if it returns a true value, power fails.
        piece_bytes: size of a chunk.
    """

    def __init__(
        self,
        folder: Path,
        registration: str,
        *,
        wait: Callable[[float], object] = time.sleep,
        piece_bytes: int = _BLOCK_BYTES,
    ) -> None:
        self._folder = folder
        self._registration = registration
        self._wait = wait
        self._piece_bytes = piece_bytes

    def record(
        self,
        camera: int,
        start: datetime,
        seconds: float,
        *,
        size_bytes: int | None = None,
        event: bool = False,
        writing_seconds: float = 0.0,
        power_fails_at: float = 1.0,
    ) -> RecordedFile:
        """Write one recording, named `REGISTRATION_CAMERA_YYYYmmdd_HHMMSS[_event].mp4`.

        Args:
            camera: the channel.
            start: by the camera's clock; written without a time zone, as cameras do.
            seconds: duration according to the headers.
            size_bytes: size of the file; None for the smallest possible.
            event: whether the name marks an event.
            writing_seconds: how long writing takes.
            power_fails_at: fraction of the file, 0.0 to 1.0, that is on disk when power fails; 1.0 for no failure.
        """
        name = f"{self._registration}_{camera}_{start:%Y%m%d_%H%M%S}{'_event' if event else ''}.mp4"
        size = len(recording(seconds, seed=name)) if size_bytes is None else size_bytes
        left = round(size * power_fails_at)
        digest = hashlib.sha256()
        written = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        with path.open("wb", buffering=0) as file:
            for piece in _pieces(recording_blocks(seconds, size_bytes=size, seed=name), self._piece_bytes):
                kept = piece[: left - written]
                file.write(kept)
                digest.update(kept)
                written += len(kept)
                if written >= left or self._wait(writing_seconds * len(kept) / size):
                    break
        return RecordedFile(path, written, digest.hexdigest(), whole=written == size)


def recording(seconds: float, *, size_bytes: int | None = None, seed: str = "") -> bytes:
    """A complete MP4 in memory; see `recording_blocks`."""
    return b"".join(recording_blocks(seconds, size_bytes=size_bytes, seed=seed))


def recording_blocks(seconds: float, *, size_bytes: int | None = None, seed: str = "") -> Iterator[bytes]:
    """A complete MP4 with H.264, index last, in blocks of at most 64 KiB. The same arguments give the same bytes.

    Args:
        seconds: duration in all headers, with millisecond precision.
        size_bytes: total size; None for the smallest possible. A `free` box with noise fills the difference.
        seed: makes the bytes distinct.

    Raises:
        ValueError: the duration is out of range, or the size is too small.
    """
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError(f"a recording of {seconds} s is impossible: 0 to {_MAX_SECONDS} s")
    media, index = _sample()
    index = _with_duration(index, round(seconds * 1000))
    label = f"vision-ingest test recording {seed}".encode(errors="surrogateescape")
    smallest = len(media) + _BOX_HEADER_BYTES + len(label) + len(index)
    noise_bytes = 0 if size_bytes is None else size_bytes - smallest
    if noise_bytes < 0:
        raise ValueError(f"a recording of {size_bytes} bytes is impossible: at least {smallest}")
    yield media
    yield struct.pack(">I4s", _BOX_HEADER_BYTES + len(label) + noise_bytes, b"free") + label
    yield from _noise(label, noise_bytes)
    yield index


def _noise(seed: bytes, count: int) -> Iterator[bytes]:
    for offset in range(0, count, _BLOCK_BYTES):
        yield hashlib.shake_128(b"%d %s" % (offset, seed)).digest(min(_BLOCK_BYTES, count - offset))


def _pieces(blocks: Iterator[bytes], piece_bytes: int) -> Iterator[bytes]:
    for block in blocks:
        for offset in range(0, len(block), piece_bytes):
            yield block[offset : offset + piece_bytes]


@cache
def _sample() -> tuple[bytes, bytes]:
    """The sample's frames with everything before them, and its index (moov)."""
    data = Path(__file__).with_name("sample.mp4").read_bytes()
    index_at = data.rindex(b"moov") - 4
    return data[:index_at], data[index_at:]


def _with_duration(index: bytes, milliseconds: int) -> bytes:
    """The index with every duration in it replaced; it contains each of these boxes once."""
    patched = bytearray(index)
    for kind, fields_at, ticks in (
        (b"mvhd", 20, milliseconds),
        (b"tkhd", 24, milliseconds),
        (b"elst", 12, milliseconds),
        (b"mdhd", 20, milliseconds * _FRAMES),
        (b"stts", 16, milliseconds),
    ):
        struct.pack_into(">I", patched, index.index(kind) + fields_at, ticks)
    return bytes(patched)
