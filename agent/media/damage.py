"""What power loss and a bad card do to recordings: finding it, naming the likely cause, and what can be saved.

ffmpeg alone does not tell: of an index whose pictures are zeros it makes an hour of grey without an error, and of a
file that ends early it repeats the duration that was meant.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from agent.media.segments import Packet

NEVER_WRITTEN = (
    "the recording was cut by power loss: the index was never written. A repair tool such as untrunc can often rebuild "
    "it with the help of a whole recording of the same camera"
)
ONLY_ZEROS = "the file holds nothing but zeros: its space was reserved, and power was lost before anything was written"
EMPTY = "the file is empty: power was lost before anything was written"
CUT = "the recording was cut by power loss"
SALVAGE_DISABLED = f"{CUT}: with conform.enabled = true its good part can be saved"

_PROBES = 24
_PROBE_BYTES = 512
_MAX_BOXES = 65_536


@dataclass(frozen=True, slots=True)
class Box:
    """A box on the top level of an MP4; `end` may lie past the end of the file."""

    kind: bytes
    payload: int
    end: int


def boxes(file: BinaryIO) -> Iterator[Box]:
    """The boxes on the top level, until something stands there that is none."""
    size = file.seek(0, os.SEEK_END)
    offset = 0
    for _ in range(_MAX_BOXES):
        if offset >= size:
            return
        head = os.pread(file.fileno(), 16, offset)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head[:8])
        payload = offset + 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
            payload += 8
        elif length == 0 and kind != bytes(4):
            length = size - offset
        if offset + length < payload or not kind.isascii():
            return
        yield Box(kind, payload, offset + length)
        offset += length


def diagnose(file: BinaryIO) -> str:
    """Why a file that is no whole MP4, and that nobody writes any more, is lost: for the technician."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return EMPTY
    if _is_zero(file, 0) and all(_is_zero(file, place) for place in _places(0, size)):
        return ONLY_ZEROS
    return NEVER_WRITTEN


def diagnose_without_frames(has_groups: bool) -> str:
    """Why nothing of a recording can be saved although its headers can be read."""
    if has_groups:
        return "it holds zeros instead of pictures: power was lost before they were on the card"
    return f"there is no whole picture in it: {CUT} right at its start"


def has_index(file: BinaryIO) -> bool:
    """Whether an MP4 that is not whole holds a whole index, so that its good part can be saved."""
    size = file.seek(0, os.SEEK_END)
    return any(box.kind == b"moov" and box.end <= size for box in boxes(file))


def holds_zeros(file: BinaryIO) -> bool:
    """Whether an MP4 seems to hold zeros instead of frames: a guess from a few reads, for `flag_zeroed` to confirm."""
    size = file.seek(0, os.SEEK_END)
    media = max(
        (box for box in boxes(file) if box.kind == b"mdat"), key=lambda box: box.end - box.payload, default=None
    )
    if media is None or media.end - media.payload < _PROBES * _PROBE_BYTES:
        return False
    return any(_is_zero(file, place) for place in _places(media.payload, min(media.end, size)))


def flag_zeroed(packets: Iterable[Packet], fd: int) -> Iterator[Packet]:
    """The packets of an MP4, those pictures that are zeros marked: a picture begins with its length, never 0."""
    for packet in packets:
        if packet.is_video and packet.position is not None and not any(os.pread(fd, 4, packet.position)):
            yield replace(packet, is_intact=False)
        else:
            yield packet


def is_cut_short(file: BinaryIO, container: str) -> bool:
    """Whether a file says of itself that it was meant to be longer; only AVI does, TS and MKV are written blindly."""
    if container != "AVI":
        return False
    head = os.pread(file.fileno(), 12, 0)
    size = file.seek(0, os.SEEK_END)
    claimed = struct.unpack("<4xI4x", head)[0] if len(head) == 12 else 0
    return not 0 < claimed + 8 <= size


def _places(start: int, end: int) -> list[int]:
    last = max(start, end - _PROBE_BYTES)
    return [start + (last - start) * number // _PROBES for number in range(1, _PROBES + 1)]


def _is_zero(file: BinaryIO, place: int) -> bool:
    data = os.pread(file.fileno(), _PROBE_BYTES, place)
    return bool(data) and not any(data)
