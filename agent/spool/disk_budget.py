"""The room on the spool's disk: the budget, the floor of free space, the reserve, and what is given up first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import SpoolSettings
from agent.errors import SpoolFull
from agent.model import Footage, State
from agent.spool.files import NO_SPACE
from agent.spool.presence import can_start_anew
from agent.spool.records import Record, Stored

# What the database may need to write verdicts on a disk that is otherwise full: its log grows to 4 MB before it is
# carried over into the database, which may grow by as much.
RESERVE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Eviction:
    """A clip whose stored file was removed to make room.

    Args:
        footage: where it came from.
        lost: nothing else has its bytes; if not, it is taken in again from its footage when there is room.
        reason: the sentence for the technician.
    """

    id: int
    footage: Footage
    lost: bool
    reason: str


class DiskBudget:
    """Watches the room on the spool's disk.

    Args:
        settings: the budget and the floor.
        directory: where the spool lies; it must exist.

    Attributes:
        held_bytes: what the spool holds and the budget counts: whoever adds or removes a clip keeps it up to date.
    """

    def __init__(self, settings: SpoolSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._reserve = directory / "reserve"
        self.held_bytes = 0

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._directory).free

    def missing_bytes(self) -> int:
        """How much is missing to the floor of free space."""
        return max(0, self._settings.min_free_bytes - self.free_bytes())

    def room(self, size_bytes: int, coming_bytes: int) -> int:
        """How many bytes a copy of footage may have.

        Args:
            size_bytes: of the footage.
            coming_bytes: of other footage that is being taken in and is not counted yet.

        Raises:
            SpoolFull: not even a link to it fits.
        """
        self.require_reserve()
        held_bytes = self.held_bytes + coming_bytes
        left = self._settings.max_bytes - held_bytes
        if size_bytes > left:
            raise SpoolFull(
                f"the spool holds {held_bytes:,} bytes of at most {self._settings.max_bytes:,} (spool.max_bytes)"
            )
        return max(0, min(left, self.free_bytes() - self._settings.min_free_bytes))

    def require_reserve(self) -> None:
        """Nothing new is taken while the reserve is spent: it is for the clips that the spool has already.

        Raises:
            SpoolFull: it is spent.
        """
        if not self._has_reserve():
            raise SpoolFull("the disk of the spool is full")

    def keep_reserve(self) -> None:
        """Makes the reserve, if there is room for twice as much."""
        if self._has_reserve() or self.free_bytes() < 2 * RESERVE_BYTES:
            return
        fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as exc:
            self._reserve.unlink()
            if exc.errno not in NO_SPACE:
                raise
        finally:
            os.close(fd)

    def spend_reserve(self) -> bool:
        """Frees the reserve, so that what is under way can be written.

        Returns:
            Whether there was any.
        """
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return False
        return True

    def _has_reserve(self) -> bool:
        try:
            return self._reserve.stat().st_size == RESERVE_BYTES
        except FileNotFoundError:
            return False


def choose_evictions(
    eviction_candidates: Iterable[tuple[Record, Stored]], clips_directory: Path, missing_bytes: int
) -> Iterator[tuple[Record, Stored, bool]]:
    """Which clips to give up, and whether the footage of each is still there, to be taken in anew.

    Copies whose footage is there go first, for nothing is lost with them. A stored file that is not the last name of
    its blocks stays: to remove it would free nothing.

    Args:
        expendable: the clips that may be given up, those first that are missed least.
        missing_bytes: how much space is to be freed.
    """
    judged = [(record, stored, can_start_anew(record)) for record, stored in eviction_candidates]
    for record, stored, there in sorted(judged, key=lambda judgement: not judgement[2]):
        if missing_bytes <= 0:
            return
        try:
            stat = (clips_directory / stored.name).lstat()
        except FileNotFoundError:
            continue
        if stat.st_nlink == 1:
            missing_bytes -= stat.st_blocks * 512
            yield record, stored, there


def reason_for(record: Record, there: bool, missing_bytes: int, floor_bytes: int) -> str:
    """Why this clip is given up, for the technician."""
    why = f"given up for space: {missing_bytes:,} bytes were missing to the {floor_bytes:,} of spool.min_free_bytes"
    if there:
        return f"{why}; its footage is still there"
    if record.state in (State.REFUSED, State.HELD):
        return f"{why}, and it could not be sent: {record.reason}"
    return why
