from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from watchdog.observers.api import BaseObserver

from agent.config import FootageFolder
from agent.intake import watching
from agent.intake.watching import Watcher


class Noted:
    """What the watcher told, and the folders' watcher itself."""

    def __init__(self, *paths: Path, recursive: bool = True) -> None:
        self.folders = [FootageFolder(path, recursive=recursive) for path in paths]
        self.files: list[tuple[Path, bool]] = []
        self.directories: list[FootageFolder] = []
        self.watcher = Watcher(
            self.folders,
            lambda folder, path, closed: self.files.append((path, closed)),
            self.directories.append,
        )

    def closed(self) -> set[Path]:
        return {path for path, closed in self.files if closed}


@pytest.fixture
def note() -> Iterator[Callable[..., Noted]]:
    made: list[Noted] = []

    def make(*paths: Path, recursive: bool = True) -> Noted:
        made.append(Noted(*paths, recursive=recursive))
        return made[-1]

    yield make
    for noted in made:
        noted.watcher.stop()


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_a_file_is_told_when_it_appears_and_when_it_is_closed(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    with (tmp_path / "a.mp4").open("wb") as file:
        assert eventually(lambda: (tmp_path / "a.mp4", False) in noted.files)
        assert not noted.closed()
        file.write(b"footage")
    assert eventually(lambda: noted.closed() == {tmp_path / "a.mp4"})


def test_a_file_renamed_into_its_final_name_counts_as_closed(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    (tmp_path / "a.tmp").write_bytes(b"footage")
    (tmp_path / "a.tmp").rename(tmp_path / "a.mp4")
    assert eventually(lambda: tmp_path / "a.mp4" in noted.closed())


def test_names_of_any_bytes_are_told_as_they_are(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    path = tmp_path / "line\nbreak \udcff.mp4"
    path.write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == {path})


def test_a_new_directory_is_told(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    (tmp_path / "new").mkdir()
    assert eventually(lambda: noted.directories == noted.folders)


def test_a_folder_that_is_a_link_is_watched_under_the_name_it_was_given(
    tmp_path: Path, note: Callable[..., Noted]
) -> None:
    (tmp_path / "mounted" / "below").mkdir(parents=True)
    (tmp_path / "card").symlink_to("mounted")
    noted = note(tmp_path / "card")
    noted.watcher.tend()
    expected = {tmp_path / "card" / "a.mp4", tmp_path / "card" / "below" / "b.mp4"}
    for path in expected:
        path.write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == expected)


def test_a_folder_that_comes_later_is_watched_then(tmp_path: Path, note: Callable[..., Noted]) -> None:
    card = tmp_path / "card"
    noted = note(tmp_path / "other", card)
    with capture_logs() as logged:
        noted.watcher.tend()
    assert logged == []
    card.mkdir()
    noted.watcher.tend()
    (card / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == {card / "a.mp4"})


def test_a_folder_deleted_and_made_anew_is_watched_again(tmp_path: Path, note: Callable[..., Noted]) -> None:
    card, other = tmp_path / "card", tmp_path / "other"
    card.mkdir()
    other.mkdir()
    noted = note(card, other)
    noted.watcher.tend()
    shutil.rmtree(card)
    card.mkdir()
    # The watch on the deleted folder ends a moment later; whichever comes first, tending puts it right.
    path = card / "a.mp4"

    def is_told() -> bool:
        noted.watcher.tend()
        path.write_bytes(b"footage")
        return path in noted.closed()

    assert eventually(is_told)
    (other / "b.mp4").write_bytes(b"footage")
    assert eventually(lambda: other / "b.mp4" in noted.closed())


def test_a_folder_replaced_by_another_is_watched_again(tmp_path: Path, note: Callable[..., Noted]) -> None:
    card = tmp_path / "card"
    card.mkdir()
    noted = note(card)
    noted.watcher.tend()
    card.rename(tmp_path / "old card")
    card.mkdir()
    noted.watcher.tend()
    (card / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == {card / "a.mp4"})


def test_a_dead_observer_is_replaced(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    before = set(threading.enumerate())
    noted.watcher.tend()
    observer = noted.watcher._observer
    assert observer is not None
    observer.stop()
    observer.join()
    noted.watcher.tend()
    (tmp_path / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == {tmp_path / "a.mp4"})
    noted.watcher.stop()
    assert eventually(lambda: set(threading.enumerate()) == before)


def test_what_is_watched_already_is_left_alone(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    threads = set(threading.enumerate())
    noted.watcher.tend()
    assert set(threading.enumerate()) == threads


def test_a_kernel_without_room_for_watches_is_told_once_and_stops_nothing(
    tmp_path: Path, note: Callable[..., Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_instance() -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    noted = note(tmp_path)
    monkeypatch.setattr(watching, "Observer", no_instance)
    with capture_logs() as logged:
        noted.watcher.tend()
        noted.watcher.tend()
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("folder_not_watched", "Too many open files")]
    monkeypatch.undo()
    noted.watcher.tend()
    (tmp_path / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == {tmp_path / "a.mp4"})


def test_a_folder_that_cannot_be_watched_is_told_once_and_tried_again(
    tmp_path: Path, note: Callable[..., Noted]
) -> None:
    noted = note(tmp_path / "card")
    (tmp_path / "card").mkdir()

    def no_watch(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    noted.watcher.tend()
    noted.watcher.stop()
    with capture_logs() as logged, pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseObserver, "schedule", no_watch)
        noted.watcher.tend()
        noted.watcher.tend()
    assert [(entry["event"], entry["reason"]) for entry in logged] == [
        ("folder_not_watched", "inotify watch limit reached")
    ]
    noted.watcher.tend()
    (tmp_path / "card" / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: noted.closed() == {tmp_path / "card" / "a.mp4"})
