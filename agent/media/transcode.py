"""Cutting, repacking and re-encoding with ffmpeg; cutting and repacking leave every packet as it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from agent.errors import FootageRefused, SpoolFull
from agent.media import damage, mp4
from agent.media.ffmpeg import CancelToken, InputFile, ProbeResult, Stream, ToolFailed, ToolProcess, last_line, packets
from agent.media.segments import Segment, SizeLimits, gops

log = structlog.get_logger()

# Audio that every player supports in an MP4. Others, such as the PCM and ADPCM of cameras, cannot be muxed at all.
MP4_AUDIO = frozenset(("aac", "mp3", "ac3", "eac3"))
# The list of first frames is one argument of the command line, which may have 128 KiB: this many numbers always fit.
MAX_SEGMENTS = 10_000
# How far the length of a segment may differ from the plan: by audio at both ends, and by frames without a duration.
TOLERANCE_SECONDS = 1.0
_QUIET = ("-y", "-hide_banner", "-v", "error", "-nostdin", "-nostats", "-progress", "pipe:1")
# Re-encoding: a key frame each second allows segments of any length; the bitrate keeps a second far below any limit.
_KEY_FRAME_SECONDS = 1
_MAX_BITS_PER_SECOND = 8_000_000
# Containers in which each frame begins with its length, which is never 0: zeros can be told from a frame.
_LENGTH_PREFIXED = frozenset(("MP4", "MOV"))


class SegmentTooLarge(Exception):
    """A segment came out larger than planned: plan again with a smaller aim."""


def read_gops(input_file: InputFile, probed: ProbeResult, cancel: CancelToken) -> Iterator[Segment]:
    """The groups of pictures (GOPs), by reading every packet. Those of an MP4 or MOV that hold zeros are not intact.

    Raises:
        FootageRefused: ffprobe cannot read it.
        Cancelled: the daemon is to stop.
    """
    found = packets(input_file, probed, cancel)
    return gops(damage.flag_zeroed(found, input_file.fd) if input_file.container in _LENGTH_PREFIXED else found)


def cut(
    input_file: InputFile,
    probed: ProbeResult,
    segments: Sequence[Segment],
    folder: Path,
    *,
    keep_audio: bool,
    limits: SizeLimits,
    cancel: CancelToken,
) -> list[Path]:
    """Writes each segment into an MP4 of its own, with the index first.

    Args:
        segments: all of the recording without a gap, including those that will be left out.
        folder: an empty folder for the files.
        keep_audio: encode audio that an MP4 cannot hold, instead of leaving it out.
        limits: what a file may have at most.

    Returns:
        The files, one for each segment.

    Raises:
        SegmentTooLarge: a file exceeds the limits.
        FootageRefused: ffmpeg failed, or its output is not what was planned.
        SpoolFull: the disk became full.
        Cancelled: the daemon is to stop.
    """
    if len(segments) > MAX_SEGMENTS:
        raise FootageRefused(f"it would be cut into {len(segments):,} pieces: the file, or limits, cannot be right")
    command = ["ffmpeg", *_QUIET, *input_file.input, *_streams(probed, keep_audio=keep_audio)]
    if len(segments) == 1:
        command += ["-movflags", "+faststart", "-f", "mp4", "piece00000.mp4"]
    else:
        first_frames = ",".join(str(segment.first_frame) for segment in segments[1:])
        command += ["-f", "segment", "-segment_format", "mp4", "-segment_format_options", "movflags=+faststart"]
        command += ["-segment_frames", first_frames, "-reset_timestamps", "1", "piece%05d.mp4"]
    _run(command, input_file, folder, cancel)
    files = [folder / f"piece{number:05}.mp4" for number in range(len(segments))]
    for segment, file in zip(segments, files, strict=True):
        if segment.is_intact:
            _check(segment, file, limits)
    return files


def reencode(input_file: InputFile, probed: ProbeResult, target: Path, cancel: CancelToken) -> None:
    """Re-encodes the whole recording as H.264 with a key frame each second.

    Raises: as `cut`.
    """
    command = ["ffmpeg", *_QUIET, *input_file.input, "-map", f"0:{probed.video.index}"]
    command += [word for stream in probed.audio for word in ("-map", f"0:{stream.index}")]
    command += ["-dn", "-sn", "-map_metadata", "-1", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23"]
    command += ["-maxrate", str(_MAX_BITS_PER_SECOND), "-bufsize", str(_MAX_BITS_PER_SECOND), "-pix_fmt", "yuv420p"]
    command += ["-threads", "2", "-force_key_frames", f"expr:gte(t,n_forced*{_KEY_FRAME_SECONDS})"]
    command += ["-c:a", "aac", "-f", "mp4", target.name]
    _run(command, input_file, target.parent, cancel)


def _streams(probed: ProbeResult, *, keep_audio: bool) -> list[str]:
    """The options that select streams: the video as it is, audio if possible; no data, subtitles, metadata, chapters.

    The date of the original would be wrong for every segment but the first; the API is told the right one.
    """
    options = ["-map", f"0:{probed.video.index}", "-c:v", "copy"]
    kept = [stream for stream in probed.audio if stream.codec in MP4_AUDIO or keep_audio]
    for number, stream in enumerate(kept):
        options += ["-map", f"0:{stream.index}", *_audio_codec(number, stream)]
    return [*options, "-dn", "-sn", "-map_metadata", "-1", "-map_chapters", "-1"]


def _audio_codec(number: int, stream: Stream) -> tuple[str, str]:
    return f"-c:a:{number}", "copy" if stream.codec in MP4_AUDIO else "aac"


def _run(command: Sequence[str], input_file: InputFile, folder: Path, cancel: CancelToken) -> None:
    try:
        with ToolProcess(command, cancel, fds=(input_file.fd,), folder=folder) as tool:
            tool.finish()
    except ToolFailed as exc:
        if os.strerror(errno.ENOSPC) in str(exc):
            raise SpoolFull("the disk became full while footage was cut") from exc
        raise FootageRefused(f"ffmpeg could not repack it: {last_line(str(exc))}") from exc
    if tool.stderr_bytes:
        log.debug("ffmpeg_complained", last=last_line(tool.stderr_tail), bytes=tool.stderr_bytes)


def _check(segment: Segment, file: Path, limits: SizeLimits) -> None:
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as reading:
            seconds = mp4.read(reading).duration_seconds
    except (OSError, mp4.Mp4Error) as exc:
        raise FootageRefused(f"ffmpeg wrote a piece of it that cannot be read: {exc}") from exc
    if size_bytes > limits.max_bytes or seconds > limits.max_seconds + TOLERANCE_SECONDS:
        raise SegmentTooLarge(f"{size_bytes:,} bytes, {seconds:.1f} s")
    if abs(seconds - segment.seconds) > max(TOLERANCE_SECONDS, 0.05 * segment.seconds):
        raise FootageRefused(
            f"a piece of it lasts {seconds:.1f} s where {segment.seconds:.1f} s were read: the file is damaged"
        )
