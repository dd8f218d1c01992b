"""When a recording was made: reading a camera's time, taking it to UTC, and doubting it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from agent.errors import FootageRefused

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
