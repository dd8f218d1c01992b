"""Does a recording fit the API as it is? What does not is refused with what to change on the camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

import structlog

from agent.config import Conform, Limits
from agent.device.safe_open import RETRY_REFUSED_SECONDS, open_regular_file
from agent.errors import FootageRefused, printable
from agent.intake.identify.recording import MP4, Media, Recording
from agent.media import damage
from agent.media.ffmpeg import CancelToken, InputFile, is_installed, needs_ffmpeg, probe_file
from agent.media.segments import MARGIN, Segment, plan_segments, round_seconds, segment_times
from agent.media.transcode import read_gops
from agent.model import Clip, ClipKey

_CODEC_NAMES = {
    "av01": "AV1",
    "encv": "encrypted video",
    "jpeg": "Motion JPEG",
    "mjpa": "Motion JPEG",
    "mjpb": "Motion JPEG",
    "mp4v": "MPEG-4 Part 2",
    "s263": "H.263",
    "vp09": "VP9",
}
_H264_CODECS = frozenset(("avc1", "avc3"))
_HEVC_CODECS = frozenset(("hvc1", "hev1", "dvh1", "dvhe"))


log = structlog.get_logger()

ZEROS = "a part of it holds zeros where pictures should be: power was lost before they were on the card"


@dataclass(frozen=True, slots=True)
class ConformJob:
    """A recording that does not fit as it is.

    Args:
        recording: what is known of it.
        is_whole: False for an MP4 that ends early, of which the good part is to be saved.
    """

    recording: Recording
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What a plan depends on besides the recording.

    Args:
        limits: what one clip may have at most.
        conform: whether footage may be cut, repacked, saved from damage, and encoded again.
        has_ffmpeg: whether ffmpeg is installed; asked only where the plan needs it.
    """

    limits: Limits
    conform: Conform
    has_ffmpeg: Callable[[], bool] = is_installed


@dataclass(frozen=True, slots=True)
class AsIs:
    """The API takes the file as it is.

    Args:
        clip: what it is delivered as.
        doubt: why it may be damaged, where ffmpeg is missing to find out; empty if there is no doubt.
    """

    clip: Clip
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """It cannot be delivered.

    Args:
        reason: what to change, for the technician.
        retry_after_seconds: when to look at it again; None if only a new file or new settings can help.
    """

    reason: str
    retry_after_seconds: float | None = None

    @property
    def error(self) -> FootageRefused:
        return FootageRefused(self.reason, self.retry_after_seconds)


@dataclass(frozen=True, slots=True)
class Cut:
    """It is over a limit: it is cut at key frames, without encoding. Args: reason: which limit."""

    reason: str


@dataclass(frozen=True, slots=True)
class Repack:
    """Its container is not MP4: its packets go into one unchanged. Args: reason: which container."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reencode:
    """Its codec is not H.264, and the configuration allows encoding. Args: reason: for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Salvage:
    """It is damaged, or seems to be: its good part is saved.

    Args:
        reason: what the damage is.
        if_intact: what to do if reading it all finds no damage; None if it is known to be damaged.
    """

    reason: str
    if_intact: AsIs | Reject | None = None


Work: TypeAlias = "Cut | Repack | Reencode | Salvage"
Plan: TypeAlias = "AsIs | Reject | Work"


def plan(recording: Recording, settings: PlanSettings) -> Plan:
    """What is to be done to a recording so that the API takes it. Pure, but for the question whether ffmpeg is there.

    A limit is compared with the whole seconds that the API will see.
    """
    conform = settings.conform
    chosen = _plan_codec(recording.media.codec, conform) or _plan_h264(recording, settings.limits, conform)
    if isinstance(chosen, AsIs | Reject) or settings.has_ffmpeg():
        return chosen
    if isinstance(chosen, Salvage) and chosen.if_intact is not None:
        # Footage is too precious to be held back for a doubt that only ffmpeg could settle.
        intact = chosen.if_intact
        return replace(intact, doubt=chosen.reason) if isinstance(intact, AsIs) else intact
    return Reject(needs_ffmpeg(chosen.reason), RETRY_REFUSED_SECONDS)


def _plan_codec(codec: str | None, conform: Conform) -> Reencode | Reject | None:
    """What the codec alone decides; None if it is H.264."""
    if codec is None:
        return Reject("it has no video track")
    if is_h264(codec):
        return None
    if conform.enabled and conform.reencode:
        return Reencode("its video is to be encoded again (conform.reencode)")
    return Reject(unsupported_codec_reason(codec))


