"""Notifications from the kernel, through watchdog: hints for low latency, nothing that correctness rests on.

They get lost on overflow, stop without a word when a card is unmounted or a folder is replaced, and miss files that
were written into a new directory before it was watched. The scan finds all of that; `tend` repairs the watches.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
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
from watchdog.observers.api import BaseObserver, ObservedWatch

from agent.config import FootageFolder

log = structlog.get_logger()

EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
]
OnFile = Callable[[FootageFolder, Path, bool], None]
OnFolder = Callable[[FootageFolder], None]


class Watcher:
    """Watches the footage folders that are there, and those that come.

    Args:
        folders: what to watch.
        on_file: called from watchdog's thread with folder, path and whether the file was closed or moved in.
        on_folder: called from watchdog's thread when a directory appeared, whose files may have gone unnoticed.
    """

    def __init__(self, folders: Sequence[FootageFolder], on_file: OnFile, on_folder: OnFolder) -> None:
        self._folders = folders
        self._on_file = on_file
        self._on_folder = on_folder
        self._observer: BaseObserver | None = None
        self._watches: dict[Path, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._reported: set[Path] = set()

    def tend(self) -> None:
        """Starts what is not watched yet and renews what has stopped working; call it before each scan."""
        try:
            observer = self._living_observer()
        except OSError as exc:
            for folder in self._folders:
                self._report(folder, exc)
            return
        for folder in self._folders:
            self._tend_folder(observer, folder)

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=2.0)
        self._observer = None
        self._watches.clear()

    def _living_observer(self) -> BaseObserver:
        """The observer, started anew if it or one of its threads has died.

        Raises:
            OSError: the kernel has no inotify instance left for this user.
        """
        observer = self._observer
        if observer is None or not observer.is_alive() or not all(e.is_alive() for e in observer.emitters):
            self.stop()
            # Folders made in quick succession make watchdog 7.1 warn of its own double bookkeeping, at great length;
            # where warnings are errors that ends its reading thread.
            warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
            observer = Observer()
            observer.start()
            self._observer = observer
        return observer

    def _tend_folder(self, observer: BaseObserver, folder: FootageFolder) -> None:
        place = _place(folder.path)
        watch = self._watches.get(folder.path)
        if watch is not None and watch[1] != place:
            # Another card, or a folder made anew, under the same path: the old watch is deaf.
            self._watches.pop(folder.path)
            try:
                observer.unschedule(watch[0])
            except (KeyError, OSError):
                log.debug("watch_was_gone", folder=str(folder.path))
        if place is None or folder.path in self._watches:
            return
        try:
            handler = _Handler(folder, self._on_file, self._on_folder)
            # watchdog follows no links, not even the folder's own path: its "." is the directory at the link's end.
            place_path = f"{folder.path}/."
            scheduled = observer.schedule(handler, place_path, recursive=folder.recursive, event_filter=EVENTS)
        except OSError as exc:
            self._report(folder, exc)
            return
        self._reported.discard(folder.path)
        self._watches[folder.path] = (scheduled, place)

    def _report(self, folder: FootageFolder, error: OSError) -> None:
        """Says once that a folder is not watched: the scan still finds everything, only later."""
        if folder.path in self._reported:
            return
        self._reported.add(folder.path)
        log.warning(
            "folder_not_watched",
            folder=str(folder.path),
            reason=error.strerror,
            effect=f"new footage is found by the scan, every {folder.rescan_seconds:g} s",
            remedy="raise fs.inotify.max_user_watches and fs.inotify.max_user_instances (sysctl)",
        )


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


def _place(path: Path) -> tuple[int, int] | None:
    """Which directory stands at a path: a card put in again, or a folder made anew, is another one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
