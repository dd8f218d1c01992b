"""Whether the times of footage can be believed now: put right, taken as they are, or held till the clock is trusted.

The time in a name comes from the recorder's clock. Where the recorder runs on this device, that is this device's
clock, and may not have been set yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

from agent.device.clock import ClockSegment
from agent.errors import FootageRefused
from agent.intake.times import EARLIEST, check_recording_time
from agent.model import Clip, UntrustedClock
from agent.spool.time_correction import correct_clip

# Recorded by this device's clock in an earlier boot, unnoticed until now.
UNKNOWN_BOOT = "0" * 32


def resolve_against_clock(clips: Sequence[Clip], settings: Sequence[ClockSegment]) -> Sequence[Clip]:
    """The clips of one piece of footage, with times that are believed or marked to be held until they can be.

    Args:
        clips: in the order of their times; their footage is the same.
        settings: how this device's clock was set in this boot; the last one is in force.

    Raises:
        FootageRefused: the times cannot be right by a clock that is trusted, or by any.
    """
    now = settings[-1].latest
    unset = _recorded_by(clips, settings)
    if unset is not None and not now.trusted:
        return [replace(clip, clock=unset) for clip in clips]
    seconds = unset.offset_seconds(now.boot_began) if unset is not None else 0
    if unset is not None and seconds:
        clips = [correct_clip(clip, unset, seconds) for clip in clips]
    start, end = clips[0].key.start, clips[-1].key.end
    try:
        check_recording_time(start, end, datetime.fromtimestamp(now.wall, tz=timezone.utc))
    except FootageRefused:
        if now.trusted:
            raise
        if start < EARLIEST:
            lag = UntrustedClock(UNKNOWN_BOOT, 0, round(clips[0].footage.modified_ns / 1e9 - end.timestamp()))
            if not lag.is_time_source:
                # A camera's own clock that is not set: what this device's says makes no difference.
                raise
            return [replace(clip, clock=lag) for clip in clips]
        # In the future by a clock that is probably behind: safe in the spool, and judged when that one is set.
        ahead = UntrustedClock(now.boot_id, round(now.boot_began), round(now.wall - end.timestamp()))
        return [replace(clip, clock=ahead) for clip in clips]
    return clips


def _recorded_by(clips: Sequence[Clip], settings: Sequence[ClockSegment]) -> UntrustedClock | None:
    """This device's clock before it was trusted, if the times are those that it showed when the file was written."""
    start, end = clips[0].key.start.timestamp(), clips[-1].key.end.timestamp()
    modified = clips[0].footage.modified_ns / 1e9
    for setting in settings:
        if setting.latest.trusted or not setting.contains(start):
            continue
        began = setting.latest.boot_began
        for written_under in (setting, *settings):
            if written_under.contains(modified):
                written = modified - written_under.latest.boot_began + began
                unset = UntrustedClock(setting.latest.boot_id, round(began), round(written - end))
                if unset.is_time_source:
                    return unset
    return None
