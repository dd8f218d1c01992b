"""The headers of an MP4: duration, tracks, codec. Never reads sample tables or pictures.

Layouts are those of ISO/IEC 14496-12 (boxes) and the QuickTime File Format. The bytes may be anything at all, so work
and memory are bounded whatever they claim: a box is a promise about the file, never a reason to allocate.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO

from agent.errors import VisionIngestError

# Five minutes at 30 pictures a second with a fragment for each picture come to 63,000 boxes: more is not a recording.
MAX_BOXES = 65_536
# All headers of an ordinary recording fit in 4 KiB; per-picture durations of a fragmented one take 12 bytes a picture.
MAX_BYTES = 4 * 1024 * 1024

_EPOCH = datetime(1904, 1, 1, tzinfo=timezone.utc)
_EARLIEST_CREATION_SECONDS = int((datetime(2000, 1, 1, tzinfo=timezone.utc) - _EPOCH).total_seconds())
_KIND_BYTES = frozenset((*range(0x20, 0x7F), 0xA9))  # QuickTime's own kinds begin with a copyright sign.
_UNSET = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_LIKELY_CAUSE = "the recording was cut by a power loss, or it is still being written or copied"

_FIRST_BOXES = frozenset(
    ("ftyp", "styp", "moov", "moof", "mdat", "free", "skip", "wide", "uuid", "pdin", "pnot", "sidx", "udta")
)
_HEAD_BYTES = 400
_SIGNATURES = (
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
    (8, b"AVI ", "AVI"),
    (0, b"RIFF", "a RIFF file"),
    (0, b"IMKH", "Hikvision's own format"),
    (0, b"HKMI", "Hikvision's own format"),
    (0, b"DHAV", "Dahua's own format (DAV)"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream (Hikvision and EZVIZ recorders write it into hiv*.mp4)"),
    (0, b"\x00\x00\x00\x01", "a bare H.264 or H.265 stream without a container"),
    (0, b"\x00\x00\x01", "a bare MPEG stream without a container"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"PK\x03\x04", "a ZIP archive"),
)
_TRANSPORT_STREAM_SYNCS = ((0, 188, 376), (4, 196, 388))
_PICTURE_BRANDS = frozenset(("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1", "avif", "avis"))


class Mp4Error(VisionIngestError):
    """This file is not an MP4 that can be used; the text says why in a technician's words."""


class NotMp4(Mp4Error):
    """The file is of another kind, and never will be an MP4; the text says what it looks like."""


class Mp4Incomplete(Mp4Error):
    """A part of the file is missing: it may become whole if somebody is still writing it."""


class Mp4Malformed(Mp4Error):
    """The file is an MP4 whose headers contradict themselves or exceed all reason."""


@dataclass(frozen=True, slots=True)
class Track:
    """One track of a movie.

    Args:
        id: the track's number, as fragments refer to it.
        kind: the handler: "vide", "soun", "text", …; empty if the track names none.
        codec: the four-character code of the first sample description, such as "avc1"; empty if there is none.
        timescale: ticks a second; 0 if unknown.
        ticks: the duration that the index gives; None if it gives none (it leaves out what is in fragments).
    """

    id: int
    kind: str
    codec: str
    timescale: int
    ticks: int | None


@dataclass(frozen=True, slots=True)
class Movie:
    """What the headers of a whole MP4 say.

    Args:
        brand: the major brand, such as "isom" or "qt  "; empty if the file has no ftyp box, as old QuickTime files.
        duration_seconds: of the first video track, else of the movie; 0.0 if the headers give none.
        created: aware UTC as written, but many cameras write local time, or the time of closing; None if unset or
            before 2000.
        tracks: in the file's order.
    """

    brand: str
    duration_seconds: float
    created: datetime | None
    tracks: tuple[Track, ...]

    @property
    def video(self) -> Track | None:
        """The first video track."""
        return _first_video(self.tracks)


