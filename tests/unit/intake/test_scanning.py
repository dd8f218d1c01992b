from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import FootageFolder
from agent.intake.scanning import Skipped, examine, reaches, scan, wanted
from agent.model import Footage

NOBODY = 65534


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of an ordinary user, who is not above permissions, as this test then is."""
    place = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(place, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield place
    os.seteuid(user)
    for directory in [place, *place.rglob("*/")]:
        directory.chmod(stat.S_IRWXU)
    shutil.rmtree(place)


def footage_names(folder: FootageFolder) -> set[str]:
    return {found.path.relative_to(folder.path).as_posix() for found in scan(folder) if isinstance(found, Footage)}


def skipped(folder: FootageFolder) -> dict[str, str]:
    return {found.path.name: found.reason for found in scan(folder) if isinstance(found, Skipped)}


def write(path: Path, content: bytes = b"footage") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_footage_is_found_at_every_depth_with_its_size_and_time(tmp_path: Path) -> None:
    path = write(tmp_path / "2026" / "07" / "a.mp4")
    assert list(scan(FootageFolder(tmp_path))) == [Footage(path, 7, path.stat().st_mtime_ns)]


def test_a_folder_that_is_not_recursive_stays_at_the_top(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    write(tmp_path / "below" / "b.mp4")
    assert footage_names(FootageFolder(tmp_path, recursive=False)) == {"a.mp4"}


def test_hidden_folders_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.mp4", ".b.mp4", ".Trash-1000/files/c.mp4", "DCIM/.cache/d.mp4"):
        write(tmp_path / name)
    assert footage_names(FootageFolder(tmp_path)) == {"a.mp4"}


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4", "line\nbreak.mp4", "star*.mp4", "zürich.mp4", "\udcff\udc80.mp4"])
def test_names_of_any_bytes_are_footage(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert footage_names(FootageFolder(tmp_path)) == {name}


@pytest.mark.parametrize(
    "name", ["a.jpg", "mp4", "a.mp4.tmp", "a.mp4_", ".a.mp4", "a~2.mp4", "fsck0001.rec", "a.mp4\n"]
)
def test_what_is_not_included_or_is_excluded_is_no_footage(name: str) -> None:
    assert not wanted(FootageFolder(Path("/card")), name)


def test_include_and_exclude_are_the_users_to_choose(tmp_path: Path) -> None:
    for name in ("front.ts", "front.MKV", "rear.ts", "front.mp4"):
        write(tmp_path / name)
    folder = FootageFolder(tmp_path, include=("*.TS", "*.mkv"), exclude=("REAR*",))
    assert footage_names(folder) == {"front.ts", "front.MKV"}


def test_links_to_files_and_folders_are_not_followed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere" / "a.mp4")
    card = tmp_path / "card"
    card.mkdir()
    (card / "linked.mp4").symlink_to(elsewhere)
    (card / "dangling.mp4").symlink_to("nowhere")
    (card / "folder").symlink_to(elsewhere.parent)
    (card / "loop").symlink_to(card)
    found = skipped(FootageFolder(card))
    assert footage_names(FootageFolder(card)) == set()
    assert found.keys() == {"linked.mp4", "dangling.mp4"}
    assert "a symbolic link" in found["linked.mp4"]


def test_a_folder_that_is_itself_reached_by_a_link_is_scanned_under_the_name_it_was_given(tmp_path: Path) -> None:
    write(tmp_path / "mounted" / "a.mp4")
    (tmp_path / "card").symlink_to("mounted")
    (found,) = scan(FootageFolder(tmp_path / "card"))
    assert found.path == tmp_path / "card" / "a.mp4"


def test_pipes_and_sockets_are_skipped_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.mp4"))
        found = skipped(FootageFolder(tmp_path))
    assert found.keys() == {"pipe.mp4", "socket.mp4"}
    assert all("not a regular file" in reason for reason in found.values())


def test_a_folder_below_that_may_not_be_read_is_skipped_and_the_rest_is_found(ordinary_folder: Path) -> None:
    write(ordinary_folder / "a.mp4")
    write(ordinary_folder / "locked" / "b.mp4").parent.chmod(0)
    assert footage_names(FootageFolder(ordinary_folder)) == {"a.mp4"}
    assert "chmod o+rx" in skipped(FootageFolder(ordinary_folder))["locked"]


def test_a_folder_that_may_be_listed_but_not_entered_is_told_for_its_files(ordinary_folder: Path) -> None:
    write(ordinary_folder / "listed" / "b.mp4").parent.chmod(stat.S_IRUSR)
    assert "cannot be looked at" in skipped(FootageFolder(ordinary_folder))["b.mp4"]


def test_the_folder_itself_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(scan(FootageFolder(tmp_path / "unmounted")))


def test_a_folder_that_vanishes_during_the_scan_is_nothing_to_tell(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    (tmp_path / "going").mkdir()
    found = scan(FootageFolder(tmp_path))
    first = next(found)
    (tmp_path / "going").rmdir()
    assert [first.path.name, *found] == ["a.mp4"]


def test_a_path_too_long_for_the_system_is_skipped_with_a_reason(tmp_path: Path) -> None:
    deep = tmp_path
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        name = "d" * 250
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, deep = below, deep / name
    os.close(descriptor)
    (reason,) = skipped(FootageFolder(tmp_path)).values()
    assert "File name too long" in reason


@pytest.mark.parametrize("path", ["gone.mp4", "file/was/a/folder.mp4"])
def test_what_is_no_longer_there_is_nothing(tmp_path: Path, path: str) -> None:
    write(tmp_path / "file")
    assert examine(tmp_path / path) is None


@pytest.mark.parametrize(
    ("path", "recursive", "expected"),
    [
        ("a.mp4", True, True),
        ("a.mp4", False, True),
        ("b/c/a.mp4", True, True),
        ("b/a.mp4", False, False),
        (".b/a.mp4", True, False),
        ("b/.c/d/a.mp4", True, False),
    ],
)
def test_a_notification_reaches_no_further_than_the_scan(path: str, recursive: bool, expected: bool) -> None:
    folder = FootageFolder(Path("/media/.card"), recursive=recursive)
    assert reaches(folder, folder.path / path) is expected
