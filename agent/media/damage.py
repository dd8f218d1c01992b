"""Damage by power loss or a bad card: detecting it, and naming the likely cause.

ffmpeg alone does not detect it: where an index points to zeros it decodes an hour of grey without an error, and of a
file that ends early it reports the duration that was intended.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from agent.media import mp4
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


def diagnose(file: BinaryIO) -> str:
    """Why a file that is not a whole MP4, and that nobody writes any more, is lost: for the technician."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return EMPTY
    if _is_zero(file, 0) and all(_is_zero(file, offset) for offset in _probe_offsets(0, size)):
        return ONLY_ZEROS
    return NEVER_WRITTEN


def diagnose_without_frames(has_segments: bool) -> str:
    """Why nothing of a recording can be saved although its headers can be read.

    Args:
        has_segments: frames are listed, but all of them are zeros.
    """
    if has_segments:
        return "it holds zeros instead of pictures: power was lost before they were on the card"
    return f"there is no whole picture in it: {CUT} right at its start"


def has_index(file: BinaryIO) -> bool:
    """Whether an MP4 that is not whole has a whole index, so that its intact part can be saved."""
    size = file.seek(0, os.SEEK_END)
    return any(box.kind == "moov" and box.end <= size for box in mp4.top_level_boxes(file))


def holds_zeros(file: BinaryIO) -> bool:
    """Whether an MP4 seems to hold zeros instead of frames: a guess from a few reads, for `flag_zeroed` to confirm."""
    size = file.seek(0, os.SEEK_END)
    media = max(
        (box for box in mp4.top_level_boxes(file) if box.kind == "mdat"),
        key=lambda box: box.end - box.payload,
        default=None,
    )
    if media is None or media.end - media.payload < _PROBES * _PROBE_BYTES:
        return False
    return any(_is_zero(file, offset) for offset in _probe_offsets(media.payload, min(media.end, size)))


def flag_zeroed(packets: Iterable[Packet], fd: int) -> Iterator[Packet]:
    """The packets of an MP4, with frames that are zeros flagged: a frame begins with its length, which is never 0.

    Args:
        fd: a descriptor of the file.
    """
    for packet in packets:
        if packet.is_video and packet.position is not None and not any(os.pread(fd, 4, packet.position)):
            yield replace(packet, is_intact=False)
        else:
            yield packet


def is_cut_short(file: BinaryIO, container: str) -> bool:
    """Whether a file was meant to be longer, by its own header. Only AVI tells; TS and MKV state no size."""
    if container != "AVI":
        return False
    head = os.pread(file.fileno(), 12, 0)
    size = file.seek(0, os.SEEK_END)
    claimed = struct.unpack("<4xI4x", head)[0] if len(head) == 12 else 0
    return not 0 < claimed + 8 <= size


def _probe_offsets(start: int, end: int) -> list[int]:
    last = max(start, end - _PROBE_BYTES)
    return [start + (last - start) * number // _PROBES for number in range(1, _PROBES + 1)]


def _is_zero(file: BinaryIO, offset: int) -> bool:
    data = os.pread(file.fileno(), _PROBE_BYTES, offset)
    return bool(data) and not any(data)
