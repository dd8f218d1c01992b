"""A pretend camera: real H.264 recordings of any length and size, written as a dashcam writes them."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

# sample.mp4: 20 pictures in 2 s, made from an artificial test picture; movie timescale 1000, track timescale 20000.
# One millisecond of the whole is one tick of each picture, so every length in milliseconds comes out exactly.
_PICTURES = 20
_SECONDS_LIMIT = 200_000  # The headers' 32 bits hold 59 hours in 20000 ticks a second.
_BLOCK_BYTES = 64 * 1024
_BOX_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """What the camera wrote.

    Args:
        path: the file.
        size_bytes, sha256: of the bytes that are in the file.
        whole: False if power failed before the recording was complete.
    """

    path: Path
    size_bytes: int
    sha256: str
    whole: bool


class Recorder:
    """Writes files as a dashcam does: under the final name, piece by piece, the index last, then closes them.

    Args:
        folder: where the files go; created if it is missing.
        registration: the vehicle that the names carry.
        wait: called with a number of seconds between two pieces; when it returns a true value, power fails.
        piece_bytes: how much is written at once.
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
        """Write one recording, named as `REGISTRATION_CAMERA_YYYYmmdd_HHMMSS[_event].mp4`.

        Args:
            camera: the channel.
            start: by the camera's own clock; a zone is not written, as cameras write none.
            seconds: how long the recording lasts by its headers.
            size_bytes: how large the file becomes; None for the smallest.
            event: whether the name marks an event.
            writing_seconds: how long the writing takes.
            power_fails_at: the part of the file, 0.0 to 1.0, that is on disk when power fails; 1.0 for a whole one.
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
    """A whole MP4 in memory; see `recording_blocks`."""
    return b"".join(recording_blocks(seconds, size_bytes=size_bytes, seed=seed))


def recording_blocks(seconds: float, *, size_bytes: int | None = None, seed: str = "") -> Iterator[bytes]:
    """A whole MP4 with H.264, index last, in blocks of at most 64 KiB: the same arguments give the same bytes.

    Args:
        seconds: how long it lasts by all its headers, to the millisecond.
        size_bytes: its size; None for the smallest. What the pictures do not fill is noise in a `free` box.
        seed: makes the bytes distinct.

    Raises:
        ValueError: nothing can last so long, or the size is too small.
    """
    if not 0 <= seconds <= _SECONDS_LIMIT:
        raise ValueError(f"a recording of {seconds} s is impossible: 0 to {_SECONDS_LIMIT} s")
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
    """The sample's pictures and what stands before them; its index (moov)."""
    data = Path(__file__).with_name("sample.mp4").read_bytes()
    index_at = data.rindex(b"moov") - 4
    return data[:index_at], data[index_at:]


def _with_duration(index: bytes, milliseconds: int) -> bytes:
    """The index with every duration in it changed; each of these boxes stands in it once."""
    patched = bytearray(index)
    for kind, fields_at, ticks in (
        (b"mvhd", 20, milliseconds),
        (b"tkhd", 24, milliseconds),
        (b"elst", 12, milliseconds),
        (b"mdhd", 20, milliseconds * _PICTURES),
        (b"stts", 16, milliseconds),
    ):
        struct.pack_into(">I", patched, index.index(kind) + fields_at, ticks)
    return bytes(patched)