def _plan_h264(recording: Recording, limits: Limits, conform: Conform) -> Plan:
    media = recording.media
    if conform.enabled:
        if not media.is_whole:
            return Salvage(damage.CUT)
        excess = _excess(recording, limits)
        if media.container != MP4:
            reason = f"it is {media.container}"
            return Cut(reason) if excess else Repack(reason)
        if excess:
            return Cut(excess)
    unchanged = _plan_unchanged(recording, limits)
    return Salvage(ZEROS, unchanged) if conform.enabled and media.may_hold_zeros else unchanged


def _excess(recording: Recording, limits: Limits) -> str:
    """Which limit the whole recording exceeds; empty if none."""
    size_bytes, seconds = recording.footage.size_bytes, round_seconds(recording.media.duration_seconds)
    if size_bytes > limits.max_bytes:
        return f"it has {size_bytes:,} bytes, more than limits.max_bytes"
    if seconds > limits.max_seconds:
        return f"it lasts {seconds:,} s, more than limits.max_seconds"
    return ""


def _plan_unchanged(recording: Recording, limits: Limits) -> AsIs | Reject:
    """What becomes of H.264 video that must stay as it is."""
    media, size_bytes = recording.media, recording.footage.size_bytes
    if not media.is_whole:
        return Reject(f"{damage.CUT}: with conform.enabled = true its good part can be saved")
    if media.container != MP4:
        return Reject(f"its container is {media.container}, not MP4: switch the camera from {media.container} to MP4")
    if media.duration_seconds <= 0:
        return Reject("its headers give it no duration: nothing was recorded, or the file is damaged")
    # The API's timestamps have whole seconds, and a clip must end after it starts.
    seconds = max(1, round_seconds(media.duration_seconds))
    if size_bytes > limits.max_bytes:
        return Reject(
            f"it has {size_bytes:,} bytes and the limit is {limits.max_bytes:,} (limits.max_bytes): "
            "set a shorter loop or a lower bitrate in the camera"
        )
    if seconds > limits.max_seconds:
        return Reject(
            f"it lasts {seconds:,} s and the limit is {limits.max_seconds:,} s (limits.max_seconds): "
            "set a shorter loop in the camera"
        )
    end = recording.start + timedelta(seconds=seconds)
    return AsIs(
        Clip(
            recording.footage,
            ClipKey(recording.registration, recording.camera, recording.start, end),
            priority=recording.priority,
            comments=recording.comments,
            sources={**recording.sources, "end": "start and the duration in the file's headers"},
        )
    )


def passthrough(recording: Recording, limits: Limits) -> Clip:
    """The clip that the whole file makes.

    Raises:
        FootageRefused: the API would not take it; the reason says what to change.
    """
    check_format(recording.media)
    seconds = whole_seconds(recording.media.duration_seconds)
    _check_limits(recording.footage.size_bytes, seconds, limits)
    ended = recording.start + timedelta(seconds=seconds)
    return Clip(
        recording.footage,
        ClipKey(recording.registration, recording.camera, recording.start, ended),
        priority=recording.priority,
        comments=recording.comments,
        sources={**recording.sources, "end": "start and the duration in the file's headers"},
    )


def check_format(media: Media) -> None:
    """Raises FootageRefused: the container or the codec is not one that the API takes."""
    if media.codec is None:
        raise FootageRefused("it has no video track")
    if not is_h264(media.codec):
        raise FootageRefused(unsupported_codec_reason(media.codec))
    if media.container != MP4:
        raise FootageRefused(
            f"its container is {media.container}, not MP4: switch the camera from {media.container} to MP4"
        )


def is_h264(code: str) -> bool:
    return code in _H264_CODECS


def unsupported_codec_reason(code: str) -> str:
    """Why video of another codec than H.264 is refused."""
    if code in _HEVC_CODECS:
        return "its video is H.265/HEVC, which is not taken: switch the camera from H.265/HEVC to H.264"
    return f"its video is {codec_name(code)}, which is not taken: switch the camera to H.264"


def codec_name(code: str) -> str:
    """A codec as people call it."""
    if code in _H264_CODECS:
        return "H.264"
    if code in _HEVC_CODECS:
        return "H.265/HEVC"
    return _CODEC_NAMES.get(code, printable(code) or "of an unknown kind")


def whole_seconds(duration_seconds: float) -> int:
    """At least 1: the API's timestamps have whole seconds, and a clip must end after it starts."""
    if duration_seconds <= 0:
        raise FootageRefused("its headers give it no duration: nothing was recorded, or the file is damaged")
    return max(1, round(duration_seconds))


