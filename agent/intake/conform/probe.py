"""What ffprobe says of a file: its streams, and every packet of it, streamed so that memory stays small."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from agent.errors import FootageRefused
from agent.intake.conform.plan import Packet
from agent.intake.conform.process import CancelToken, ToolFailed, ToolProcess, last_line

# ffmpeg is told which demuxer to use: left to guess, it also takes playlists, which name other files to read.
DEMUXERS = {"MP4": "mov", "MOV": "mov", "TS": "mpegts", "AVI": "avi", "MKV": "matroska"}
# As sample descriptions in MP4 call them, so that the same codec has one name wherever it was found.
_CODES = {
    "h264": "avc1",
    "hevc": "hvc1",
    "mjpeg": "jpeg",
    "mpeg4": "mp4v",
    "h263": "s263",
    "vp9": "vp09",
    "av1": "av01",
}
_SYNC_PLACES = ((0, 188, 376), (4, 196, 388))
_HEAD_BYTES = 400


@dataclass(frozen=True, slots=True)
class InputFile:
    """Footage as ffmpeg opens it: by a descriptor, so that it stays the same file whatever happens to its name.

    Args:
        fd: an open descriptor of it.
        container: a key of DEMUXERS.
    """

    fd: int
    container: str

    @property
    def input(self) -> tuple[str, ...]:
        """The words that name it to ffmpeg and ffprobe."""
        return ("-protocol_whitelist", "file", "-f", DEMUXERS[self.container], "-i", f"file:/proc/self/fd/{self.fd}")


@dataclass(frozen=True, slots=True)
class Stream:
    """Args:
    index: its number in the file.
    codec: the name that ffmpeg has for it, such as "h264".
    """

    index: int
    codec: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the headers of a file say.

    Args:
        video: the first video stream that is no cover picture.
        audio: all audio streams.
        duration_seconds: of the video, else of the whole; 0.0 if the headers say nothing.
    """

    video: Stream
    audio: tuple[Stream, ...]
    duration_seconds: float

    @property
    def code(self) -> str:
        """The video's codec as a four-character code, as `Media.codec`."""
        return _CODES.get(self.video.codec, self.video.codec)


def container_of(file: BinaryIO) -> str | None:
    """The container by a file's first bytes, of those that ffmpeg is used for beside MP4: TS, AVI, MKV; None: other."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "MKV"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "AVI"
    if any(all(head[place : place + 1] == b"\x47" for place in places) for places in _SYNC_PLACES):
        return "TS"
    return None


def probe_file(source: InputFile, watch: CancelToken) -> ProbeResult:
    """Reads the headers.

    Raises:
        FootageRefused: ffprobe can make nothing of it, or there is no video in it.
        Cancelled: `watch` says stop.
    """
    entries = "format=duration:stream=index,codec_type,codec_name,duration:stream_disposition=attached_pic"
    command = ("ffprobe", "-v", "error", "-of", "json", "-show_entries", entries, *source.input)
    try:
        with ToolProcess(command, watch, fds=(source.fd,)) as child:
            said = json.loads("\n".join(child.lines()))
    except (ToolFailed, ValueError) as exc:
        raise FootageRefused(f"no video can be read from it: {last_line(str(exc))}") from exc
    streams: list[Mapping[str, Any]] = said.get("streams", [])
    video = next((s for s in streams if s.get("codec_type") == "video" and not _is_picture(s)), None)
    if video is None:
        raise FootageRefused("it has no video track")
    audio = tuple(_stream(s) for s in streams if s.get("codec_type") == "audio")
    durations = (video.get("duration"), said.get("format", {}).get("duration"))
    seconds = next(filter(None, (_number(str(duration)) for duration in durations)), 0.0)
    return ProbeResult(_stream(video), audio, max(0.0, seconds))


def packets(source: InputFile, facts: ProbeResult, watch: CancelToken) -> Iterator[Packet]:
    """Every packet of the video and the audio, in the file's order.

    Raises:
        FootageRefused: ffprobe gave up, or the card stood still.
        Cancelled: `watch` says stop.
    """
    video = facts.video.index
    kept = {video, *(stream.index for stream in facts.audio)}
    entries = "packet=stream_index,pts_time,dts_time,duration_time,size,pos,flags"
    command = ("ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", entries, *source.input)
    try:
        with ToolProcess(command, watch, fds=(source.fd,)) as child:
            for line in child.lines():
                fields = line.split(",")
                if len(fields) >= 7 and fields[0].isdigit() and int(fields[0]) in kept:
                    yield _packet(fields, video)
    except ToolFailed as exc:
        raise FootageRefused(f"its pictures cannot be read: {last_line(str(exc))}") from exc


def _packet(fields: list[str], video: int) -> Packet:
    index, pts, dts, duration, size, position, flags = fields[:7]
    moment = _number(pts)
    return Packet(
        is_video=int(index) == video,
        seconds=_number(dts) if moment is None else moment,
        duration_seconds=_number(duration) or 0.0,
        size_bytes=int(_number(size) or 0),
        is_key=flags.startswith("K"),
        position=int(position) if position.isdigit() else None,
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _stream(said: Mapping[str, Any]) -> Stream:
    return Stream(int(said["index"]), str(said.get("codec_name", "unknown")))


def _is_picture(said: Mapping[str, Any]) -> bool:
    return bool(said.get("disposition", {}).get("attached_pic"))
