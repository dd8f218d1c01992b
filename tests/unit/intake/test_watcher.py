from __future__ import annotations

import errno
import logging
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
from agent.device import inotify
from agent.device.inotify import Inode
from agent.intake import watcher
from agent.intake.watcher import Watcher
from tests.support.daemon import PATIENCE_SECONDS


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


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
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
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_what_is_watched_already_is_left_alone(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    threads = set(threading.enumerate())
    noted.watcher.tend()
    assert set(threading.enumerate()) <= threads


def test_a_kernel_without_room_for_watches_is_told_once_and_stops_nothing(
    tmp_path: Path, note: Callable[..., Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_instance() -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    noted = note(tmp_path)
    monkeypatch.setattr(watcher, "Observer", no_instance)
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


def test_a_folder_watched_anew_is_named_so_that_a_scan_follows(tmp_path: Path, note: Callable[..., Noted]) -> None:
    card, other = tmp_path / "card", tmp_path / "other"
    other.mkdir()
    noted = note(card, other)
    assert noted.watcher.tend() == noted.folders[1:]
    assert noted.watcher.tend() == []
    card.mkdir()
    assert noted.watcher.tend() == noted.folders[:1]
    card.rename(tmp_path / "old")
    card.mkdir()
    with capture_logs() as logged:
        assert noted.watcher.tend() == noted.folders
        assert noted.watcher.tend() == []
    assert [(entry["event"], entry["folder"]) for entry in logged] == [("folder_changed", str(card))]


def test_a_watch_that_the_kernel_has_ended_is_renewed_although_the_folder_looks_the_same(
    tmp_path: Path, note: Callable[..., Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    with monkeypatch.context() as patch:
        patch.setattr(inotify, "watched", frozenset)
        assert noted.watcher.tend() == noted.folders
    (tmp_path / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: tmp_path / "a.mp4" in noted.closed())


def test_a_filesystem_whose_watches_the_kernel_lists_otherwise_is_left_alone(
    tmp_path: Path, note: Callable[..., Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "watched", frozenset)
    noted = note(tmp_path)
    assert noted.watcher.tend() == noted.folders
    assert noted.watcher.tend() == []
    assert not noted.watcher.check(noted.folders[0], [str(tmp_path)])


def test_directories_that_stay_unwatched_are_tried_again_told_once_and_told_again_after_they_were_watched(
    tmp_path: Path, note: Callable[..., Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "trip"
    below.mkdir()
    noted = note(tmp_path)
    (folder,) = noted.folders
    everything = inotify.watched

    def scan() -> tuple[bool, bool]:
        """Whether the watches were made anew before this scan, and whether another is to follow soon."""
        renewed = bool(noted.watcher.tend())
        return renewed, noted.watcher.check(folder, [str(tmp_path), str(below), str(tmp_path / "gone")])

    assert scan() == (True, False)
    with capture_logs() as logged:
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(inotify, "watched", lambda: everything() - {Inode.of(below)})
                assert scan() == (False, True)
                assert scan() == (False, True)
                assert scan() == (True, False)
                assert [scan()[0] for _ in range(20)].count(True) == 2
            assert scan()[1] is False
    assert [entry["event"] for entry in logged] == ["folder_not_watched", "folder_watched"] * 2
    assert "1 of its directories" in logged[0]["reason"]
    assert "fs.inotify.max_user_watches" in logged[0]["remedy"]


def test_a_directory_that_is_unwatched_only_while_it_is_new_is_no_news(
    tmp_path: Path, note: Callable[..., Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = note(tmp_path)
    (folder,) = noted.folders
    noted.watcher.tend()
    everything = inotify.watched
    with capture_logs() as logged:
        for number in range(5):
            new = tmp_path / str(number)
            new.mkdir()
            with monkeypatch.context() as patch:
                patch.setattr(inotify, "watched", lambda new=new: everything() - {Inode.of(new)})
                assert noted.watcher.tend() == []
                assert noted.watcher.check(folder, [str(tmp_path), str(new)])
    assert logged == []


def test_a_directory_that_cannot_be_reached_is_not_missed(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    (tmp_path / "file").touch()
    unreachable = [str(tmp_path / "file"), f"{tmp_path}/{'d' * 300}", f"{tmp_path}/{'d/' * 3000}"]
    assert not noted.watcher.check(noted.folders[0], [str(tmp_path), *unreachable])


def test_a_folder_that_is_not_recursive_needs_one_watch(tmp_path: Path, note: Callable[..., Noted]) -> None:
    (tmp_path / "trip").mkdir()
    noted = note(tmp_path, recursive=False)
    noted.watcher.tend()
    assert not noted.watcher.check(noted.folders[0], [str(tmp_path), str(tmp_path / "trip")])


def test_a_complaint_of_watchdog_asks_for_a_scan_and_is_told_once(tmp_path: Path, note: Callable[..., Noted]) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    library = logging.getLogger("watchdog.observers.inotify_c")
    with capture_logs() as logged:
        for _ in range(3):
            library.warning("Inotify queue overflowed")
            noted.watcher.tend()
        noted.watcher.tend()
        library.warning("Inotify queue overflowed")
        noted.watcher.tend()
    assert noted.directories == noted.folders * 4
    assert [entry["event"] for entry in logged] == ["notifications_lost"] * 2


def test_threads_that_died_are_told_once_and_again_after_they_had_lived(
    tmp_path: Path, note: Callable[..., Noted]
) -> None:
    noted = note(tmp_path)
    noted.watcher.tend()
    with capture_logs() as logged:
        for _ in range(2):
            for _ in range(2):
                observer = noted.watcher._observer
                assert observer is not None
                observer.stop()
                observer.join()
                assert noted.watcher.tend() == noted.folders
            assert noted.watcher.tend() == []
    assert [entry["event"] for entry in logged] == ["watching_failed", "watching_again"] * 2
