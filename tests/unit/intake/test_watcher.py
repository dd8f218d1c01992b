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
from agent.intake.watcher import FsEvent, Watcher
from tests.support.daemon import PATIENCE_SECONDS


class Recorded:
    """A watcher, and what it has reported."""

    def __init__(self, *paths: Path, recursive: bool = True) -> None:
        self.folders = [FootageFolder(path, recursive=recursive) for path in paths]
        self.events: list[FsEvent] = []
        self.watcher = Watcher(self.folders, self.events.append)

    def closed(self) -> set[Path]:
        return {event.path for event in self.events if event.path and event.closed}

    def to_scan(self) -> list[FootageFolder]:
        return [event.folder for event in self.events if event.path is None]


Record = Callable[..., Recorded]


@pytest.fixture
def record() -> Iterator[Record]:
    made: list[Recorded] = []

    def make(*paths: Path, recursive: bool = True) -> Recorded:
        made.append(Recorded(*paths, recursive=recursive))
        return made[-1]

    yield make
    for recorded in made:
        recorded.watcher.stop()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_a_file_is_reported_when_it_appears_and_when_it_is_closed(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    with (tmp_path / "a.mp4").open("wb") as file:
        assert eventually(lambda: FsEvent(recorded.folders[0], tmp_path / "a.mp4") in recorded.events)
        assert not recorded.closed()
        file.write(b"footage")
    assert eventually(lambda: recorded.closed() == {tmp_path / "a.mp4"})


def test_a_file_renamed_into_its_final_name_counts_as_closed(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    (tmp_path / "a.tmp").write_bytes(b"footage")
    (tmp_path / "a.tmp").rename(tmp_path / "a.mp4")
    assert eventually(lambda: tmp_path / "a.mp4" in recorded.closed())


def test_names_of_any_bytes_are_reported_unchanged(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    path = tmp_path / "line\nbreak \udcff.mp4"
    path.write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == {path})


def test_a_new_directory_is_reported(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    (tmp_path / "new").mkdir()
    assert eventually(lambda: recorded.to_scan() == recorded.folders)


def test_a_folder_that_is_a_symbolic_link_is_watched_under_its_own_path(tmp_path: Path, record: Record) -> None:
    (tmp_path / "mounted" / "below").mkdir(parents=True)
    (tmp_path / "card").symlink_to("mounted")
    recorded = record(tmp_path / "card")
    recorded.watcher.refresh()
    expected = {tmp_path / "card" / "a.mp4", tmp_path / "card" / "below" / "b.mp4"}
    for path in expected:
        path.write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == expected)


def test_a_folder_that_appears_later_is_watched(tmp_path: Path, record: Record) -> None:
    card = tmp_path / "card"
    recorded = record(tmp_path / "other", card)
    with capture_logs() as logged:
        recorded.watcher.refresh()
    assert logged == []
    card.mkdir()
    recorded.watcher.refresh()
    (card / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == {card / "a.mp4"})


def test_a_folder_deleted_and_made_again_is_watched_again(tmp_path: Path, record: Record) -> None:
    card, other = tmp_path / "card", tmp_path / "other"
    card.mkdir()
    other.mkdir()
    recorded = record(card, other)
    recorded.watcher.refresh()
    shutil.rmtree(card)
    card.mkdir()
    # The watch on the deleted folder ends at some moment; a refresh after it repairs that.
    path = card / "a.mp4"

    def is_reported() -> bool:
        recorded.watcher.refresh()
        path.write_bytes(b"footage")
        return path in recorded.closed()

    assert eventually(is_reported)
    (other / "b.mp4").write_bytes(b"footage")
    assert eventually(lambda: other / "b.mp4" in recorded.closed())


def test_a_folder_replaced_by_another_is_watched_again(tmp_path: Path, record: Record) -> None:
    card = tmp_path / "card"
    card.mkdir()
    recorded = record(card)
    recorded.watcher.refresh()
    card.rename(tmp_path / "old card")
    card.mkdir()
    recorded.watcher.refresh()
    (card / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == {card / "a.mp4"})


def test_a_dead_observer_is_replaced(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    before = set(threading.enumerate())
    recorded.watcher.refresh()
    observer = recorded.watcher._observer
    assert observer is not None
    observer.stop()
    observer.join()
    recorded.watcher.refresh()
    (tmp_path / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == {tmp_path / "a.mp4"})
    recorded.watcher.stop()
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_a_refresh_leaves_working_watches_alone(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    threads = set(threading.enumerate())
    recorded.watcher.refresh()
    assert set(threading.enumerate()) <= threads


def test_a_full_watch_table_is_logged_once_and_stops_nothing(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_instance() -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    recorded = record(tmp_path)
    monkeypatch.setattr(watcher, "Observer", no_instance)
    with capture_logs() as logged:
        recorded.watcher.refresh()
        recorded.watcher.refresh()
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("folder_not_watched", "Too many open files")]
    monkeypatch.undo()
    recorded.watcher.refresh()
    (tmp_path / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == {tmp_path / "a.mp4"})


def test_a_folder_that_cannot_be_watched_is_logged_once_and_tried_again(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path / "card")
    (tmp_path / "card").mkdir()

    def no_watch(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    recorded.watcher.refresh()
    recorded.watcher.stop()
    with capture_logs() as logged, pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseObserver, "schedule", no_watch)
        recorded.watcher.refresh()
        recorded.watcher.refresh()
    assert [(entry["event"], entry["reason"]) for entry in logged] == [
        ("folder_not_watched", "inotify watch limit reached")
    ]
    recorded.watcher.refresh()
    (tmp_path / "card" / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: recorded.closed() == {tmp_path / "card" / "a.mp4"})


def test_a_refresh_returns_the_folders_with_new_watches_for_a_scan(tmp_path: Path, record: Record) -> None:
    card, other = tmp_path / "card", tmp_path / "other"
    other.mkdir()
    recorded = record(card, other)
    assert recorded.watcher.refresh() == recorded.folders[1:]
    assert recorded.watcher.refresh() == []
    card.mkdir()
    assert recorded.watcher.refresh() == recorded.folders[:1]
    card.rename(tmp_path / "old")
    card.mkdir()
    with capture_logs() as logged:
        assert recorded.watcher.refresh() == recorded.folders
        assert recorded.watcher.refresh() == []
    assert [(entry["event"], entry["folder"]) for entry in logged] == [("folder_changed", str(card))]


def test_a_watch_that_the_kernel_has_ended_is_renewed_even_if_the_inode_is_the_same(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(inotify, "watched", frozenset)
        assert recorded.watcher.refresh() == recorded.folders
    (tmp_path / "a.mp4").write_bytes(b"footage")
    assert eventually(lambda: tmp_path / "a.mp4" in recorded.closed())


def test_watches_on_filesystems_with_other_device_numbers_are_left_alone(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "watched", frozenset)
    recorded = record(tmp_path)
    assert recorded.watcher.refresh() == recorded.folders
    assert recorded.watcher.refresh() == []
    assert not recorded.watcher.check_coverage(recorded.folders[0], [str(tmp_path)])


def test_unwatched_directories_are_retried_and_logged_once_until_they_are_watched(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "trip"
    below.mkdir()
    recorded = record(tmp_path)
    (folder,) = recorded.folders
    everything = inotify.watched

    def scan() -> tuple[bool, bool]:
        """Whether the watches were renewed before this scan, and whether another scan is to follow soon."""
        renewed = bool(recorded.watcher.refresh())
        return renewed, recorded.watcher.check_coverage(folder, [str(tmp_path), str(below), str(tmp_path / "gone")])

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


def test_a_directory_that_is_unwatched_only_while_it_is_new_is_not_logged(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record(tmp_path)
    (folder,) = recorded.folders
    recorded.watcher.refresh()
    everything = inotify.watched
    with capture_logs() as logged:
        for number in range(5):
            new = tmp_path / str(number)
            new.mkdir()
            with monkeypatch.context() as patch:
                patch.setattr(inotify, "watched", lambda new=new: everything() - {Inode.of(new)})
                assert recorded.watcher.refresh() == []
                assert recorded.watcher.check_coverage(folder, [str(tmp_path), str(new)])
    assert logged == []


def test_a_directory_that_cannot_be_reached_does_not_count_as_unwatched(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    (tmp_path / "file").touch()
    unreachable = [str(tmp_path / "file"), f"{tmp_path}/{'d' * 300}", f"{tmp_path}/{'d/' * 3000}"]
    assert not recorded.watcher.check_coverage(recorded.folders[0], [str(tmp_path), *unreachable])


def test_a_folder_that_is_not_recursive_needs_one_watch(tmp_path: Path, record: Record) -> None:
    (tmp_path / "trip").mkdir()
    recorded = record(tmp_path, recursive=False)
    recorded.watcher.refresh()
    assert not recorded.watcher.check_coverage(recorded.folders[0], [str(tmp_path), str(tmp_path / "trip")])


def test_a_warning_of_watchdog_requests_a_scan_and_is_logged_once(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    library = logging.getLogger("watchdog.observers.inotify_c")
    with capture_logs() as logged:
        for _ in range(3):
            library.warning("Inotify queue overflowed")
            recorded.watcher.refresh()
        recorded.watcher.refresh()
        library.warning("Inotify queue overflowed")
        recorded.watcher.refresh()
    assert recorded.to_scan() == recorded.folders * 4
    assert [entry["event"] for entry in logged] == ["notifications_lost"] * 2


def test_dead_threads_are_logged_once_until_they_run_again(tmp_path: Path, record: Record) -> None:
    recorded = record(tmp_path)
    recorded.watcher.refresh()
    with capture_logs() as logged:
        for _ in range(2):
            for _ in range(2):
                observer = recorded.watcher._observer
                assert observer is not None
                observer.stop()
                observer.join()
                assert recorded.watcher.refresh() == recorded.folders
            assert recorded.watcher.refresh() == []
    assert [entry["event"] for entry in logged] == ["watching_failed", "watching_again"] * 2
