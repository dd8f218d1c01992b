"""When a recording was made: reading a camera's time, taking it to UTC, and doubting it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from agent.device.clock import ClockSegment
from agent.errors import FootageRefused
from agent.intake.identify.presets import Created
from agent.intake.identify.recording import Media
from agent.model import Clip, Footage, UntrustedClock
from agent.spool.time_correction import correct_clip

EARLIEST = datetime(2015, 1, 1, tzinfo=timezone.utc)
FUTURE_TOLERANCE = timedelta(minutes=5)
CLOCK_LOOK_AGAIN_SECONDS = 3600.0

_ISO_8601 = re.compile(
    r"(\d{4})(?P<date>-?)(\d\d)(?P=date)(\d\d)"
    r"[T_ ]?(\d\d)(?P<time>[:.-]?)(\d\d)(?:(?P=time)(\d\d)(?:[.,]\d{1,9})?)?"
    r" ?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment, and what had to be decided to know it.

    Args:
        utc: aware UTC.
        note: the decision in words, for the log; None if the camera's time left no doubt.
    """

    utc: datetime
    note: str | None = None


def parse_iso(text: str) -> datetime:
    """A time in ISO 8601, whole or compact, with `-` or `.` also where a file name cannot hold `:`.

    Fractions of a second are dropped, as the API knows none. Without a zone the result is naive.

    Raises:
        ValueError: the text is not such a time, or no calendar has it.
    """
    match = _ISO_8601.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a time such as 2026-07-28T14:41:41 or 20260728T144141Z")
    year, _, month, day, hour, _, minute, second, zone = match.groups()
    return datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=_zone(zone))


def to_utc(local: datetime, zone: ZoneInfo, probable: datetime | None = None) -> Instant:
    """The moment at which the camera's clock showed this time.

    An hour that the clock change repeats is taken the first time round, unless `probable` is clearly nearer to the
    second; a time that the clock change skips is moved forward by as much as the clock was.

    Args:
        local: what the camera's clock showed; with a zone of its own, `zone` is not needed.
        zone: the zone of the camera's clock.
        probable: aware; when the file's own dates say that the recording began.

    Raises:
        FootageRefused: no clock shows such a year.
    """
    if not 1900 <= local.year <= 9000:
        raise FootageRefused(f"recording time {local:%Y-%m-%d %H:%M:%S} cannot be right: check the camera's clock")
    if local.tzinfo is not None:
        return Instant(local.astimezone(timezone.utc))
    first = local.replace(tzinfo=zone, fold=0).astimezone(timezone.utc)
    second = local.replace(tzinfo=zone, fold=1).astimezone(timezone.utc)
    if first == second:
        return Instant(first)
    shown = f"{local:%Y-%m-%d %H:%M:%S} {zone.key}"
    if second < first:
        after = first.astimezone(zone)
        return Instant(
            first, f"{shown} was skipped by the clock change: taken as {after:%H:%M:%S}, {first:%H:%M:%S} UTC"
        )
    if probable is not None and abs(probable - second) * 2 < abs(probable - first):
        return Instant(second, f"{shown} came twice: the second was taken, {second:%H:%M:%S} UTC, by the file's date")
    return Instant(first, f"{shown} came twice: the first was taken, {first:%H:%M:%S} UTC")