def read(file: BinaryIO) -> Movie:
    """Read the headers of an MP4.

    Args:
        file: open for reading and seekable; buffered, an ordinary recording costs a handful of system calls.

    Raises:
        NotMp4, Mp4Incomplete, Mp4Malformed: see there.
        OSError: the file cannot be read.
    """
    walk = _Walk(file)
    head = walk.bytes_at(0, min(walk.size, _HEAD_BYTES))
    _check_first_bytes(head)
    brand = ""
    index: _Index | None = None
    media_bytes = 0
    offset = 0
    while box := walk.box_at(offset, walk.size):
        if box.end > walk.size:
            if index and box.kind not in ("mdat", "moof"):
                break  # Some cameras append data of their own after a complete recording.
            raise Mp4Incomplete(
                f"the file ends at byte {walk.size:,}, inside its {box.kind} box which goes to byte {box.end:,}: "
                f"{_LIKELY_CAUSE}"
            )
        if box.kind == "ftyp":
            brand = walk.unpack(box, ">4s")[0].decode("latin-1")
            if brand in _PICTURE_BRANDS:
                raise NotMp4(f"it is not an MP4 but a HEIC or AVIF picture (brand {brand})")
        elif box.kind == "mdat":
            media_bytes += box.end - box.payload
        elif box.kind == "moov" and index is None:
            index = _read_index(walk, box)
        elif box.kind == "moof" and index is not None:
            index.add_fragment(walk, box)
        offset = box.end
    if index is None:
        raise Mp4Incomplete(f"the index (moov) is missing{_rest(walk, offset)}: {_LIKELY_CAUSE}")
    if media_bytes == 0:
        raise Mp4Incomplete(f"there is an index (moov) but no pictures (mdat): {_LIKELY_CAUSE}")
    return Movie(brand, index.duration_seconds, index.created, tuple(index.tracks))


def top_level_boxes(file: BinaryIO) -> Iterator[Box]:
    """The top-level boxes of a file that may be damaged, up to the first bytes that are not a box."""
    walk = _Walk(file)
    offset = 0
    with suppress(Mp4Error):
        while box := walk.box_at(offset, walk.size):
            yield box
            offset = box.end


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its content lies between `payload` and `end`, which may lie past the end of the file."""

    kind: str
    payload: int
    end: int


class _Walk:
    """Hands out boxes and header fields of a file, within the bounds on work and memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._boxes_left = MAX_BOXES
        self._bytes_left = MAX_BYTES

    def bytes_at(self, offset: int, count: int) -> bytes:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise Mp4Malformed(f"its headers are larger than {MAX_BYTES:,} bytes: the file is damaged")
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) < count:
            raise Mp4Incomplete("the file became shorter while it was read: it is still being written or copied")
        return data

    def box_at(self, offset: int, end: int) -> Box | None:
        """The box that starts at `offset`, which may reach past `end`; None if no box can start there."""
        if end - offset < 8:
            return None
        self._boxes_left -= 1
        if self._boxes_left < 0:
            raise Mp4Malformed(f"it has more than {MAX_BOXES:,} boxes: the file is damaged")
        size, kind = struct.unpack(">I4s", self.bytes_at(offset, 8))
        payload = offset + 8
        if not all(byte in _KIND_BYTES for byte in kind):
            return None
        if size == 0:
            size = end - offset
        elif size == 1:
            if end - payload < 8:
                return None
            (size,) = struct.unpack(">Q", self.bytes_at(payload, 8))
            payload += 8
        if offset + size < payload:
            return None
        return Box(kind.decode("latin-1"), payload, offset + size)

    def children(self, parent: Box) -> Iterator[Box]:
        offset = parent.payload
        while child := self.box_at(offset, parent.end):
            if child.end > parent.end:
                raise Mp4Malformed(f"a {child.kind} box reaches out of the {parent.kind} box around it: damaged index")
            yield child
            offset = child.end

    def unpack(self, box: Box, layout: str, at: int = 0) -> tuple[Any, ...]:
        """The fields of `layout` (see `struct`) that stand `at` bytes into the payload of `box`."""
        count = struct.calcsize(layout)
        if box.payload + at + count > box.end:
            raise Mp4Malformed(f"its {box.kind} box is too short: the file is damaged")
        return struct.unpack(layout, self.bytes_at(box.payload + at, count))


