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

# Audio that every player takes in an MP4. Others, such as the PCM and ADPCM of cameras, would not even go in.
MP4_AUDIO = frozenset(("aac", "mp3", "ac3", "eac3"))
# ffmpeg's messages take one argument of the command line, which holds 128 KiB: so many numbers always fit.
MOST_PIECES = 10_000
# How far the length of a piece may be from the plan: the audio at both ends, and pictures that say no duration.
TOLERANCE_SECONDS = 1.0
_QUIET = ("-y", "-hide_banner", "-v", "error", "-nostdin", "-nostats", "-progress", "pipe:1")
# Re-encoding: a key frame each second gives pieces of any length; the bitrate keeps a second far below any limit.
_KEY_FRAME_SECONDS = 1
_MAX_BITS_PER_SECOND = 8_000_000


# Containers in which each picture begins with its length, so that zeros can be told from a picture.
_LENGTH_PREFIXED = frozenset(("MP4", "MOV"))


class SegmentTooLarge(Exception):
    """A piece came out larger than was planned: plan with a smaller aim."""


def read_gops(input_file: InputFile, probed: ProbeResult, cancel: CancelToken) -> Iterator[Segment]:
    """Reads every packet and yields the groups of pictures; those of an MP4 or MOV that hold zeros are not intact.

    Raises:
        FootageRefused: ffprobe cannot read it.
        Cancelled: `cancel` says stop.
    """
    found = packets(input_file, probed, cancel)
    return gops(damage.flag_zeroed(found, input_file.fd) if input_file.container in _LENGTH_PREFIXED else found)


def cut(
    input_file: InputFile,
    probed: ProbeResult,
    pieces: Sequence[Segment],
    folder: Path,
    *,
    keep_audio: bool,
    limits: SizeLimits,
    cancel: CancelToken,
) -> list[Path]:
    """Writes each piece as an MP4 of its own, with the index first.

    Args:
        pieces: all of the recording without a gap, those to be left out too.
        keep_audio: encode audio that an MP4 cannot hold, instead of leaving it out.
        folder: an empty folder for them.

    Returns:
        The files, one for each piece.

    Raises:
        PieceTooLarge: see there.
        FootageRefused: ffmpeg could not do it, or did something else.
        SpoolFull: the disk became full.
        Cancelled: `cancel` says stop.
    """
    if len(pieces) > MOST_PIECES:
        raise FootageRefused(f"it would be cut into {len(pieces):,} pieces: the file, or limits, cannot be right")
    command = ["ffmpeg", *_QUIET, *input_file.input, *_streams(probed, keep_audio=keep_audio)]
    if len(pieces) == 1:
        command += ["-movflags", "+faststart", "-f", "mp4", "piece00000.mp4"]
    else:
        first_pictures = ",".join(str(piece.first_frame) for piece in pieces[1:])
        command += ["-f", "segment", "-segment_format", "mp4", "-segment_format_options", "movflags=+faststart"]
        command += ["-segment_frames", first_pictures, "-reset_timestamps", "1", "piece%05d.mp4"]
    _run(command, input_file, folder, cancel)
    files = [folder / f"piece{number:05}.mp4" for number in range(len(pieces))]
    for piece, file in zip(pieces, files, strict=True):
        if piece.is_intact:
            _check(piece, file, limits)
    return files


def reencode(input_file: InputFile, probed: ProbeResult, target: Path, cancel: CancelToken) -> None:
    """Writes the whole recording anew, as H.264 with a key frame each second.

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
    """The words that say what is taken: the video as it is, the audio if it can be; no data, no subtitles, no dates.

    The original's date would be that of every piece: the API is told the true one.
    """
    words = ["-map", f"0:{probed.video.index}", "-c:v", "copy"]
    kept = [stream for stream in probed.audio if stream.codec in MP4_AUDIO or keep_audio]
    for number, stream in enumerate(kept):
        words += ["-map", f"0:{stream.index}", *_audio_codec(number, stream)]
    return [*words, "-dn", "-sn", "-map_metadata", "-1", "-map_chapters", "-1"]


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


def _check(piece: Segment, file: Path, limits: SizeLimits) -> None:
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as reading:
            seconds = mp4.read(reading).duration_seconds
    except (OSError, mp4.Mp4Error) as exc:
        raise FootageRefused(f"ffmpeg wrote a piece of it that cannot be read: {exc}") from exc
    if size_bytes > limits.max_bytes or seconds > limits.max_seconds + TOLERANCE_SECONDS:
        raise SegmentTooLarge(f"{size_bytes:,} bytes, {seconds:.1f} s")
    if abs(seconds - piece.seconds) > max(TOLERANCE_SECONDS, 0.05 * piece.seconds):
        raise FootageRefused(
            f"a piece of it lasts {seconds:.1f} s where {piece.seconds:.1f} s were read: the file is damaged"
        )
