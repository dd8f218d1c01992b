"""The directories that the kernel watches for a process, read from /proc/PID/fdinfo (proc(5)).

A watch ends silently when its card is unmounted or its directory deleted, and libraries silently skip directories
when the kernel's watch limit is reached: only the kernel knows what is really watched.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")
_WATCH = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+) sdev:([0-9a-f]+) ", re.MULTILINE)
# The kernel's internal device numbers have 20 bits for the minor part.
_MINOR_BITS = 20


@dataclass(frozen=True, slots=True)
class Inode:
    """Identifies a directory independently of its name.

    Args:
        device: the kernel's internal number. A few filesystems (btrfs) report another one to programs.
        number: inode number.
    """

    device: int
    number: int

    @classmethod
    def of(cls, path: Path | str) -> Inode | None:
        """The directory at a path; None if it does not exist or cannot be read."""
        try:
            found = Path(path).stat()
        except OSError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            return None
        return cls(os.major(found.st_dev) << _MINOR_BITS | os.minor(found.st_dev), found.st_ino)


def watched(process: str = "self") -> frozenset[Inode]:
    """All directories that a process watches now; empty if /proc is not readable.

    Args:
        process: its id, or "self".
    """
    found: set[Inode] = set()
    place = _PROCESSES / process
    try:
        descriptors = list((place / "fd").iterdir())
    except OSError:
        return frozenset()
    for descriptor in descriptors:
        try:
            if str(descriptor.readlink()) == "anon_inode:inotify":
                text = (place / "fdinfo" / descriptor.name).read_text()
                found.update(Inode(int(device, 16), int(number, 16)) for number, device in _WATCH.findall(text))
        except OSError:
            continue  # closed in the meantime
    return frozenset(found)
