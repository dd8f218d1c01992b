"""Space on the spool's disk: the budget, the floor of free space, the reserve, and which clips are evicted first."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import SpoolSettings
from agent.errors import SpoolFull
from agent.model import Footage, State
from agent.spool.files import NO_SPACE
from agent.spool.records import Record, Stored, can_be_taken_again

# What the database may need to write verdicts on a disk that is otherwise full: its log grows to 4 MB before it is
# copied into the database, which may grow by as much.
RESERVE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Eviction:
    """A clip whose stored file was removed to free space.

    Args:
        footage: where it came from.
        lost: nothing else has its bytes; else it is taken in again from its footage when there is space.
        reason: the sentence for the technician.
    """

    id: int
    footage: Footage
    lost: bool
    reason: str


class DiskBudget:
    """How much the spool may store, and the reserve. All methods may be called from any thread.

    `_lock` guards the count of stored bytes only. The reserve needs none: each step is one system call, and it does
    no harm if another thread was faster.

    Args:
        settings: the budget and the floor.
        directory: where the spool is; it must exist.
    """

    def __init__(self, settings: SpoolSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._reserve = directory / "reserve"
        self._lock = threading.Lock()
        self._stored_bytes = 0

    @property
    def stored_bytes(self) -> int:
        """What counts against the budget. Between two counts of the rows it is kept up to date by `change`."""
        return self._stored_bytes

    def change(self, size_bytes: int) -> None:
        """Adds to the stored bytes; a negative number when clips are removed."""
        with self._lock:
            self._stored_bytes += size_bytes

    def recount(self, size_bytes: int) -> None:
        """Sets the stored bytes to what the rows add up to.

        If another thread removes clips while they are counted, the number is too small until the next count.
        """
        with self._lock:
            self._stored_bytes = size_bytes

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._directory).free

    def missing_bytes(self) -> int:
        """How much free space is missing to the floor."""
        return max(0, self._settings.min_free_bytes - self.free_bytes())

    def max_copy_bytes(self, size_bytes: int, pending_bytes: int) -> int:
        """How large a copy of footage may be.

        Args:
            size_bytes: of the footage.
            pending_bytes: of other footage that is being taken in and is not counted yet.

        Raises:
            SpoolFull: not even a link to it fits.
        """
        self.require_reserve()
        stored_bytes = self.stored_bytes + pending_bytes
        left = self._settings.max_bytes - stored_bytes
        if size_bytes > left:
            raise SpoolFull(
                f"the spool holds {stored_bytes:,} bytes of at most {self._settings.max_bytes:,} (spool.max_bytes)"
            )
        return max(0, min(left, self.free_bytes() - self._settings.min_free_bytes))

    def require_reserve(self) -> None:
        """Nothing new is taken in while the reserve is spent: it is for the clips that the spool already has.

        Raises:
            SpoolFull: it is spent.
        """
        if not self._has_reserve():
            raise SpoolFull("the disk of the spool is full")

    def keep_reserve(self) -> None:
        """Allocates the reserve, if there is space for twice as much."""
        if self._has_reserve() or self.free_bytes() < 2 * RESERVE_BYTES:
            return
        fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as exc:
            self._reserve.unlink(missing_ok=True)
            if exc.errno not in NO_SPACE:
                raise
        finally:
            os.close(fd)

    def spend_reserve(self) -> bool:
        """Frees the reserve, so that the transaction under way can be written.

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
    candidates: Iterable[tuple[Record, Stored]], clips_directory: Path, missing_bytes: int
) -> Iterator[tuple[Record, Stored, bool]]:
    """Which clips to evict, and whether each can be taken in again from its footage.

    Those that can go first, for nothing is lost with them. A stored file that is not the last name of its blocks
    stays: to remove it would free nothing.

    Args:
        candidates: the clips that may be evicted, the least important first.
        missing_bytes: how much space is to be freed.
    """
    judged = [(record, stored, can_be_taken_again(record)) for record, stored in candidates]
    for record, stored, again in sorted(judged, key=lambda judgement: not judgement[2]):
        if missing_bytes <= 0:
            return
        try:
            stat = (clips_directory / stored.name).lstat()
        except FileNotFoundError:
            continue
        if stat.st_nlink == 1:
            missing_bytes -= stat.st_blocks * 512
            yield record, stored, again


def eviction_reason(record: Record, again: bool, missing_bytes: int, floor_bytes: int) -> str:
    """Why this clip is evicted, for the technician."""
    why = f"given up for space: {missing_bytes:,} bytes were missing to the {floor_bytes:,} of spool.min_free_bytes"
    if again:
        return f"{why}; its footage is still there"
    if record.state in (State.REFUSED, State.HELD):
        return f"{why}, and it could not be sent: {record.reason}"
    return why
