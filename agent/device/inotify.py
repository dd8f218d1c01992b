"""Which directories the kernel watches for a process, asked of the kernel itself (proc(5), /proc/PID/fdinfo).

A watch ends without a word when its card is unmounted or its directory deleted, and libraries leave out directories
that the kernel had no watch for: only the kernel's own list tells what is watched.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")
_WATCH = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+) sdev:([0-9a-f]+) ", re.MULTILINE)
# Within the kernel a device number has 20 bits for its minor part.
_MINOR_BITS = 20


@dataclass(frozen=True, slots=True)
class Inode:
    """A directory as the kernel knows it, whatever its name is.

    Args:
        device: as the kernel numbers it. A few filesystems (btrfs) tell programs another number.
    """

    device: int
    number: int

    @classmethod
    def of(cls, path: Path | str) -> Inode | None:
        """The directory at a path; None if there is none, or it cannot be told."""
        try:
            found = Path(path).stat()
        except OSError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            return None
        return cls(os.major(found.st_dev) << _MINOR_BITS | os.minor(found.st_dev), found.st_ino)


def watched(process: str = "self") -> frozenset[Inode]:
    """All that a process watches now; nothing where /proc does not tell."""
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
            continue  # closed meanwhile
    return frozenset(found)
