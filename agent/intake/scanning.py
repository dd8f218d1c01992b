"""The scan: what is in a footage folder now. The truth, where notifications are only hints."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from agent.clip import Footage
from agent.config import FootageFolder


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something with a footage name that is no footage, and why."""

    path: Path
    reason: str


def scan(folder: FootageFolder) -> Iterator[Footage | Skipped]:
    """All footage of a folder, with what was skipped. Nothing is opened, and no link is followed.

    Raises:
        OSError: the folder itself is not there or cannot be read. (Below it, that is a Skipped.)
    """
    waiting = [folder.path]
    while waiting:
        directory = waiting.pop()
        try:
            entries = os.scandir(directory)
        except OSError as exc:
            if directory == folder.path:
                raise
            if not isinstance(exc, FileNotFoundError):
                yield Skipped(directory, f"this folder cannot be read: {exc.strerror}")
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder.recursive and not entry.name.startswith("."):
                        waiting.append(Path(entry.path))
                elif wanted(folder, entry.name):
                    found = examine(Path(entry.path))
                    if found is not None:
                        yield found


def wanted(folder: FootageFolder, name: str) -> bool:
    """Whether a file of this name is footage, by `include` and `exclude`; case does not count."""
    lower = name.lower()
    return any(fnmatch(lower, pattern.lower()) for pattern in folder.include) and not any(
        fnmatch(lower, pattern.lower()) for pattern in folder.exclude
    )


def examine(path: Path) -> Footage | Skipped | None:
    """What stands at a path: footage, something that is to be skipped, or nothing any more."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        return Skipped(path, f"cannot be looked at: {exc.strerror}")
    if stat.S_ISLNK(found.st_mode):
        return Skipped(path, "a symbolic link: links are never followed; give the folder it points to as [[footage]]")
    if not stat.S_ISREG(found.st_mode):
        return Skipped(path, "not a regular file (a device, a pipe or a socket)")
    return Footage.from_stat(path, found)
