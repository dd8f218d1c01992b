"""Does a recording fit the API as it is? What does not is refused with what to change on the camera."""

from __future__ import annotations

from datetime import timedelta

from agent.config import Limits
from agent.errors import FootageRefused, printable
from agent.intake.recording import Media, Recording
from agent.model import Clip, ClipKey

MP4 = "MP4"

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
