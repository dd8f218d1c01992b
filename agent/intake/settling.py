"""When is a file finished? Pure but for one question to the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from agent.device.safe_open import open_footage
from agent.errors import FootageGone, FootageRefused
from agent.model import Footage

# A file that stood still but is no whole MP4 gets this many times settle_seconds before it is taken for damaged: a
# recorder that writes little can pause for seconds before it writes the index.
INCOMPLETE_GRACE = 6
# Between two looks at one file: settle_seconds may be 0, and a file may stay open for an hour.
SHORTEST_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is on its way to being settled.

    Args:
        footage: as it was when it last changed.
        since: monotonic seconds when it was first seen like this.
        closed: it was closed after writing, or moved in, and has not changed since.
        look_at: monotonic seconds of the next look.
    """

    footage: Footage
    since: float
    closed: bool
    look_at: float


def observe(before: Pending | None, footage: Footage, *, closed: bool, now: float, settle_seconds: float) -> Pending:
    """The file was seen: by a notification, the scan, or because it was time to look.

    Args:
        closed: a notification says that it was closed after writing, or moved in.
        now: monotonic seconds.
    """
    if before is None or before.footage != footage:
        return Pending(footage, now, closed, now if closed else now + settle_seconds)
    if closed and not before.closed:
        return Pending(footage, before.since, True, now)
    return before


def postpone(pending: Pending, now: float, settle_seconds: float) -> Pending:
    """The file is not finished, whatever the notification said: look again later."""
    return replace(pending, closed=False, look_at=now + max(settle_seconds, SHORTEST_WAIT_SECONDS))


def is_settled(pending: Pending, now: float, settle_seconds: float) -> bool:
    return pending.closed or now - pending.since >= settle_seconds


def is_abandoned(pending: Pending, now: float, settle_seconds: float) -> bool:
    """Whether a file that is no whole MP4 has stood still for so long that nobody will finish it."""
    return pending.closed or now - pending.since >= INCOMPLETE_GRACE * max(settle_seconds, SHORTEST_WAIT_SECONDS)


def is_being_written(path: Path) -> bool:
    """Whether some process has the file open for writing; see `OpenFootage.is_being_written`."""
    try:
        with open_footage(path) as opened:
            return opened.is_being_written()
    except (FootageGone, FootageRefused):
        return False
