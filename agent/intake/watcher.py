"""Notifications from the kernel, through watchdog: hints for low latency, nothing that correctness rests on.

They get lost on overflow, stop without a word when a card is unmounted or a folder is replaced, and miss files that
were written into a new directory before it was watched. The scan finds all of that; `tend` repairs the watches.
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
# While directories stay unwatched, the watches are made anew at every tenth scan: the limit may have been raised.
SCANS_TO_RETRY = 10
# In place of a path, where something is true of all folders.
EVERYWHERE = Path("all folders")

OnFile = Callable[[FootageFolder, Path, bool], None]
OnFolder = Callable[[FootageFolder], None]


@dataclass(slots=True)
class _Watch:
    """What is known of the watch on one folder.

    Args:
        place: the directory that stood at the folder's path when the watch was made; None: there is no watch.
        is_listed: the kernel's list named the folder right then: once it does not, the watch is deaf.
        unwatched: directories that the latest scan entered and the kernel does not watch.
        retries_in: scans until unwatched directories are tried again; None: they have not been tried yet.
    """

    place: Inode | None = None
    is_listed: bool = False
    unwatched: frozenset[str] = field(default_factory=frozenset)
    retries_in: int | None = None


class Watcher:
    """Watches the footage folders that are there, and those that come.

    Args:
        folders: what to watch.
        on_file: called from watchdog's thread with folder, path and whether the file was closed or moved in.
        on_folder: called from watchdog's thread when files of a folder may have gone unnoticed: a directory appeared,
            or notifications were lost.
    """

    def __init__(self, folders: Sequence[FootageFolder], on_file: OnFile, on_folder: OnFolder) -> None:
        self._folders = folders
        self._on_file = on_file
        self._on_folder = on_folder
        self._observer: BaseObserver | None = None
        self._threads: list[threading.Thread] = []
        self._watches = {folder: _Watch() for folder in folders}
        self._warnings = WarnOnce()
        self._complaints = _Complaints(self._on_complaint)
        self._lost = ""
        self._is_stale = False

    def tend(self) -> list[FootageFolder]:
        """Starts what is not watched yet and renews what has stopped working; call it before each scan.

        Returns:
            The folders that are watched anew: a scan must follow, for what came while they were not.
        """
        self._tell_of_lost_notifications()
        if self._observer is not None and self._must_renew():
            self._stop_observer()
        before = set(threading.enumerate())
        try:
            observer = self._started()
        except OSError as exc:
            for folder in self._folders:
                self._tell_not_watched(folder, exc)
            return []
        renewed = [folder for folder in self._folders if self._schedule(observer, folder)]
        new = set(threading.enumerate()) - before
        self._threads += [thread for thread in new if isinstance(thread, BaseThread)]
        listed = inotify.watched() if renewed else frozenset()
        for folder in renewed:
            self._watches[folder].is_listed = self._watches[folder].place in listed
        return renewed

    def check(self, folder: FootageFolder, directories: Iterable[str]) -> bool:
        """Compares what a scan has entered with what the kernel watches: at its limit, watchdog leaves out the rest.

        Args:
            directories: all that the scan of the folder has entered.

        Returns:
            Whether to scan again soon: a directory is unwatched for a moment when it is new, and that is no trouble.
        """
        watch = self._watches[folder]
        if not watch.is_listed:
            return False
        # What is no directory any more, or cannot be reached (too deep, a failing card), is not there to be watched.
        listed = {None, *inotify.watched()}
        directories = directories if folder.recursive else ()
        unwatched = frozenset(path for path in directories if Inode.of(path) not in listed)
        lasting = unwatched & watch.unwatched
        watch.unwatched = unwatched
        if not lasting:
            watch.retries_in = None
            if not unwatched:
                self._tell_watched(folder)
            return bool(unwatched)
        if watch.retries_in is None:
            watch.retries_in = SCANS_TO_RETRY
            self._is_stale = True
            return True
        self._tell_not_watched(folder, f"no inotify watch was left for {len(lasting)} of its directories")
        watch.retries_in -= 1
        if not watch.retries_in:
            watch.retries_in = SCANS_TO_RETRY
            self._is_stale = True
        return False

    def stop(self) -> None:
        self._stop_observer()
        library = logging.getLogger("watchdog")
        library.removeHandler(self._complaints)
        library.propagate = True

    def _must_renew(self) -> bool:
        """Whether a watch is deaf, or a thread that hands its notifications on has died."""
        stale, self._is_stale = self._is_stale, False
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        listed = inotify.watched()
        for folder, watch in self._watches.items():
            if watch.place is None:
                continue
            place = Inode.of(folder.path)
            has_changed = place != watch.place
            # A card put in again may get the numbers that it had: only the kernel knows that the watch has ended.
            is_deaf = watch.is_listed and watch.place not in listed and not dead
            stale = stale or has_changed or is_deaf
            if place is not None and (has_changed or is_deaf):
                log.info("folder_changed", folder=str(folder.path), now="another card, or a folder made anew")
        if dead and not stale:
            self._warnings.warn("watching_failed", EVERYWHERE, f"threads of watchdog ended: {', '.join(dead)}")
        elif not dead and self._warnings.clear("watching_failed", EVERYWHERE):
            log.info("watching_again")
        return stale or bool(dead)

    def _started(self) -> BaseObserver:
        """The observer, started if there is none.

        Raises:
            OSError: the kernel has no inotify instance left for this user.
        """
        if self._observer is None:
            # Folders made in quick succession make watchdog 7.1 warn of its own double bookkeeping, at great length;
            # where warnings are errors that ends its reading thread.
            warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
            library = logging.getLogger("watchdog")
            library.addHandler(self._complaints)
            # It complains of each lost notification, thousands at a time; what matters of that is told here, once.
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
            watch.place = None
            watch.is_listed = False

    def _schedule(self, observer: BaseObserver, folder: FootageFolder) -> bool:
        """Watches a folder that is there and not watched.

        Returns:
            Whether it is watched now and was not before.
        """
        watch = self._watches[folder]
        place = Inode.of(folder.path)
        if place is None or watch.place is not None:
            return False
        try:
            handler = _Handler(folder, self._on_file, self._on_folder)
            # watchdog follows no links, not even the folder's own path: its "." is the directory at the link's end.
            place_path = f"{folder.path}/."
            observer.schedule(handler, place_path, recursive=folder.recursive, event_filter=EVENTS)
        except OSError as exc:
            self._tell_not_watched(folder, exc)
            return False
        watch.place = place
        if watch.retries_in is None:
            self._tell_watched(folder)
        return True

    def _on_complaint(self, message: str) -> None:
        """Called from watchdog's threads: it lost notifications, or failed to watch a directory."""
        self._lost = message
        for folder in self._folders:
            self._on_folder(folder)

    def _tell_of_lost_notifications(self) -> None:
        lost, self._lost = self._lost, ""
        if lost:
            effect = "all folders are scanned for what they told of"
            self._warnings.warn("notifications_lost", EVERYWHERE, lost, effect=effect)
        else:
            self._warnings.clear("notifications_lost", EVERYWHERE)

    def _tell_not_watched(self, folder: FootageFolder, why: OSError | str) -> None:
        """Says once that a folder is not watched: the scan still finds everything, only later."""
        self._warnings.warn(
            "folder_not_watched",
            folder.path,
            why if isinstance(why, str) else str(why.strerror),
            effect=f"new footage is found by the scan, every {folder.rescan_seconds:g} s",
            remedy=REMEDY,
        )

    def _tell_watched(self, folder: FootageFolder) -> None:
        if self._warnings.clear("folder_not_watched", folder.path):
            log.info("folder_watched", folder=str(folder.path))


class _Complaints(logging.Handler):
    """Hears what watchdog logs as a warning or worse: it tells of an overflow in no other way."""

    def __init__(self, on_complaint: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_complaint = on_complaint

    def emit(self, record: logging.LogRecord) -> None:
        self._on_complaint(record.getMessage())


class _Handler(FileSystemEventHandler):
    def __init__(self, folder: FootageFolder, on_file: OnFile, on_folder: OnFolder) -> None:
        self._folder = folder
        self._on_file = on_file
        self._on_folder = on_folder

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, (DirCreatedEvent, DirMovedEvent)):
            self._on_folder(self._folder)
        elif isinstance(event, FileMovedEvent):
            self._on_file(self._folder, Path(os.fsdecode(event.dest_path)), True)
        elif isinstance(event, (FileClosedEvent, FileCreatedEvent)):
            closed = isinstance(event, FileClosedEvent)
            self._on_file(self._folder, Path(os.fsdecode(event.src_path)), closed)
