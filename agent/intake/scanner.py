"""The scan: what is in a footage folder now, and which of it is new. The truth, where file events are only hints.

Only the intake thread scans; `inspect` uses the functions, in a process of its own.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

import structlog

from agent.config import FootageFolder
from agent.device.warn_once import WarnOnce
from agent.intake.identify.filename import proxies_in
from agent.model import Footage, State
from agent.spool import Spool

log = structlog.get_logger()

# Files that the database is asked about in one query.
LOOKUP_FILES = 500
# Errors of lstat for a path that is no longer there; a folder in it may have become a file.
_GONE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class NotFootage:
    """Something with the name of footage that cannot be footage, and why."""

    path: Path
    reason: str


def walk(
    folder: FootageFolder,
    seen: SeenCache | None = None,
    *,
    on_file: Callable[[], None] = lambda: None,
    on_directory: Callable[[str], None] = lambda _path: None,
) -> Iterator[Footage | NotFootage]:
    """Finds all footage in a folder. Opens no file and follows no symbolic link.

    Args:
        folder: where to look, and the names of footage in it.
        seen: files that are left out. They cost one lstat each and nothing more: a card can hold 20,000.
        on_file: called with each file.
        on_directory: called with each directory that is entered, the folder itself too.

    Raises:
        OSError: the folder itself is not there or cannot be read. (A directory below it is a NotFootage then.)
    """
    seen = SeenCache() if seen is None else seen
    is_match = _pattern(folder).fullmatch
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
                    elif is_match(entry.name):
                        on_file()
                        found = _stat_entry(entry, seen)
                        if found is not None:
                            yield found
        except OSError as exc:
            if directory == str(folder.path):
                raise
            if not isinstance(exc, _GONE):
                yield NotFootage(Path(directory), _unreadable_reason(exc))


def _stat_entry(entry: os.DirEntry[str], seen: SeenCache) -> Footage | NotFootage | None:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return stat_footage(Path(entry.path))
    if seen.contains(entry.path, found.st_size, found.st_mtime_ns):
        return None
    return _classify(Path(entry.path), found)


def stat_footage(path: Path) -> Footage | NotFootage | None:
    """What is at a path now; None if nothing is."""
    try:
        found = path.lstat()
    except _GONE:
        return None
    except OSError as exc:
        return NotFootage(path, f"cannot be looked at: {exc.strerror}")
    return _classify(path, found)


def _classify(path: Path, found: os.stat_result) -> Footage | NotFootage:
    if stat.S_ISLNK(found.st_mode):
        reason = "a symbolic link: links are never followed; give the folder it points to as [[footage]]"
        return NotFootage(path, reason)
    if not stat.S_ISREG(found.st_mode):
        return NotFootage(path, "not a regular file (a device, a pipe or a socket)")
    return Footage.from_stat(path, found)


def _unreadable_reason(error: OSError) -> str:
    """Why a folder cannot be read, for the technician."""
    if isinstance(error, PermissionError):
        return "this folder may not be read: let the service's user list and enter it (chmod o+rx), or its group"
    return f"this folder cannot be read: {error.strerror}"


def matches_filters(folder: FootageFolder, name: str) -> bool:
    """Whether a file of this name is footage, by `include` and `exclude`; case does not matter.

    The proxy files that some cameras write beside each recording are not.
    """
    return _pattern(folder).fullmatch(name) is not None


def _pattern(folder: FootageFolder) -> re.Pattern[str]:
    proxies = proxies_in(folder)
    return _compiled(folder.include, folder.exclude, proxies.pattern if proxies else None)


@lru_cache(maxsize=64)
def _compiled(include: tuple[str, ...], exclude: tuple[str, ...], proxies: str | None) -> re.Pattern[str]:
    """All patterns as one expression, since a scan matches every file."""
    included = "|".join(map(translate, include))
    excluded = "|".join([*map(translate, exclude), *([rf"(?:{proxies})\Z"] if proxies else [])])
    return re.compile(f"(?!{excluded})(?:{included})" if excluded else f"(?:{included})", re.IGNORECASE)


def is_in_scope(folder: FootageFolder, path: Path) -> bool:
    """Whether a scan of the folder enters the directory of this file: it enters no hidden one.

    Args:
        folder: the folder.
        path: a file somewhere below it.
    """
    between = path.parent.relative_to(folder.path).parts
    return not between or (folder.recursive and not any(map(_is_hidden, between)))


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


class SeenCache:
    """Footage of one folder that the database knows, so that a scan need not ask about each file again.

    Keeps hashes: about a hundred bytes for each file.
    """

    def __init__(self) -> None:
        # Hash to whether the entry is lasting: a dictionary takes a third of the memory of two sets.
        self._seen_before: dict[int, bool] = {}
        self._seen_this_scan: dict[int, bool] = {}

    def contains(self, path: str, size_bytes: int, modified_ns: int) -> bool:
        """Whether the scan can skip the file that it has found."""
        key = hash((path, size_bytes, modified_ns))
        lasting = self._seen_before.get(key)
        if lasting is None:
            return key in self._seen_this_scan
        self._seen_this_scan[key] = lasting
        return True

    def add(self, footage: Footage, *, lasting: bool) -> None:
        """Adds footage that the scan has found.

        Args:
            footage: the file.
            lasting: `invalidate` keeps it: no change in the database makes this file of interest again while it is
                there and unchanged.
        """
        self._seen_this_scan[hash((str(footage.path), footage.size_bytes, footage.modified_ns))] = lasting

    def invalidate(self) -> None:
        """Drops all entries that are not lasting, after a change in the database that can concern them."""
        self._seen_before = {key: True for key, lasting in self._seen_before.items() if lasting}
        self._seen_this_scan = {key: True for key, lasting in self._seen_this_scan.items() if lasting}

    def start_scan(self) -> None:
        """A scan begins. Entries of a scan that ended early are kept."""
        self._seen_before |= self._seen_this_scan
        self._seen_this_scan = {}

    def finish_scan(self) -> int:
        """A scan was complete: entries that it has not found are gone from the folder, and dropped.

        Returns:
            How many entries are left.
        """
        self._seen_before, self._seen_this_scan = self._seen_this_scan, {}
        return len(self._seen_before)


class FolderScanner:
    """Scans one folder again and again, and yields what is new in it.

    Args:
        folder: where to look.
        spool: knows what became of footage.
        warnings: logs what lasts longer than one scan only once.
        now: Unix seconds.

    Attributes:
        is_readable: whether the latest scan could read the folder.
        directories: all directories that the latest scan has entered.
        has_footage: whether footage was found since the folder was last replaced or missing. A card that is not in its
            reader leaves an empty folder: footage that is not found there is not gone.
    """

    def __init__(self, folder: FootageFolder, spool: Spool, warnings: WarnOnce, now: Callable[[], float]) -> None:
        self.is_readable = True
        self.directories: list[str] = []
        self.has_footage = False
        self._folder = folder
        self._spool = spool
        self._warnings = warnings
        self._now = now
        self._seen = SeenCache()
        self._epoch = spool.invalidation_epoch
        self._asked_revision = 0
        self._asked_at = 0.0

    def invalidate(self) -> None:
        """Makes the next scan ask the database again about all footage that a command may have changed."""
        self._seen.invalidate()

    def scan(self, alive: Callable[[], None], is_stopping: Callable[[], bool]) -> Iterator[Footage]:
        """Yields footage that is new to the database; deletes delivered footage, if it is configured to.

        Args:
            alive: heartbeat, called with each file.
            is_stopping: ends the scan early; then nothing is concluded from what it has not found.
        """
        self._invalidate_changed()
        self._seen.start_scan()
        self.directories = []
        skipped: set[Path] = set()
        group: list[Footage] = []
        try:
            for found in walk(self._folder, self._seen, on_file=alive, on_directory=self.directories.append):
                if is_stopping():
                    return
                self.has_footage = True
                if isinstance(found, NotFootage):
                    skipped.add(found.path)
                    self._warnings.warn("footage_skipped", found.path, found.reason, footage=str(found.path))
                    continue
                group.append(found)
                if len(group) == LOOKUP_FILES:
                    yield from self._find_new(group)
                    group = []
        except OSError as exc:
            self._on_unreadable(exc)
        else:
            self._on_readable()
            self._warnings.clear_except("footage_skipped", skipped, self._folder.path)
            yield from self._find_new(group)
            self.has_footage = self._seen.finish_scan() > 0 or self.has_footage

    def _invalidate_changed(self) -> None:
        if self._spool.invalidation_epoch != self._epoch:
            self._epoch = self._spool.invalidation_epoch
            self._seen = SeenCache()
        revision, now = self._spool.revision, self._now()
        may_delete = self._folder.after_delivery == "delete" and revision != self._asked_revision
        if may_delete or self._spool.has_refusal_expired(self._asked_at, now):
            self._seen.invalidate()
        self._asked_revision, self._asked_at = revision, now

    def _find_new(self, group: Sequence[Footage]) -> Iterator[Footage]:
        states = self._spool.states_of(group)
        for footage in group:
            state = states.get(footage)
            if state is None:
                yield footage
            elif state is State.DELIVERED and self._is_deletable(footage):
                self._delete_delivered(footage)
            else:
                lasting = self._folder.after_delivery == "keep" and state is not State.REFUSED
                self._seen.add(footage, lasting=lasting)

    def _is_deletable(self, footage: Footage) -> bool:
        return self._folder.after_delivery == "delete" and self._spool.is_fully_delivered(footage)

    def _delete_delivered(self, footage: Footage) -> None:
        """Deletes footage whose clips are all delivered, if it is still the file that was delivered."""
        if stat_footage(footage.path) != footage:
            return
        try:
            footage.path.unlink()
        except OSError as exc:
            self._warnings.warn("footage_not_deleted", footage.path, str(exc.strerror), footage=str(footage.path))
        else:
            self._warnings.clear("footage_not_deleted", footage.path)
            log.info("footage_deleted", footage=str(footage.path), reason="delivered")

    def _on_unreadable(self, error: OSError) -> None:
        self.is_readable = self.has_footage = False
        reason = f"{_unreadable_reason(error)}; looked for again at every scan"
        self._warnings.warn("folder_missing", self._folder.path, reason, folder=str(self._folder.path))

    def _on_readable(self) -> None:
        self.is_readable = True
        if self._warnings.clear("folder_missing", self._folder.path):
            log.info("folder_back", folder=str(self._folder.path), path=str(self._folder.path))
