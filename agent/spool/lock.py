"""Keeps a second process out of a spool: each would take the other's clips in flight for its own."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent.errors import SpoolLocked

# The file always has the same length: writing to it needs no new block on a full disk.
CONTENT_BYTES = 32
CLEAN = "clean"


class SpoolLock:
    """An exclusive lock, held until `release` or the end of the process, however it ends (flock(2)).

    Used by the main thread only.

    Args:
        directory: the spool's directory.

    Attributes:
        after_crash: the last process that held it did not end in order: power cut, kill, or a failed part.

    Raises:
        SpoolLocked: another process has it; the message names the process.
    """

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        content = os.pread(self._fd, CONTENT_BYTES, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._fd)
            raise SpoolLocked(
                f"another vision-ingest (process {content or 'unknown'}) uses {directory}. Only one may: stop it "
                f"first (sudo systemctl stop vision-ingest), or give this one another spool.directory."
            ) from exc
        self.after_crash = content not in ("", CLEAN)
        self._write(str(os.getpid()))
        os.fsync(self._fd)

    def release(self, *, clean: bool = True) -> None:
        """Lets other processes in; releasing twice is allowed.

        Args:
            clean: the spool was left in order; if not, the next process checks it whole.
        """
        if self._fd >= 0:
            if clean:
                self._write(CLEAN)
            os.close(self._fd)
            self._fd = -1

    def _write(self, content: str) -> None:
        os.pwrite(self._fd, f"{content:<{CONTENT_BYTES - 1}}\n".encode(), 0)
