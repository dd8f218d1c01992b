"""When a recording was made, by the file alone: for names without a time, and to decide between two times.

The date inside a file means something else in every family (`agent.intake.preset.Created`), and the date of the file
depends on the card: FAT keeps local time in steps of two seconds and does not say of which zone, so that Linux may read
it hours off. Neither goes before a time that the camera wrote into the name.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from agent.errors import FootageRefused
from agent.intake.preset import Created
from agent.intake.recording import Media
from agent.intake.times import Instant, is_believable, to_utc
from agent.model import Footage

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