@dataclass(slots=True)
class _Index:
    """What the moov box says, and the end of the fragments added since.

    Args:
        timescale, ticks: of the whole movie, as in Track.
        announced_ticks: duration with all fragments, in the movie's timescale, if the recorder knew it beforehand.
        default_ticks: track id to the duration of a picture in fragments that do not say.
        begin_ticks, end_ticks: the fragments' span of the video track, in that track's timescale.
    """

    timescale: int
    ticks: int | None
    created: datetime | None
    tracks: list[Track] = field(default_factory=list)
    announced_ticks: int | None = None
    default_ticks: dict[int, int] = field(default_factory=dict)
    begin_ticks: int | None = None
    end_ticks: int = 0

    @property
    def duration_seconds(self) -> float:
        video = _first_video(self.tracks)
        if self.announced_ticks and self.timescale:
            return self.announced_ticks / self.timescale
        if self.begin_ticks is not None and video and video.timescale:
            return max(0, self.end_ticks - self.begin_ticks) / video.timescale
        if video and video.ticks and video.timescale:
            return video.ticks / video.timescale
        if self.ticks and self.timescale:
            return self.ticks / self.timescale
        return 0.0

    def add_fragment(self, walk: _Walk, moof: Box) -> None:
        """Stretch the span by one moof box: where it begins (tfdt, else after the one before) and how long it runs."""
        video = _first_video(self.tracks)
        if video is None:
            return
        if self.begin_ticks is None and video.ticks:
            self.begin_ticks, self.end_ticks = 0, video.ticks  # The first pictures lie in the index itself.
        for traf in walk.children(moof):
            if traf.kind == "traf":
                self._add_track_fragment(walk, traf, video.id)

    def _add_track_fragment(self, walk: _Walk, traf: Box, video_id: int) -> None:
        begin = self.end_ticks
        run_ticks = 0
        picture_ticks = self.default_ticks.get(video_id, 0)
        for box in walk.children(traf):
            if box.kind == "tfhd":
                flags, track_id = walk.unpack(box, ">II")
                if track_id != video_id:
                    return
                if flags & 0x8:
                    (picture_ticks,) = walk.unpack(box, ">I", 8 + 8 * bool(flags & 0x1) + 4 * bool(flags & 0x2))
            elif box.kind == "tfdt":
                (version,) = walk.unpack(box, ">B")
                (begin,) = walk.unpack(box, ">Q" if version == 1 else ">I", 4)
            elif box.kind == "trun":
                run_ticks += _run_ticks(walk, box, picture_ticks)
        if self.begin_ticks is None:
            self.begin_ticks = begin
        self.end_ticks = max(self.end_ticks, begin + run_ticks)


def _run_ticks(walk: _Walk, trun: Box, picture_ticks: int) -> int:
    """How long a run of pictures lasts; their own durations are streamed, not held."""
    flags, count = walk.unpack(trun, ">II")
    if not flags & 0x100:
        return int(count * picture_ticks)
    first = trun.payload + 8 + 4 * bool(flags & 0x1) + 4 * bool(flags & 0x4)
    entry_bytes = 4 * (flags & 0xF00).bit_count()
    end = first + count * entry_bytes
    if end > trun.end:
        raise Mp4Malformed(f"its trun box claims {count:,} pictures, more than it holds: the file is damaged")
    ticks = 0
    for offset in range(first, end, 4096 * entry_bytes):
        block = walk.bytes_at(offset, min(4096 * entry_bytes, end - offset))
        ticks += sum(own for (own,) in struct.iter_unpack(f">I{entry_bytes - 4}x", block))
    return ticks


def _read_index(walk: _Walk, moov: Box) -> _Index:
    index: _Index | None = None
    tracks = []
    extends: Box | None = None
    for box in walk.children(moov):
        if box.kind == "mvhd":
            created, timescale, ticks = _clock(walk, box)
            index = _Index(timescale, ticks, _created(created))
        elif box.kind == "trak":
            tracks.append(_read_track(walk, box))
        elif box.kind == "mvex":
            extends = box
    if index is None:
        raise Mp4Malformed("its index (moov) has no movie header (mvhd): the file is damaged")
    index.tracks = tracks
    if extends:
        _read_extends(walk, extends, index)
    return index


