"""File events from the kernel, through watchdog: they lower latency, and nothing else depends on them.

Events are lost when the kernel's queue overflows, end silently when a card is unmounted or a folder is replaced, and
miss files that were written into a new directory before it was watched. The scan finds all of these files;
`Watcher.refresh` repairs the watches.

The intake thread calls the Watcher. The callbacks run in watchdog's threads: the one that dispatches events, and those
that read from the kernel and log what they could not read.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

from agent.config import FootageFolder
from agent.device import inotify
from agent.device.inotify import Inode
from agent.device.warn_once import WarnOnce

log = structlog.get_logger()

EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
]
REMEDY = "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances (sysctl)"
# While directories are unwatched, all watches are renewed at every tenth scan: the limit may have been raised.
SCANS_TO_RETRY = 10
# Stands for the path in warnings that concern all folders.
ALL_FOLDERS = Path("all folders")


@dataclass(frozen=True, slots=True)
class FsEvent:
    """Something happened in a footage folder.

    Args:
        folder: the folder.
        path: the file that appeared or was closed; None if files of the folder may have been missed: a directory
            appeared, or events were lost.
        closed: the file was closed after writing, or moved in.
    """

    folder: FootageFolder
    path: Path | None
    closed: bool = False


@dataclass(slots=True)
class _Watch:
    """State of the watch on one folder.

    Args:
        inode: the directory at the folder's path when the watch was made; None: there is no watch.
        is_listed: the kernel listed the directory as watched right after that. When it no longer does, the watch has
            ended.
        unwatched: directories that the latest scan has entered and the kernel does not watch.
        retries_in: scans until the watches are renewed for unwatched directories; None: not tried for these yet.
    """

    inode: Inode | None = None
    is_listed: bool = False
    unwatched: frozenset[str] = field(default_factory=frozenset)
    retries_in: int | None = None


class Watcher:
    """Watches the footage folders, those that exist and those that appear later.

    Args:
        folders: what to watch.
        on_event: called with each event, from watchdog's threads.
    """

    def __init__(self, folders: Sequence[FootageFolder], on_event: Callable[[FsEvent], None]) -> None:
        self._folders = folders
        self._on_event = on_event
        self._observer: BaseObserver | None = None
        self._threads: list[BaseThread] = []
        self._watches = {folder: _Watch() for folder in folders}
        self._warnings = WarnOnce()
        self._log_handler = _LogHandler(self._on_watchdog_warning)
        # Written by watchdog's threads: the latest reason why events were lost. A lost update loses one of two reasons.
        self._lost = ""
        self._is_stale = False

    def refresh(self) -> list[FootageFolder]:
        """Watches folders that are not watched yet, and renews watches that have ended. Call it before each scan.

        Returns:
            Folders with a new watch: scan them now, for files that came before it.
        """
        self._log_lost_events()
        if self._observer is not None and self._needs_restart():
            self._stop_observer()
        before = set(threading.enumerate())
        try:
            observer = self._ensure_observer()
        except OSError as exc:
            for folder in self._folders:
                self._log_not_watched(folder, exc)
            return []
        renewed = [folder for folder in self._folders if self._schedule(observer, folder)]
        new = set(threading.enumerate()) - before
        self._threads += [thread for thread in new if isinstance(thread, BaseThread)]
        listed = inotify.watched() if renewed else frozenset()
        for folder in renewed:
            self._watches[folder].is_listed = self._watches[folder].inode in listed
        return renewed

    def check_coverage(self, folder: FootageFolder, directories: Iterable[str]) -> bool:
        """Compares the directories of a folder with those that the kernel watches: watchdog omits some at the limit.

        Args:
            folder: the folder that was scanned.
            directories: all directories that the scan has entered.

        Returns:
            Whether to scan again soon, because directories are unwatched. New ones are, for a moment, and that is not
            worth a warning.
        """
        watch = self._watches[folder]
        if not watch.is_listed:
            return False
        # None: no longer a directory, or out of reach (too deep, a failing card). It cannot be watched anyway.
        listed = {None, *inotify.watched()}
        directories = directories if folder.recursive else ()
        unwatched = frozenset(path for path in directories if Inode.of(path) not in listed)
        lasting = unwatched & watch.unwatched
        watch.unwatched = unwatched
        if not lasting:
            watch.retries_in = None
            if not unwatched:
                self._log_watched(folder)
            return bool(unwatched)
        if watch.retries_in is None:
            watch.retries_in = SCANS_TO_RETRY
            self._is_stale = True
            return True
        self._log_not_watched(folder, f"no inotify watch was left for {len(lasting)} of its directories")
        watch.retries_in -= 1
        if not watch.retries_in:
            watch.retries_in = SCANS_TO_RETRY
            self._is_stale = True
        return False

    def stop(self) -> None:
        """Ends all watches, and waits for watchdog's threads to end."""
        self._stop_observer()
        library = logging.getLogger("watchdog")
        library.removeHandler(self._log_handler)
        library.propagate = True

    def _needs_restart(self) -> bool:
        """Whether a watch has ended, or one of watchdog's threads has died."""
        stale, self._is_stale = self._is_stale, False
        listed = inotify.watched()
        # Read after the list of watches: watchdog marks a thread as stopped before it removes the thread's watches, and
        # these must not be taken for watches that the kernel has ended.
        dead = [thread.name for thread in self._threads if not (thread.is_alive() and thread.should_keep_running())]
        for folder, watch in self._watches.items():
            if watch.inode is None:
                continue
            inode = Inode.of(folder.path)
            has_changed = inode != watch.inode
            # A card that is put in again may get the same inode number: only the kernel knows that the watch has ended.
            has_ended = watch.is_listed and watch.inode not in listed and not dead
            stale = stale or has_changed or has_ended
            if inode is not None and (has_changed or has_ended):
                log.info(
                    "folder_changed", folder=str(folder.path), now="another card, or a new folder of the same name"
                )
        if dead and not stale:
            self._warnings.warn("watching_failed", ALL_FOLDERS, f"threads of watchdog ended: {', '.join(dead)}")
        elif not dead and self._warnings.clear("watching_failed", ALL_FOLDERS):
            log.info("watching_again", path=str(ALL_FOLDERS))
        return stale or bool(dead)

    def _ensure_observer(self) -> BaseObserver:
        """The running observer; started if there is none.

        Raises:
            OSError: the kernel has no inotify instance left for this user.
        """
        if self._observer is None:
            # watchdog 7.1 warns about its own bookkeeping when folders are made in quick succession. Where warnings are
            # errors, that would end its reading thread.
            warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
            library = logging.getLogger("watchdog")
            library.addHandler(self._log_handler)
            # It logs each lost event, thousands at a time; `_log_lost_events` logs that once.
            library.propagate = False
            observer = Observer()
            observer.start()
            self._observer = observer
        return self._observer

    def _stop_observer(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=2.0)
        self._observer = None
        self._threads = []
        for watch in self._watches.values():
            watch.inode = None
            watch.is_listed = False

    def _schedule(self, observer: BaseObserver, folder: FootageFolder) -> bool:
        """Watches a folder that exists and is not watched.

        Returns:
            Whether it has a new watch.
        """
        watch = self._watches[folder]
        inode = Inode.of(folder.path)
        if inode is None or watch.inode is not None:
            return False
        try:
            handler = _Handler(folder, self._on_event)
            # watchdog follows no symbolic link, not even the folder's own path; "." is the directory that it points to.
            path = f"{folder.path}/."
            observer.schedule(handler, path, recursive=folder.recursive, event_filter=EVENTS)
        except OSError as exc:
            self._log_not_watched(folder, exc)
            return False
        watch.inode = inode
        if watch.retries_in is None:
            self._log_watched(folder)
        return True

    def _on_watchdog_warning(self, message: str) -> None:
        """Events were lost, or a directory could not be watched. Called from watchdog's threads."""
        self._lost = message
        for folder in self._folders:
            self._on_event(FsEvent(folder, None))

    def _log_lost_events(self) -> None:
        lost, self._lost = self._lost, ""
        if lost:
            effect = "all folders are scanned for the files that were missed"
            self._warnings.warn("notifications_lost", ALL_FOLDERS, lost, effect=effect)
        else:
            self._warnings.clear("notifications_lost", ALL_FOLDERS)

    def _log_not_watched(self, folder: FootageFolder, why: OSError | str) -> None:
        """Logs once that a folder is not watched: the scan still finds all footage, only later."""
        self._warnings.warn(
            "folder_not_watched",
            folder.path,
            why if isinstance(why, str) else str(why.strerror),
            folder=str(folder.path),
            effect=f"new footage is found by the scan, every {folder.rescan_seconds:g} s",
            remedy=REMEDY,
        )

    def _log_watched(self, folder: FootageFolder) -> None:
        if self._warnings.clear("folder_not_watched", folder.path):
            log.info("folder_watched", folder=str(folder.path), path=str(folder.path))


class _LogHandler(logging.Handler):
    """Receives watchdog's log records from warnings up: it reports an overflow in no other way."""

    def __init__(self, on_warning: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_warning = on_warning

    def emit(self, record: logging.LogRecord) -> None:
        self._on_warning(record.getMessage())


class _Handler(FileSystemEventHandler):
    def __init__(self, folder: FootageFolder, on_event: Callable[[FsEvent], None]) -> None:
        self._folder = folder
        self._on_event = on_event

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, (DirCreatedEvent, DirMovedEvent)):
            self._on_event(FsEvent(self._folder, None))
            return
        was_moved = isinstance(event, FileMovedEvent)
        path = Path(os.fsdecode(event.dest_path if was_moved else event.src_path))
        self._on_event(FsEvent(self._folder, path, closed=was_moved or isinstance(event, FileClosedEvent)))
