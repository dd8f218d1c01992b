from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.intake.settling import Pending, is_abandoned, is_being_written, is_settled, observe, postpone
from agent.model import Footage

PATH = Path("/card/a.mp4")
SMALL = Footage(PATH, 1_000, 1)
GROWN = Footage(PATH, 2_000, 2)
SETTLE = 5.0


def first_seen(footage: Footage = SMALL, *, closed: bool = False, now: float = 100.0) -> Pending:
    return observe(None, footage, closed=closed, now=now, settle_seconds=SETTLE)


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


def test_a_file_settles_when_it_has_stood_still_for_settle_seconds() -> None:
    pending = first_seen(now=100.0)
    assert pending.look_at == 105.0
    assert not is_settled(pending, 104.9, SETTLE)
    assert is_settled(pending, 105.0, SETTLE)


def test_each_change_starts_the_wait_anew() -> None:
    pending = observe(first_seen(now=100.0), GROWN, closed=False, now=104.0, settle_seconds=SETTLE)
    assert pending.look_at == 109.0
    assert not is_settled(pending, 108.9, SETTLE)


def test_seeing_it_unchanged_does_not_prolong_the_wait() -> None:
    pending = first_seen(now=100.0)
    assert observe(pending, SMALL, closed=False, now=103.0, settle_seconds=SETTLE) == pending


def test_a_closed_file_is_settled_at_once() -> None:
    pending = observe(first_seen(now=100.0), SMALL, closed=True, now=101.0, settle_seconds=SETTLE)
    assert pending.look_at == 101.0
    assert is_settled(pending, 101.0, SETTLE)


def test_a_change_after_the_close_takes_it_back() -> None:
    pending = observe(first_seen(closed=True), GROWN, closed=False, now=101.0, settle_seconds=SETTLE)
    assert not is_settled(pending, 101.0, SETTLE)


def test_the_scan_does_not_take_back_a_close() -> None:
    pending = first_seen(closed=True)
    assert observe(pending, SMALL, closed=False, now=101.0, settle_seconds=SETTLE).closed


def test_an_incomplete_file_is_given_up_only_after_patience_or_when_closed() -> None:
    pending = first_seen(now=100.0)
    assert not is_abandoned(pending, 129.9, SETTLE)
    assert is_abandoned(pending, 130.0, SETTLE)
    assert is_abandoned(first_seen(closed=True), 100.0, SETTLE)


def test_without_a_settling_time_an_unfinished_file_still_gets_time_and_no_busy_loop() -> None:
    pending = postpone(first_seen(closed=True), 100.0, settle_seconds=0.0)
    assert pending.look_at == 101.0
    assert not pending.closed
    assert not is_abandoned(pending, 105.9, settle_seconds=0.0)


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
        from agent.intake.settling import is_being_written
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            is_being_written(Path(sys.argv[1]))
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


def test_a_link_a_pipe_or_nothing_is_not_being_written_and_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("pipe.mp4")
    assert not any(is_being_written(tmp_path / name) for name in ("pipe.mp4", "link.mp4", "gone.mp4"))
