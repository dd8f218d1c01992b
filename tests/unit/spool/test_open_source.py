"""The open file is stored, not what its name stands for by then: a recorder renames and replaces at any instant."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.device.safe_open import open_footage
from agent.errors import FootageGone, FootageRefused, SpoolFull
from agent.model import State
from agent.spool import Spool, Taken, files
from tests.support.spooling import make_clip, stored, take_in

CONTENT = b"what was inspected" * 50
OTHER = b"another recording." * 50


class Bench:
    """A spool and a file of footage that was opened when it was inspected."""

    def __init__(self, spool: Spool, settings: SpoolSettings, folder: Path) -> None:
        self.spool = spool
        self.settings = settings
        self.clip = make_clip(folder, 1, CONTENT)
        self.path = self.clip.footage.path
        self.opened = open_footage(self.path)

    def take(self) -> Taken:
        (taken,) = take_in(self.spool, [(self.clip, self.opened)])
        return taken

    def stored_file(self) -> Path:
        (file,) = stored(self.settings)
        return file

    def is_not_taken(self, error: type[Exception] = FootageGone) -> bool:
        with pytest.raises(error):
            self.take()
        return stored(self.settings) == [] and list(self.spool.ledger.records()) == []


@pytest.fixture
def bench(spool: Spool, settings: SpoolSettings, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(spool, settings, tmp_path / "footage")
    yield made
    made.opened.close()


@pytest.fixture
def _no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DESCRIPTORS", tmp_path / "not mounted")


def break_call(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)


def replace_by_another(path: Path) -> None:
    """With a file of the same size, as a recorder does that renames over the oldest one."""
    other = path.with_name("new")
    other.write_bytes(OTHER)
    other.replace(path)


def test_an_open_file_is_linked_and_not_opened_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opens: list[str] = []
    real = os.open

    def counted(path: Path, *rest: int) -> int:
        opens.append(str(path))
        return real(path, *rest)

    monkeypatch.setattr(os, "open", counted)
    taken = bench.take()
    assert (taken.state, taken.copied) == (State.WAITING, False)
    assert bench.stored_file().stat().st_ino == bench.opened.inode
    assert [path for path in opens if path.endswith(".mp4")] == []


def test_a_file_that_was_renamed_meanwhile_is_stored(bench: Bench, tmp_path: Path) -> None:
    bench.path.rename(tmp_path / "locked.mp4")
    bench.take()
    assert bench.stored_file().read_bytes() == CONTENT


def test_a_file_whose_name_stands_for_another_one_is_stored(bench: Bench, tmp_path: Path) -> None:
    bench.path.rename(tmp_path / "locked.mp4")
    bench.path.write_bytes(OTHER)
    bench.take()
    assert bench.stored_file().read_bytes() == CONTENT


@pytest.mark.usefixtures("_no_proc")
def test_without_proc_an_open_file_is_linked_by_its_name(bench: Bench) -> None:
    bench.take()
    assert bench.stored_file().stat().st_ino == bench.opened.inode


@pytest.mark.usefixtures("_no_proc")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_without_proc_no_other_file_is_stored_in_its_place(bench: Bench, tmp_path: Path, is_replaced: bool) -> None:
    bench.path.rename(tmp_path / "locked.mp4")
    if is_replaced:
        bench.path.write_bytes(OTHER)
    assert bench.is_not_taken()


@pytest.mark.parametrize("link_error", [None, errno.EXDEV])
@pytest.mark.parametrize("remove", [Path.unlink, replace_by_another])
def test_a_file_whose_last_name_is_gone_is_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, link_error: int | None, remove: Callable[[Path], None]
) -> None:
    remove(bench.path)
    if link_error:
        break_call(monkeypatch, "link", link_error)
    assert bench.is_not_taken()


@pytest.mark.parametrize("link_error", [None, errno.EXDEV])
def test_an_open_file_that_was_written_to_since_is_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, link_error: int | None
) -> None:
    """Of the same size, as a recorder does that allocates its files beforehand."""
    bench.path.write_bytes(OTHER)
    if link_error:
        break_call(monkeypatch, "link", link_error)
    assert bench.is_not_taken()


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_a_link_is_impossible_the_open_file_is_copied(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    bench.path.rename(tmp_path / "locked.mp4")
    bench.path.write_bytes(OTHER)
    break_call(monkeypatch, "link", reason)
    assert bench.take().copied
    file = bench.stored_file()
    assert file.stat().st_ino != bench.opened.inode
    assert file.read_bytes() == CONTENT
    assert file.stat().st_mtime_ns == bench.clip.footage.modified_ns


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, SpoolFull), (errno.EIO, FootageRefused)])
def test_a_copy_of_an_open_file_tells_a_full_disk_from_a_failing_card(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    break_call(monkeypatch, "link", errno.EXDEV)
    break_call(monkeypatch, "sendfile", number)
    assert bench.is_not_taken(error)