def _check_limits(size_bytes: int, seconds: int, limits: Limits) -> None:
    if size_bytes > limits.max_bytes:
        raise FootageRefused(
            f"it has {size_bytes:,} bytes and the limit is {limits.max_bytes:,} (limits.max_bytes): "
            "set a shorter loop or a lower bitrate in the camera"
        )
    if seconds > limits.max_seconds:
        raise FootageRefused(
            f"it lasts {seconds:,} s and the limit is {limits.max_seconds:,} s (limits.max_seconds): "
            "set a shorter loop in the camera"
        )


def needs_work(job: ConformJob, limits: Limits, conform: Conform) -> bool:
    """Whether something is to be done to a recording; if not, it is taken, or refused, as it is.

    Raises:
        FootageRefused: something is to be done to it, and ffmpeg is not installed.
        FootageGone: it vanished.
    """
    why = _why(job, limits, conform)
    if why is None or is_installed():
        return why is not None
    if why != ZEROS:
        raise FootageRefused(needs_ffmpeg(why), RETRY_REFUSED_SECONDS)
    log.warning("footage_doubtful", footage=str(job.recording.footage.path), reason=why)
    return False


def forecast(recording: Recording, limits: Limits, watch: CancelToken, *, exactly: bool) -> list[Clip]:
    """The clips that a recording would become that needs work.

    Args:
        exactly: read every packet of it; without, the pieces are taken to be alike, which is quick.

    Raises:
        FootageRefused: it cannot be made to fit.
        FootageGone: it vanished.
    """
    if not exactly or not is_h264(recording.media.codec or ""):
        return clips_of(recording, _alike(recording, limits), "as far as can be told without reading it all", ())
    with open_regular_file(recording.footage.path) as file:
        source = InputFile(file.fileno(), recording.media.container)
        pieces = plan_segments(read_gops(source, probe_file(source, watch), watch), limits)
    if not any(piece.is_intact for piece in pieces):
        raise FootageRefused(damage.diagnose_without_frames(bool(pieces)))
    return clips_of(recording, pieces, "without encoding", ())


def _alike(recording: Recording, limits: Limits) -> list[Segment]:
    seconds, size_bytes = recording.media.duration_seconds, recording.footage.size_bytes
    count = math.ceil(max(size_bytes / limits.max_bytes, seconds / limits.max_seconds) / MARGIN)
    each = seconds / count
    return [Segment(number, number * each, (number + 1) * each, size_bytes // count) for number in range(count)]


def _why(job: ConformJob, limits: Limits, conform: Conform) -> str | None:
    """Why a recording does not fit as it is, if something can be done about that."""
    recording, media = job.recording, job.recording.media
    if not conform.enabled or media.codec is None:
        return None
    if not is_h264(media.codec):
        return "its video is to be encoded anew (conform.reencode)" if conform.reencode else None
    return _misfit(recording, limits) if job.is_whole else damage.CUT


def _misfit(recording: Recording, limits: Limits) -> str | None:
    """What about a whole recording with H.264 does not fit."""
    if recording.media.container != MP4:
        return f"it is {recording.media.container}"
    if recording.footage.size_bytes > limits.max_bytes:
        return f"it has {recording.footage.size_bytes:,} bytes, more than limits.max_bytes"
    if round(recording.media.duration_seconds) > limits.max_seconds:
        return f"it lasts {recording.media.duration_seconds:,.0f} s, more than limits.max_seconds"
    with open_regular_file(recording.footage.path) as file:
        return ZEROS if damage.holds_zeros(file) else None


def clips_of(recording: Recording, pieces: Sequence[Segment], how: str, notes: Sequence[str]) -> list[Clip]:
    """The clips that the good pieces of a recording are.

    Args:
        how: in what way they came out of it.
        notes: what damage did to it.
    """
    good = [(piece, times) for piece, times in zip(pieces, segment_times(pieces), strict=True) if piece.is_intact]
    damaged = "; ".join(notes)
    comments = " ".join(filter(None, (recording.comments, f"Damaged: {damaged}." if damaged else "")))
    clips = []
    for number, (piece, (start, end)) in enumerate(good):
        begins, ends = (recording.start + timedelta(seconds=seconds) for seconds in (start, end))
        sources = {
            **recording.sources,
            "end": "start and the times of the pictures",
            "piece": f"{number + 1} of {len(good)}, seconds {piece.start_seconds:,.2f} to {piece.end_seconds:,.2f} of "
            f"the recording, {how}",
            **({"damage": damaged} if damaged else {}),
        }
        video = ClipKey(recording.registration, recording.camera, begins, ends)
        clips.append(
            Clip(
                recording.footage,
                video,
                recording.priority,
                comments,
                sources,
                piece=number,
                pieces=len(good),
            )
        )
    return clips
