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
from agent.intake.naming import is_copy

# What lstat says of a path that stood there a moment ago; a folder may even have become a file.
GONE = (FileNotFoundError, NotADirectoryError)


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
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if folder.recursive and not _is_hidden(entry.name):
                            waiting.append(Path(entry.path))
                    elif wanted(folder, entry.name):
                        found = examine(Path(entry.path))
                        if found is not None:
                            yield found
        except OSError as exc:
            if directory == folder.path:
                raise
            if not isinstance(exc, GONE):
                yield Skipped(directory, unreadable(exc))


def wanted(folder: FootageFolder, name: str) -> bool:
    """Whether a file of this name is footage, by `include` and `exclude`; case does not count.

    The smaller copy that some cameras write of each recording is none.
    """
    lower = name.lower()
    return (
        any(fnmatch(lower, pattern.lower()) for pattern in folder.include)
        and not any(fnmatch(lower, pattern.lower()) for pattern in folder.exclude)
        and not is_copy(name, folder)
    )


def reaches(folder: FootageFolder, path: Path) -> bool:
    """Whether the scan of a folder would come to the place of this file: it enters no hidden directory.

    Args:
        path: somewhere below the folder.
    """
    between = path.parent.relative_to(folder.path).parts
    return not between or (folder.recursive and not any(map(_is_hidden, between)))


def unreadable(error: OSError) -> str:
    """Why a folder cannot be read, for the technician."""
    if isinstance(error, PermissionError):
        return "this folder may not be read: let the service's user list and enter it (chmod o+rx), or its group"
    return f"this folder cannot be read: {error.strerror}"


def examine(path: Path) -> Footage | Skipped | None:
    """What stands at a path: footage, something that is to be skipped, or nothing any more."""
    try:
        found = path.lstat()
    except GONE:
        return None
    except OSError as exc:
        return Skipped(path, f"cannot be looked at: {exc.strerror}")
    if stat.S_ISLNK(found.st_mode):
        return Skipped(path, "a symbolic link: links are never followed; give the folder it points to as [[footage]]")
    if not stat.S_ISREG(found.st_mode):
        return Skipped(path, "not a regular file (a device, a pipe or a socket)")
    return Footage.from_stat(path, found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
