"""Where to cut: packets become groups of pictures, groups become pieces. Pure.

A piece begins with a key frame, for only there can a picture be shown without those before it. The bytes of each group
are counted, never estimated from the mean: a quiet street and a busy one differ eightfold in one recording.
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
# Pieces are planned this much below the limits, since the overhead is not known to the byte.
MARGIN = 0.985
# Where the pictures of one group end so long before the next begins, the recorder lost some: that is no part of a clip.
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
        seconds: when it is shown, or decoded where the container does not say; None if it says neither.
        position: where its bytes stand in the file; None if that is not known.
        is_good: False if there is no picture in it.
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
    """A stretch of the recording from one key frame to another: one group of pictures, or several in a row.

    Args:
        first_picture: the number of its first picture, counted from the first key frame of the recording.
        start_seconds, end_seconds: since the first picture of the recording.
        size_bytes: of its file, with what the container adds.
        is_good: False for what is damaged and to be left out.
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
        """This piece with the one that follows it."""
        return replace(
            self,
            end_seconds=later.end_seconds,
            size_bytes=self.size_bytes + later.size_bytes - FILE_OVERHEAD_BYTES,
        )


class GopTooLarge(FootageRefused):
    """One group of pictures is over a limit by itself: only re-encoding can help."""


def gops(packets: Iterable[Packet]) -> Iterator[Segment]:
    """The groups of pictures, each as the smallest piece that could be cut.

    What comes before the first key frame cannot be shown and is left out, as ffmpeg does.
    """
    origin: float | None = None
    group: _Group | None = None
    picture = -1
    for packet in packets:
        if packet.is_video:
            if origin is None:
                origin = packet.seconds
            begins = group.end_seconds if group else 0.0
            if packet.seconds is not None and origin is not None:
                begins = packet.seconds - origin
            if packet.is_key:
                if group is not None:
                    yield group.piece(begins)
                group = _Group(picture + 1, begins)
            if group is not None:
                picture += 1
                group.end_seconds = max(group.end_seconds, begins + packet.duration_seconds)
                group.is_intact &= packet.is_intact
        if group is not None:
            group.size_bytes += packet.size_bytes + PACKET_OVERHEAD_BYTES
    if group is not None:
        yield group.piece(None)


def plan_segments(found: Iterable[Segment], limits: SizeLimits, margin: float = MARGIN) -> tuple[Segment, ...]:
    """The fewest pieces that stay within the limits.

    Args:
        found: the groups of pictures in their order.
        margin: what part of the limits is aimed at.

    Raises:
        GroupTooLarge: one of them is over a limit.
    """
    pieces: list[Segment] = []
    for group in found:
        if group.is_intact:
            _check(group, limits)
        last = pieces[-1] if pieces else None
        if last is not None and last.is_intact == group.is_intact and _fits(last.joined(group), limits, margin):
            pieces[-1] = last.joined(group)
        else:
            pieces.append(group)
    return tuple(pieces)


def segment_times(pieces: Sequence[Segment]) -> list[tuple[int, int]]:
    """Start and end of each piece in the API's whole seconds, since the start of the recording.

    A moment that two pieces share is rounded to the same second for both, so that they neither overlap nor leave a
    gap; each lasts at least one second.
    """
    times: list[tuple[int, int]] = []
    earliest = 0
    for piece in pieces:
        start = max(earliest, round_seconds(piece.start_seconds))
        earliest = max(start + 1, round_seconds(piece.end_seconds))
        times.append((start, earliest))
    return times


class _Group:
    """A group of pictures while its packets come in."""

    __slots__ = ("end_seconds", "first_frame", "is_intact", "size_bytes", "start_seconds")

    def __init__(self, first_frame: int, start_seconds: float) -> None:
        self.first_frame = first_frame
        self.start_seconds = self.end_seconds = start_seconds
        self.size_bytes = FILE_OVERHEAD_BYTES
        self.is_intact = True

    def piece(self, next_begins: float | None) -> Segment:
        """All of it, when the next group is known: it lasts until that one begins, unless something is missing."""
        ends = self.end_seconds
        if next_begins is not None and self.start_seconds < next_begins < ends + GAP_SECONDS:
            ends = next_begins
        return Segment(self.first_frame, self.start_seconds, ends, self.size_bytes, self.is_intact)


def _fits(piece: Segment, limits: SizeLimits, margin: float) -> bool:
    if not piece.is_intact:
        return True
    return piece.size_bytes <= limits.max_bytes * margin and 0 <= piece.seconds <= limits.max_seconds * margin


def _check(group: Segment, limits: SizeLimits) -> None:
    at = f"at second {group.start_seconds:,.0f}"
    remedy = (
        "it cannot be cut without re-encoding. Set a lower bitrate or more key frames in the camera, or allow "
        "conform.reencode"
    )
    if group.size_bytes > limits.max_bytes:
        raise GopTooLarge(
            f"a single group of pictures ({at}) has {group.size_bytes:,} bytes and the limit is {limits.max_bytes:,} "
            f"(limits.max_bytes): {remedy}"
        )
    # The seconds that the API will see, as for whole files.
    seconds = round_seconds(group.end_seconds) - round_seconds(group.start_seconds)
    if seconds > limits.max_seconds:
        raise GopTooLarge(
            f"a single group of pictures ({at}) lasts {seconds:,} s and the limit is {limits.max_seconds:,} s "
            f"(limits.max_seconds): {remedy}"
        )


def round_seconds(seconds: float) -> int:
    """Half a second rounds up, always: `round` takes 2.5 to 2 and 3.5 to 4."""
    return math.floor(seconds + 0.5)