def _read_extends(walk: _Walk, mvex: Box, index: _Index) -> None:
    for box in walk.children(mvex):
        if box.kind == "mehd":
            (version,) = walk.unpack(box, ">B")
            (ticks,) = walk.unpack(box, ">Q" if version == 1 else ">I", 4)
            index.announced_ticks = None if ticks in _UNSET else ticks
        elif box.kind == "trex":
            track_id, ticks = walk.unpack(box, ">4xI4xI")
            index.default_ticks[track_id] = ticks


def _read_track(walk: _Walk, trak: Box) -> Track:
    track_id = timescale = 0
    ticks: int | None = None
    kind = codec = ""
    for box in walk.children(trak):
        if box.kind == "tkhd":
            (version,) = walk.unpack(box, ">B")
            (track_id,) = walk.unpack(box, ">I", 20 if version == 1 else 12)
        elif box.kind == "mdia":
            for media in walk.children(box):
                if media.kind == "mdhd":
                    _, timescale, ticks = _clock(walk, media)
                elif media.kind == "hdlr":
                    kind = walk.unpack(media, ">8x4s")[0].decode("latin-1")
                elif media.kind == "minf":
                    codec = _read_codec(walk, media)
    return Track(track_id, kind, codec, timescale, ticks)


def _read_codec(walk: _Walk, minf: Box) -> str:
    for stbl in walk.children(minf):
        if stbl.kind == "stbl":
            for stsd in walk.children(stbl):
                if stsd.kind == "stsd":
                    (entries,) = walk.unpack(stsd, ">4xI")
                    return walk.unpack(stsd, ">12x4s")[0].decode("latin-1") if entries else ""
    return ""


def _clock(walk: _Walk, box: Box) -> tuple[int, int, int | None]:
    """Creation (seconds since 1904), timescale and ticks of an mvhd or mdhd box, which share this layout."""
    (version,) = walk.unpack(box, ">B")
    created, timescale, ticks = walk.unpack(box, ">4xQ8xIQ" if version == 1 else ">4xI4xII")
    return created, timescale, None if ticks in _UNSET else ticks


def _created(seconds: int) -> datetime | None:
    if seconds < _EARLIEST_CREATION_SECONDS or seconds in _UNSET:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _first_video(tracks: Iterable[Track]) -> Track | None:
    return next((track for track in tracks if track.kind == "vide"), None)


def _check_first_bytes(head: bytes) -> None:
    if len(head) < 8:
        size = f"has only {len(head)} bytes" if head else "is empty"
        raise Mp4Incomplete(
            f"the file {size}: power was lost before anything was written, or it is about to be written"
        )
    if head[4:8].decode("latin-1") in _FIRST_BOXES:
        return
    if not any(head):
        raise Mp4Incomplete(f"the file begins with zeros, as space that was reserved but not written: {_LIKELY_CAUSE}")
    raise NotMp4(f"it is not an MP4; it looks like {_looks_like(head)}")


def _looks_like(head: bytes) -> str:
    for offset, signature, name in _SIGNATURES:
        if head.startswith(signature, offset):
            return name
    for syncs in _TRANSPORT_STREAM_SYNCS:
        if all(head[sync : sync + 1] == b"\x47" for sync in syncs):
            return "an MPEG transport stream (TS)"
    if head.isascii() and not any(byte < 0x20 and byte not in b"\t\r\n" for byte in head):
        return "text"
    return f"no video that is known here (its first bytes are {head[:8].hex(' ')})"


def _rest(walk: _Walk, offset: int) -> str:
    """What stands where the walk ended before it found an index."""
    if walk.size - offset < 8:
        return ""
    rest = walk.bytes_at(offset, min(_HEAD_BYTES, walk.size - offset))
    found = "no box" if any(rest) else "only zeros"
    return f", with {found} from byte {offset:,} on"
