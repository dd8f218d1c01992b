"""What is to be done to a recording, and which clips it would become: asked before anything is done."""

from __future__ import annotations

import math

import structlog

from agent.config import Conform, Limits
from agent.device.safe_open import RETRY_REFUSED_SECONDS, open_regular_file
from agent.errors import FootageRefused
from agent.intake.conform import damage
from agent.intake.conform.cut import read_gops
from agent.intake.conform.media import needs_ffmpeg
from agent.intake.conform.plan import MARGIN, Segment, plan_segments
from agent.intake.conform.probe import InputFile, probe_file
from agent.intake.conform.process import CancelToken, is_installed
from agent.intake.conform.work import ConformJob, clips_of
from agent.intake.fitting import MP4, is_h264
from agent.intake.recording import Recording
from agent.model import Clip

log = structlog.get_logger()

_ZEROS = "a part of it holds zeros where pictures should be: power was lost before they were on the card"


def needs_work(job: ConformJob, limits: Limits, conform: Conform) -> bool:
    """Whether something is to be done to a recording; if not, it is taken, or refused, as it is.

    Raises:
        FootageRefused: something is to be done to it, and ffmpeg is not installed.
        FootageGone: it vanished.
    """
    why = _why(job, limits, conform)
    if why is None or is_installed():
        return why is not None
    if why != _ZEROS:
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
        return _ZEROS if damage.holds_zeros(file) else None
