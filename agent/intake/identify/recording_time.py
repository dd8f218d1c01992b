"""When a recording was made: parsing a camera's time, converting it to UTC, checking it against this device's clock.

A time in the name wins over any date. The date inside a file means something else in every camera family (`Created`).
The date of the file depends on the card: FAT stores local time in steps of two seconds without a zone, so that Linux
may read it hours off.
"""

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
RETRY_FUTURE_SECONDS = 3600.0

# The calendar cannot handle every year that a damaged header may hold.
LATEST_YEAR = 2099
QUARTER = timedelta(minutes=15)
# Between two time zones of the earth: UTC+14 and UTC-12.
LARGEST_DIFFERENCE = timedelta(hours=26)
CLOCK_TOLERANCE = timedelta(minutes=2)
MOUNTS = Path("/proc/self/mountinfo")
LOCAL_TIME_FILESYSTEMS = frozenset(("vfat", "msdos", "exfat"))
# Stands for an earlier boot of this device, in which its clock recorded footage that is only noticed now.
UNKNOWN_BOOT = "0" * 32

_ISO_8601 = re.compile(
    r"(\d{4})(?P<date>-?)(\d\d)(?P=date)(\d\d)"
    r"[T_ ]?(\d\d)(?P<time>[:.-]?)(\d\d)(?:(?P=time)(\d\d)(?:[.,]\d{1,9})?)?"
    r" ?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment, and how an ambiguous time was resolved.

    Args:
        utc: aware UTC.
        note: how it was resolved, for the log; None if the camera's time was unambiguous.
    """

    utc: datetime
    note: str | None = None


def parse_iso(text: str) -> datetime:
    """A time in ISO 8601, extended or basic; `-` or `.` may stand for `:`, which file names cannot contain.

    Fractions of a second are dropped, since the API has none. Without a zone the result is naive.

    Raises:
        ValueError: the text is not such a time, or not a valid date.
    """
    match = _ISO_8601.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a time such as 2026-07-28T14:41:41 or 20260728T144141Z")
    year, _, month, day, hour, _, minute, second, zone = match.groups()
    return datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=_zone(zone))


def to_utc(local: datetime, zone: ZoneInfo, probable: datetime | None = None) -> Instant:
    """The moment at which the camera's clock showed this time.

    Of an hour that a clock change repeats, the first is meant, unless `probable` is clearly nearer to the second. A
    time that a clock change skips is moved forward by as much as the clock was.

    Args:
        local: naive, as the camera's clock showed it; or aware, and `zone` is ignored.
        zone: the zone of the camera's clock.
        probable: aware; the start of the recording by the file's own date.

    Raises:
        FootageRefused: the year is out of range.
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
    """Whether a clock change repeats this time (PEP 495), so that only a hint can tell which of the two is meant."""
    if local.tzinfo is not None or not 1900 <= local.year <= 9000:
        return False
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    return first < second


def check_recording_time(start: datetime, end: datetime, now: datetime) -> None:
    """Refuse a recording whose time cannot be right.

    Args:
        start, end: aware UTC.
        now: this device's clock, aware.

    Raises:
        FootageRefused: it is before 2015, or ends more than five minutes after `now`. The latter is retried, since this
            device's clock may be the wrong one.
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
            "is not the camera's; retried in an hour",
            retry_after_seconds=RETRY_FUTURE_SECONDS,
        )


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in "Zz":
        return timezone.utc
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)


def start_by_file(footage: Footage, media: Media, created: Created | None, zone: ZoneInfo) -> tuple[Instant, str]:
    """When the recording began by the dates in and of the file, for names without a time; and the source in words.

    Args:
        created: what the date in the file means; None if unknown: that date is then ignored.
        zone: the zone of the camera's clock.

    Raises:
        FootageRefused: neither date is plausible.
    """
    length = timedelta(seconds=media.duration_seconds)
    if media.created is not None and media.created.year <= LATEST_YEAR and created is not None:
        noted = media.created.replace(tzinfo=None) if created.clock == "local" else media.created
        instant = to_utc(noted - length if created.moment == "close" else noted, zone)
        if instant.utc >= EARLIEST:
            less = " less the duration" if created.moment == "close" else ""
            clock = "the camera's local time" if created.clock == "local" else "UTC"
            return _without_fraction(instant), f"date in the file{less}, {clock}"
    began = start_by_date(footage, media.duration_seconds)
    if began is None:
        raise FootageRefused("no recording time: neither the name nor the file has a date that can be right")
    doubt = ", which this card (FAT) keeps in local time, to 2 s" if has_local_timestamps(footage.path) else ""
    return _without_fraction(Instant(began)), f"date of the file less the duration{doubt}"


def utc_offset_mismatch(start: datetime, media: Media, created: Created | None) -> timedelta | None:
    """By how much the camera's clock is ahead of the configured zone, where the date in the file is true UTC.

    Args:
        start: of the recording, as read from its name.

    Returns:
        A multiple of 15 minutes, as zones differ by; None if the two agree, or nothing can be told.
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
    """When recording began, if the file was last written at its end; None if the date is out of range."""
    try:
        return datetime.fromtimestamp(footage.modified_ns // 10**9 - duration_seconds, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def has_local_timestamps(path: Path, mounts: Path | None = None) -> bool:
    """Whether a file lies on FAT or exFAT, as far as the system knows (proc(5), mountinfo)."""
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


def _without_fraction(instant: Instant) -> Instant:
    return Instant(instant.utc.replace(microsecond=0), instant.note)


def resolve_against_clock(clips: Sequence[Clip], segments: Sequence[ClockSegment]) -> Sequence[Clip]:
    """Checks the times of a file's clips against this device's clock; corrects them, or marks them to be held.

    The time in a name comes from the recorder's clock. Where the recorder runs on this device, that is this device's
    clock, which may not have been set yet.

    Args:
        clips: of one file, in the order of their times.
        segments: how this device's clock was set in this boot; the last segment is in force.

    Returns:
        The clips: as they are; with corrected times; or with `clock` set, so that the spool holds them until this
        device's clock is trusted.

    Raises:
        FootageRefused: the times cannot be right by a trusted clock, or by any clock.
    """
    now = segments[-1].latest
    untrusted = _recorded_by(clips, segments)
    if untrusted is not None and not now.trusted:
        return [replace(clip, clock=untrusted) for clip in clips]
    seconds = untrusted.offset_seconds(now.boot_time) if untrusted is not None else 0
    if untrusted is not None and seconds:
        clips = [correct_clip(clip, untrusted, seconds) for clip in clips]
    start, end = clips[0].key.start, clips[-1].key.end
    try:
        check_recording_time(start, end, datetime.fromtimestamp(now.wall, tz=timezone.utc))
    except FootageRefused:
        if now.trusted:
            raise
        if start < EARLIEST:
            lag = UntrustedClock(UNKNOWN_BOOT, 0, round(clips[0].footage.modified_ns / 1e9 - end.timestamp()))
            if not lag.is_time_source:
                # The clock of a separate camera was not set: this device's clock makes no difference.
                raise
            return [replace(clip, clock=lag) for clip in clips]
        # In the future by an untrusted clock, which is probably behind: held in the spool until that clock is set.
        ahead = UntrustedClock(now.boot_id, round(now.boot_time), round(now.wall - end.timestamp()))
        return [replace(clip, clock=ahead) for clip in clips]
    return clips


def _recorded_by(clips: Sequence[Clip], segments: Sequence[ClockSegment]) -> UntrustedClock | None:
    """This device's untrusted clock, if the times are those that it showed when the file was written."""
    start, end = clips[0].key.start.timestamp(), clips[-1].key.end.timestamp()
    modified = clips[0].footage.modified_ns / 1e9
    for segment in segments:
        if segment.latest.trusted or not segment.contains(start):
            continue
        began = segment.latest.boot_time
        for written_under in (segment, *segments):
            if written_under.contains(modified):
                written = modified - written_under.latest.boot_time + began
                untrusted = UntrustedClock(segment.latest.boot_id, round(began), round(written - end))
                if untrusted.is_time_source:
                    return untrusted
    return None
