"""The scan: what is in a footage folder now. The truth, where notifications are only hints."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from agent.config import FootageFolder
from agent.intake.known import Known
from agent.intake.naming import copies_in
from agent.model import Footage

# What lstat says of a path that stood there a moment ago; a folder may even have become a file.
GONE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something with a footage name that is no footage, and why."""

    path: Path
    reason: str


def scan(
    folder: FootageFolder,
    known: Known | None = None,
    *,
    on_file: Callable[[], None] = lambda: None,
    on_directory: Callable[[str], None] = lambda _path: None,
) -> Iterator[Footage | Skipped]:
    """All footage of a folder, with what was skipped. Nothing is opened, and no link is followed.

    Args:
        known: footage that is passed over. It costs one lstat a file and nothing more: a card can hold 20,000.
        on_file: called with each file.
        on_directory: called with each directory that is entered, the folder itself too.

    Raises:
        OSError: the folder itself is not there or cannot be read. (Below it, that is a Skipped.)
    """
    known = Known() if known is None else known
    is_wanted = _pattern(folder).fullmatch
    waiting = [str(folder.path)]
    while waiting:
        directory = waiting.pop()
        on_directory(directory)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if folder.recursive and not _is_hidden(entry.name):
                            waiting.append(entry.path)
                    elif is_wanted(entry.name):
                        on_file()
                        found = _sort(entry, known)
                        if found is not None:
                            yield found
        except OSError as exc:
            if directory == str(folder.path):
                raise
            if not isinstance(exc, GONE):
                yield Skipped(Path(directory), unreadable(exc))


def _sort(entry: os.DirEntry[str], known: Known) -> Footage | Skipped | None:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return examine(Path(entry.path))
    if known.meets(entry.path, found.st_size, found.st_mtime_ns):
        return None
    return _decided(Path(entry.path), found)


def wanted(folder: FootageFolder, name: str) -> bool:
    """Whether a file of this name is footage, by `include` and `exclude`; case does not count.

    The smaller copy that some cameras write of each recording is none.
    """
    return _pattern(folder).fullmatch(name) is not None


def _pattern(folder: FootageFolder) -> re.Pattern[str]:
    copies = copies_in(folder)
    return _compiled(folder.include, folder.exclude, copies.pattern if copies else None)


@lru_cache(maxsize=64)
def _compiled(include: tuple[str, ...], exclude: tuple[str, ...], copies: str | None) -> re.Pattern[str]:
    """One expression for all patterns: a scan asks for each file."""
    included = "|".join(map(translate, include))
    excluded = "|".join([*map(translate, exclude), *([rf"(?:{copies})\Z"] if copies else [])])
    return re.compile(f"(?!{excluded})(?:{included})" if excluded else f"(?:{included})", re.IGNORECASE)


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
    return _decided(path, found)


def _decided(path: Path, found: os.stat_result) -> Footage | Skipped:
    if stat.S_ISLNK(found.st_mode):
        return Skipped(path, "a symbolic link: links are never followed; give the folder it points to as [[footage]]")
    if not stat.S_ISREG(found.st_mode):
        return Skipped(path, "not a regular file (a device, a pipe or a socket)")
    return Footage.from_stat(path, found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
