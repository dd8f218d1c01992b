"""Keeps a second process out of a spool: two writers would each think that the other's clips in flight are theirs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent.errors import SpoolLocked


class SpoolLock:
    """An exclusive lock that lasts until `release` or until the process ends, however it ends (flock(2)).

    Args:
        directory: the spool's directory.

    Raises:
        SpoolLocked: another process has it; the message names the process.
    """

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise SpoolLocked(
                f"another vision-ingest (process {holder}) works with {directory}. Only one may: stop it first "
                f"(sudo systemctl stop vision-ingest), or give this one another spool.directory."
            ) from exc
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets others in; to do it twice is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