def is_ambiguous(local: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock change repeats this time, so that only a hint can tell which of the two it is."""
    if local.tzinfo is not None or not 1900 <= local.year <= 9000:
        return False
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    return first < second


def is_believable(start: datetime, end: datetime, now: datetime | None) -> bool:
    """Whether a recording can have been made then; without `now` only what is before such cameras is doubted."""
    return start >= EARLIEST and (now is None or end <= now + FUTURE_TOLERANCE)


def check_recording_time(start: datetime, end: datetime, now: datetime) -> None:
    """Refuse a recording whose time cannot be right.

    Args:
        start, end: aware UTC.
        now: what this device's clock says, aware.

    Raises:
        FootageRefused: before 2015, or ending more than five minutes after `now`; the latter is looked at again, as
            this device's clock may be the one that is wrong.
    """
    if start < EARLIEST:
        raise FootageRefused(
            f"recording time {start:%Y-%m-%d %H:%M:%S} UTC is before {EARLIEST.year}: the camera's clock is not set; "
            "set its date, time and time zone"
        )
    if end > now + FUTURE_TOLERANCE:
        raise FootageRefused(
            f"recording time {start:%F %T} to {end:%T} UTC is in the future: this device's clock says "
            f"{now.astimezone(timezone.utc):%F %T} UTC. Either clock may be wrong, or the folder's timezone "
            "is not the camera's; looked at again in an hour",
            retry_after_seconds=CLOCK_LOOK_AGAIN_SECONDS,
        )


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in "Zz":
        return timezone.utc
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)


MOUNTS = Path("/proc/self/mountinfo")
LATEST_YEAR = 2099  # a damaged header can hold any, beyond what calendars can work with
QUARTER = timedelta(minutes=15)
LARGEST_DIFFERENCE = timedelta(hours=26)  # between two zones of the earth: UTC+14 and UTC-12
CLOCK_TOLERANCE = timedelta(minutes=2)
LOCAL_TIME_FILESYSTEMS = frozenset(("vfat", "msdos", "exfat"))


def start_by_file(
    footage: Footage, media: Media, created: Created | None, zone: ZoneInfo, now: datetime | None
) -> tuple[Instant, str]:
    """When the recording began, and the words for where that was found.

    Args:
        created: what the date in the file means; None if that is not known: it is then not looked at.
        zone: that of the camera's clock.
        now: what this device's clock says, aware; None if that is not known.

    Raises:
        FootageRefused: neither date can be that of a recording.
    """
    length = timedelta(seconds=media.duration_seconds)
    if media.created is not None and media.created.year <= LATEST_YEAR and created is not None:
        noted = media.created.replace(tzinfo=None) if created.clock == "local" else media.created
        instant = to_utc(noted - length if created.moment == "close" else noted, zone)
        if is_believable(instant.utc, instant.utc + length, now):
            less = " less the duration" if created.moment == "close" else ""
            clock = "the camera's local time" if created.clock == "local" else "UTC"
            return _whole(instant), f"date in the file{less}, {clock}"
    began = start_by_date(footage, media.duration_seconds)
    if began is None:
        raise FootageRefused("no recording time: neither the name nor the file has a date that can be right")
    doubt = ", which this card (FAT) keeps in local time, to 2 s" if has_local_timestamps(footage.path) else ""
    return _whole(Instant(began)), f"date of the file less the duration{doubt}"


def utc_offset_mismatch(start: datetime, media: Media, created: Created | None) -> timedelta | None:
    """By how much the camera's clock is ahead of the zone that it was read in, where the date in the file is true UTC.

    Args:
        start: of the recording, as it was read from its name.

    Returns:
        Whole quarters of an hour, as zones differ by; None if the two agree, or if nothing can be told.
    """
    if created is None or created.clock != "utc" or media.created is None:
        return None
    length = timedelta(seconds=media.duration_seconds if created.moment == "close" else 0)
    ahead = start - (media.created - length)
    quarters = round(ahead / QUARTER)
    is_a_zone = (
        timedelta(0) < abs(quarters * QUARTER) <= LARGEST_DIFFERENCE
        and abs(ahead - quarters * QUARTER) <= CLOCK_TOLERANCE
    )
    return quarters * QUARTER if is_a_zone else None


def start_by_date(footage: Footage, duration_seconds: float) -> datetime | None:
    """When recording began if the file was written to its end then; None if its date is beyond any calendar."""
    try:
        return datetime.fromtimestamp(footage.modified_ns // 10**9 - duration_seconds, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def has_local_timestamps(path: Path, mounts: Path | None = None) -> bool:
    """Whether a file lies on FAT or exFAT, as far as the system tells (proc(5), mountinfo)."""
    try:
        device = path.stat().st_dev
        lines = (mounts or MOUNTS).read_text(errors="replace").splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        mount, _, filesystem = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            return filesystem.split()[0] in LOCAL_TIME_FILESYSTEMS
    return False


def _whole(instant: Instant) -> Instant:
    return Instant(instant.utc.replace(microsecond=0), instant.note)


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
    seconds = unset.offset_seconds(now.boot_time) if unset is not None else 0
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
        ahead = UntrustedClock(now.boot_id, round(now.boot_time), round(now.wall - end.timestamp()))
        return [replace(clip, clock=ahead) for clip in clips]
    return clips


def _recorded_by(clips: Sequence[Clip], settings: Sequence[ClockSegment]) -> UntrustedClock | None:
    """This device's clock before it was trusted, if the times are those that it showed when the file was written."""
    start, end = clips[0].key.start.timestamp(), clips[-1].key.end.timestamp()
    modified = clips[0].footage.modified_ns / 1e9
    for setting in settings:
        if setting.latest.trusted or not setting.contains(start):
            continue
        began = setting.latest.boot_time
        for written_under in (setting, *settings):
            if written_under.contains(modified):
                written = modified - written_under.latest.boot_time + began
                unset = UntrustedClock(setting.latest.boot_id, round(began), round(written - end))
                if unset.is_time_source:
                    return unset
    return None
