"""Where to cut: packets make up groups of pictures (GOPs), GOPs are joined to segments. Pure.

A segment begins with a key frame: only from there can frames be decoded without earlier ones. The bytes of each GOP are
counted, never estimated from the mean bitrate: a quiet street and a busy one differ eightfold in one recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from agent.errors import FootageRefused

# What an MP4 adds: an entry in up to four tables for each packet, and the headers of a file.
PACKET_OVERHEAD_BYTES = 24
FILE_OVERHEAD_BYTES = 4096
# Segments are planned for this part of the limits, since the overhead is not known to the byte.
MARGIN = 0.985
# Where a GOP ends this long before the next one begins, the recorder lost frames: the gap belongs to no clip.
GAP_SECONDS = 1.0


class SizeLimits(Protocol):
    """What one clip may have at most: bytes of its file, and seconds."""

    @property
    def max_bytes(self) -> int: ...

    @property
    def max_seconds(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of the video or of the audio, as it comes in the file.

    Args:
        seconds: presentation time, else decoding time; None if the container has neither.
        position: byte offset in the file; None if unknown.
        is_intact: False if it holds zeros instead of a frame.
    """

    is_video: bool
    seconds: float | None
    duration_seconds: float
    size_bytes: int
    is_key: bool
    position: int | None = None
    is_intact: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the recording from one key frame to another: one GOP, or several in a row.

    Args:
        first_frame: the number of its first frame, counted from the first key frame of the recording.
        start_seconds, end_seconds: since the first frame of the recording.
        size_bytes: of its file, including the container's overhead.
        is_intact: False if it is damaged and to be left out.
    """

    first_frame: int
    start_seconds: float
    end_seconds: float
    size_bytes: int
    is_intact: bool = True

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds

    def joined(self, later: Segment) -> Segment:
        """This segment with the one that follows it."""
        return replace(
            self,
            end_seconds=later.end_seconds,
            size_bytes=self.size_bytes + later.size_bytes - FILE_OVERHEAD_BYTES,
        )


class GopTooLarge(FootageRefused):
    """A single GOP exceeds a limit: only re-encoding can help."""


def gops(packets: Iterable[Packet]) -> Iterator[Segment]:
    """The GOPs, each as the smallest segment that could be cut.

    What comes before the first key frame cannot be decoded and is left out, as ffmpeg does.
    """
    origin: float | None = None
    gop: _Gop | None = None
    frame = -1
    for packet in packets:
        if packet.is_video:
            if origin is None:
                origin = packet.seconds
            begins = gop.end_seconds if gop else 0.0
            if packet.seconds is not None and origin is not None:
                begins = packet.seconds - origin
            if packet.is_key:
                if gop is not None:
                    yield gop.segment(begins)
                gop = _Gop(frame + 1, begins)
            if gop is not None:
                frame += 1
                gop.end_seconds = max(gop.end_seconds, begins + packet.duration_seconds)
                gop.is_intact &= packet.is_intact
        if gop is not None:
            gop.size_bytes += packet.size_bytes + PACKET_OVERHEAD_BYTES
    if gop is not None:
        yield gop.segment(None)


def plan_segments(found: Iterable[Segment], limits: SizeLimits, margin: float = MARGIN) -> tuple[Segment, ...]:
    """The fewest segments that stay within the limits.

    Args:
        found: the GOPs in their order.
        margin: the part of the limits that is aimed at.

    Raises:
        GopTooLarge: one of them exceeds a limit.
    """
    segments: list[Segment] = []
    for gop in found:
        if gop.is_intact:
            _check(gop, limits)
        last = segments[-1] if segments else None
        if last is not None and last.is_intact == gop.is_intact and _fits(last.joined(gop), limits, margin):
            segments[-1] = last.joined(gop)
        else:
            segments.append(gop)
    return tuple(segments)


def segment_times(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Start and end of each segment in the API's whole seconds, since the start of the recording.

    The instant at which two segments meet is rounded alike for both, so that they neither overlap nor leave a gap. Each
    lasts at least one second.
    """
    times: list[tuple[int, int]] = []
    earliest = 0
    for segment in segments:
        start = max(earliest, round_seconds(segment.start_seconds))
        earliest = max(start + 1, round_seconds(segment.end_seconds))
        times.append((start, earliest))
    return times


class _Gop:
    """A GOP while its packets are read."""

    __slots__ = ("end_seconds", "first_frame", "is_intact", "size_bytes", "start_seconds")

    def __init__(self, first_frame: int, start_seconds: float) -> None:
        self.first_frame = first_frame
        self.start_seconds = self.end_seconds = start_seconds
        self.size_bytes = FILE_OVERHEAD_BYTES
        self.is_intact = True

    def segment(self, next_begins: float | None) -> Segment:
        """The finished GOP. It lasts until the next one begins, unless frames are missing in between."""
        ends = self.end_seconds
        if next_begins is not None and self.start_seconds < next_begins < ends + GAP_SECONDS:
            ends = next_begins
        return Segment(self.first_frame, self.start_seconds, ends, self.size_bytes, self.is_intact)


def _fits(segment: Segment, limits: SizeLimits, margin: float) -> bool:
    if not segment.is_intact:
        return True
    return segment.size_bytes <= limits.max_bytes * margin and 0 <= segment.seconds <= limits.max_seconds * margin


def _check(gop: Segment, limits: SizeLimits) -> None:
    at = f"at second {gop.start_seconds:,.0f}"
    remedy = (
        "it cannot be cut without re-encoding. Set a lower bitrate or more key frames in the camera, or allow "
        "conform.reencode"
    )
    if gop.size_bytes > limits.max_bytes:
        raise GopTooLarge(
            f"a single group of pictures ({at}) has {gop.size_bytes:,} bytes and the limit is {limits.max_bytes:,} "
            f"(limits.max_bytes): {remedy}"
        )
    # The seconds that the API will see, as for whole files.
    seconds = round_seconds(gop.end_seconds) - round_seconds(gop.start_seconds)
    if seconds > limits.max_seconds:
        raise GopTooLarge(
            f"a single group of pictures ({at}) lasts {seconds:,} s and the limit is {limits.max_seconds:,} s "
            f"(limits.max_seconds): {remedy}"
        )


def round_seconds(seconds: float) -> int:
    """Whole seconds, rounded half up. (`round` makes 2 of 2.5, and 4 of 3.5.)"""
    return math.floor(seconds + 0.5)
