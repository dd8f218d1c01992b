"""One file of footage on its way into the spool: its state, and what each observation makes of it.

    found, or found changed ──► SETTLING ──► READY ──► in the spool, or listed as refused: a row exists,
                                 │ ▲ ▲        ▲ │      and the file is no longer tracked (nor is one that vanishes)
                                 │ │ └────────┼─┘      no room in the spool: again after `rescan_seconds`
                                 │ └ not finished yet: again after `settle_seconds`
                                 └► CONFORMING┘        does not fit as it is

Pure: nothing here looks at a file or a clock. Only the intake thread holds these values. They are not saved: after a
restart the scan finds the same files again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from agent.config import FootageFolder
from agent.errors import SpoolFull
from agent.intake.conformer import ConformResult
from agent.model import Footage

# An incomplete MP4 that does not change for this many times settle_seconds is treated as damaged. A recorder with a low
# bitrate can pause for seconds before it writes the index.
INCOMPLETE_GRACE = 6
# Lower bound of the time between two checks of a file: settle_seconds may be 0, and a file may stay open for an hour.
MIN_INTERVAL_SECONDS = 1.0
NEVER = math.inf


class FileState(Enum):
    """A file that is in the spool, is refused, or is gone has no state here: it is not tracked."""

    SETTLING = "settling"  # may still be written
    CONFORMING = "conforming"  # handed to the conformer, which makes clips of it
    READY = "ready"  # its clips are in the pending batch, or wait for room in the spool


@dataclass(frozen=True, slots=True)
class Tracked:
    """A file of footage with its state.

    Args:
        folder: the folder that it was found in.
        footage: path, size and modification time: a file that changes is tracked as another one.
        since: monotonic seconds when it was first seen like this.
        closed: it was closed after writing, or moved in, and has not turned out to be unfinished since.
        check_at: monotonic seconds of the next check; NEVER while somebody else has to act.
        state: where it is on its way.
        conformed: what the conformer made of it, once it has.
    """

    folder: FootageFolder
    footage: Footage
    since: float
    closed: bool
    check_at: float
    state: FileState = FileState.SETTLING
    conformed: ConformResult | None = None

    @classmethod
    def found(cls, folder: FootageFolder, footage: Footage, *, closed: bool, now: float) -> Tracked:
        """A file that was not tracked like this: new, or changed.

        Args:
            closed: an event said that it was closed after writing, or moved in.
            now: monotonic seconds.
        """
        return cls(folder, footage, now, closed, now if closed else now + folder.settle_seconds)

    def observe(self, *, closed: bool, now: float) -> Tracked:
        """Seen again, unchanged. Args: as `found`."""
        if closed and not self.closed and self.state is FileState.SETTLING:
            return replace(self, closed=True, check_at=now)
        return self

    def postpone(self, now: float) -> Tracked:
        """Not finished, whatever the event said: checked again later."""
        return replace(self, closed=False, check_at=now + self._interval_seconds)

    def is_abandoned(self, now: float) -> bool:
        """Whether an incomplete MP4 has not changed for so long that nobody will complete it."""
        return self.closed or now - self.since >= INCOMPLETE_GRACE * self._interval_seconds

    def ready(self) -> Tracked:
        """Its clip is in the pending batch."""
        return replace(self, state=FileState.READY, check_at=NEVER)

    def conforming(self) -> Tracked:
        """The conformer has it."""
        return replace(self, state=FileState.CONFORMING, check_at=NEVER)

    def conform_done(self, conformed: ConformResult, now: float) -> Tracked:
        """The conformer is done with it; its result is dealt with at the next check."""
        return replace(self, state=FileState.READY, conformed=conformed, check_at=now)

    def wait_for_room(self, now: float) -> Tracked:
        """The spool is full: tried again later, with the pieces that the conformer has made, if it has made any."""
        later = now + self.folder.rescan_seconds
        if self.conformed is None or isinstance(self.conformed.trouble, SpoolFull):
            return replace(self, state=FileState.SETTLING, conformed=None, check_at=later)
        return replace(self, check_at=later)

    @property
    def _interval_seconds(self) -> float:
        return max(self.folder.settle_seconds, MIN_INTERVAL_SECONDS)
