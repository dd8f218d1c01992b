"""What is to be done to a recording so that the API takes it.

`plan` is the one place that decides whether footage fits; it reads nothing and changes nothing. The intake acts on it,
the conformer executes it, `inspect` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from agent.config import Conform, Limits
from agent.device.safe_open import RETRY_REFUSED_SECONDS
from agent.errors import FootageRefused, printable
from agent.intake.identify.recording import MP4, Recording
from agent.media import damage
from agent.media.ffmpeg import is_installed, needs_ffmpeg
from agent.media.segments import Segment, round_seconds, segment_times
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

ZEROS = "a part of it holds zeros where pictures should be: power was lost before they were on the card"


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
        suspicion: why it may be damaged, where ffmpeg is missing to check that; empty if nothing is suspected.
    """

    clip: Clip
    suspicion: str = ""


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


Work: TypeAlias = Cut | Repack | Reencode | Salvage
Plan: TypeAlias = AsIs | Reject | Cut | Repack | Reencode | Salvage


def plan(recording: Recording, settings: PlanSettings) -> Plan:
    """What is to be done to a recording so that the API takes it. Pure, but for the question whether ffmpeg is there.

    A limit is compared with the whole seconds that the API will see.
    """
    conform = settings.conform
    chosen = plan_codec(recording.media.codec, conform) or _plan_h264(recording, settings.limits, conform)
    if isinstance(chosen, AsIs | Reject) or settings.has_ffmpeg():
        return chosen
    if isinstance(chosen, Salvage) and chosen.if_intact is not None:
        # Footage is too precious to be held back for a suspicion that only ffmpeg could settle.
        intact = chosen.if_intact
        return replace(intact, suspicion=chosen.reason) if isinstance(intact, AsIs) else intact
    return Reject(needs_ffmpeg(chosen.reason), RETRY_REFUSED_SECONDS)


def plan_codec(codec: str | None, conform: Conform) -> Reencode | Reject | None:
    """What the codec alone decides; None if it is H.264."""
    if codec is None:
        return Reject("it has no video track")
    if is_h264(codec):
        return None
    if conform.enabled and conform.reencode:
        return Reencode("its video is to be re-encoded (conform.reencode)")
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
        return f"it has {size_bytes:,} bytes and the limit is {limits.max_bytes:,} (limits.max_bytes)"
    if seconds > limits.max_seconds:
        return f"it lasts {seconds:,} s and the limit is {limits.max_seconds:,} s (limits.max_seconds)"
    return ""


def _plan_unchanged(recording: Recording, limits: Limits) -> AsIs | Reject:
    """What becomes of H.264 video that must stay as it is."""
    media = recording.media
    if not media.is_whole:
        return Reject(damage.SALVAGE_DISABLED)
    if media.container != MP4:
        return Reject(f"its container is {media.container}, not MP4: switch the camera from {media.container} to MP4")
    if media.duration_seconds <= 0:
        return Reject("its headers give it no duration: nothing was recorded, or the file is damaged")
    if excess := _excess(recording, limits):
        remedy = "a shorter loop or a lower bitrate" if "max_bytes" in excess else "a shorter loop"
        return Reject(f"{excess}: set {remedy} in the camera")
    # The API's timestamps have whole seconds, and a clip must end after it starts.
    end = recording.start + timedelta(seconds=max(1, round_seconds(media.duration_seconds)))
    return AsIs(
        Clip(
            recording.footage,
            ClipKey(recording.registration, recording.camera, recording.start, end),
            priority=recording.priority,
            comments=recording.comments,
            sources={**recording.sources, "end": "start and the duration in the file's headers"},
        )
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


def clips_of(recording: Recording, segments: Sequence[Segment], how: str, notes: Sequence[str] = ()) -> list[Clip]:
    """The clips that the intact segments of a recording make.

    Args:
        segments: all of the recording without a gap.
        how: how they were made, in words.
        notes: what damage did to the recording, in words.
    """
    times = segment_times(segments)
    intact = [(segment, span) for segment, span in zip(segments, times, strict=True) if segment.is_intact]
    damaged = "; ".join(notes)
    comments = " ".join(filter(None, (recording.comments, f"Damaged: {damaged}." if damaged else "")))
    clips = []
    for number, (segment, (start, end)) in enumerate(intact):
        begins, ends = (recording.start + timedelta(seconds=seconds) for seconds in (start, end))
        sources = {
            **recording.sources,
            "end": "start and the times of the pictures",
            "piece": f"{number + 1} of {len(intact)}, seconds {segment.start_seconds:,.2f} to "
            f"{segment.end_seconds:,.2f} of the recording, {how}",
            **({"damage": damaged} if damaged else {}),
        }
        key = ClipKey(recording.registration, recording.camera, begins, ends)
        clips.append(
            Clip(
                recording.footage,
                key,
                recording.priority,
                comments,
                sources,
                piece=number,
                pieces=len(intact),
            )
        )
    return clips
