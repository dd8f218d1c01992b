from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.device.safe_open import OpenFootage, open_footage, open_regular_file
from agent.errors import FootageGone, FootageRefused
from tests.support.unprivileged import open_folder, ordinary_user


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def refusal_of(path: Path) -> FootageRefused:
    with pytest.raises(FootageRefused) as refused, open_regular_file(path):
        pass
    return refused.value


def test_a_file_is_read_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"pictures")
    with open_regular_file(path) as file:
        assert file.read() == b"pictures"
    assert file.closed


@pytest.mark.parametrize("name", ["missing.mp4", "file/clip.mp4"])
def test_a_file_that_is_not_there_is_gone(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FootageGone, match="no longer there"), open_regular_file(tmp_path / name):
        pass


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"pictures")
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    assert refusal_of(tmp_path / "link.mp4").reason == "it is a symbolic link, and links are never followed"


def test_a_pipe_without_a_writer_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    assert "a folder, a pipe or a device" in refusal_of(tmp_path / "clip.mp4").reason


def test_a_device_is_not_read() -> None:
    assert "a folder, a pipe or a device" in refusal_of(Path("/dev/zero")).reason


def test_a_socket_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("clip.mp4")
        assert "a socket or a device" in refusal_of(tmp_path / "clip.mp4").reason


def test_folders_leave_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        assert "a folder, a pipe or a device" in refusal_of(tmp_path).reason
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_of_another_user_is_read_if_its_mode_allows(shared_folder: Path) -> None:
    path = shared_folder / "clip.mp4"
    path.write_bytes(b"pictures")
    path.chmod(0o644)
    with ordinary_user(), open_regular_file(path) as file:
        assert file.read() == b"pictures"


def test_an_unreadable_file_is_refused_with_its_owner_and_the_remedy(shared_folder: Path) -> None:
    path = shared_folder / "clip.mp4"
    path.touch()
    path.chmod(0o000)
    with ordinary_user():
        refusal = refusal_of(path)
    assert f"it belongs to {path.owner()}, group {path.group()}, mode 0000" in refusal.reason
    assert f"usermod -aG {path.group()} " in refusal.reason
    assert refusal.retry_after_seconds == 600


def test_a_file_of_a_user_without_a_name_is_refused_with_the_number(shared_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = shared_folder / "clip.mp4"
    path.touch()
    path.chmod(0o000)
    os.chown(path, 54321, 54321)
    with ordinary_user():
        assert "it belongs to 54321, group 54321" in refusal_of(path).reason


def test_a_folder_that_may_not_be_entered_is_named(shared_folder: Path) -> None:
    (shared_folder / "clip.mp4").touch()
    shared_folder.chmod(0o000)
    with ordinary_user():
        refusal = refusal_of(shared_folder / "clip.mp4")
    assert f"may not enter {shared_folder}: allow it" in refusal.reason


def test_a_failing_card_refuses_the_file_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.touch()
    with (
        pytest.raises(FootageRefused, match=r"cannot be read \(Input/output error\)") as refused,
        open_regular_file(path),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert refused.value.retry_after_seconds == 600


@pytest.mark.parametrize("reason", [errno.EIO, errno.ENXIO, errno.ENODEV])
def test_a_card_that_is_pulled_while_it_is_read_is_retried(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"pictures")

    def pulled(*_: object) -> int:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "open", pulled)
    assert refusal_of(path).retry_after_seconds == 600
    path.unlink()
    assert refusal_of(path).retry_after_seconds == 600


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenFootage]:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"pictures")
    with open_footage(path) as footage:
        yield footage


def test_an_open_file_stays_itself_when_its_name_is_given_to_another(opened: OpenFootage) -> None:
    path = opened.footage.path
    other = path.with_name("other.mp4")
    other.write_bytes(b"other pictures")
    other.replace(path)
    opened.check_unchanged()
    assert opened.file.read() == b"pictures"
    with open_footage(path) as now:
        assert (now.device, now.inode) != (opened.device, opened.inode)
        assert now.footage.size_bytes == len(b"other pictures")


def test_a_change_since_opening_makes_the_footage_gone(opened: OpenFootage) -> None:
    opened.footage.path.write_bytes(b"longer than before")
    with pytest.raises(FootageGone, match="changed while it was read"):
        opened.check_unchanged()


def test_open_footage_may_be_closed_twice(opened: OpenFootage) -> None:
    opened.close()
    opened.close()
    assert opened.file.closed


# --- is somebody writing it? -----------------------------------------------------------------------------------------


@contextmanager
def writer(file: Path) -> Iterator[None]:
    """Another process that holds the file open for writing and does nothing."""
    code = "import sys; file = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield


@pytest.fixture
def leasable(tmp_path: Path) -> Path:
    """A file on a filesystem whose kernel grants leases."""
    file = tmp_path / "a.mp4"
    file.write_bytes(b"footage")
    with file.open("rb") as reading:
        try:
            fcntl.fcntl(reading, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as exc:
            pytest.skip(f"the kernel grants no lease on this filesystem: {exc}")
    return file


def is_being_written(path: Path) -> bool:
    with open_footage(path) as opened:
        return opened.is_being_written()


def test_a_file_that_another_process_has_open_for_writing_is_being_written(leasable: Path) -> None:
    with writer(leasable):
        assert is_being_written(leasable)
    assert not is_being_written(leasable)


def test_a_mapping_that_outlives_its_descriptor_still_counts_as_writing(leasable: Path) -> None:
    with leasable.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    with mapping:
        assert is_being_written(leasable)


def test_readers_do_not_count(leasable: Path) -> None:
    with leasable.open("rb"):
        assert not is_being_written(leasable)


def test_a_writer_that_comes_during_the_question_does_not_kill_this_process(leasable: Path) -> None:
    asking = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from agent.device.safe_open import open_footage
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            with open_footage(Path(sys.argv[1])) as opened:
                opened.is_being_written()
    """)
    with subprocess.Popen([sys.executable, "-c", asking, leasable], cwd=Path.cwd()) as process:
        while process.poll() is None:
            os.close(os.open(leasable, os.O_WRONLY))
    assert process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_where_the_kernel_will_not_tell_the_file_counts_as_finished() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        file = directory / "a.mp4"
        file.write_bytes(b"footage of root")
        with writer(file):
            os.seteuid(65534)
            try:
                assert not is_being_written(file)
            finally:
                os.seteuid(0)
