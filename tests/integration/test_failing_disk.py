"""A disk that is full, fails, or becomes read-only while the daemon runs."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.model import State
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.faults import failing_calls, fill, small_disk

pytestmark = pytest.mark.daemon

START = datetime(2026, 7, 28, 14, 0, 0, tzinfo=timezone.utc)
MB = 1_000_000


def name(number: int) -> str:
    return f"ABC1234X_1_{START + timedelta(seconds=2 * number):%Y%m%d_%H%M%S}.mp4"


def sums(data: list[bytes]) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in data}


def uploads(simulator: Simulator) -> int:
    return sum("upload" in request.path for request in simulator.requests)


@pytest.mark.slow
@pytest.mark.parametrize(
    "injection",
    [
        "fsync:error=EIO",
        "fdatasync:error=EIO",
        "pwrite64:error=EIO",
        "pwrite64:error=EROFS",
        "link,linkat:error=EROFS",
    ],
)
def test_a_failing_disk_ends_the_daemon_with_an_error_and_no_clip_counts_as_safe(
    tmp_path: Path, injection: str, figure: Figure
) -> None:
    """After a failed fsync, the next one may falsely succeed: the daemon must not continue."""
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        data = [recording(1.0, seed=str(number)) for number in range(3)]
        (daemon.footage / name(0)).write_bytes(data[0])
        daemon.await_records(1, State.DELIVERED, seconds=120)
        with failing_calls(daemon.process.pid, injection):
            for number in (1, 2):
                (daemon.footage / name(number)).write_bytes(data[number])
            daemon.process.wait(timeout=120)
        assert daemon.process.returncode == 1
        assert '"event": "part_failed"' in daemon.log
        assert len(daemon.records(State.DELIVERED)) == 1
        assert [video.sha256 for video in simulator.received] == [hashlib.sha256(data[0]).hexdigest()]
        daemon.start()
        daemon.await_records(3, State.DELIVERED, seconds=120)
        assert {video.sha256 for video in simulator.received} == sums(data)
        assert sum(video.updates for video in simulator.received) == 0
        figure("disk faults survived", 1)


@pytest.mark.slow
def test_on_a_full_disk_delivery_goes_on_and_intake_waits_for_room(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 64 * MB) as disk,
        Simulator() as simulator,
        DaemonProcess(disk, simulator.base_url) as daemon,
    ):
        simulator.faults.add(Fault("answer", times=0, status=500))
        data = [recording(1.0, seed=str(number)) for number in range(12)]
        for number in range(8):
            (daemon.footage / name(number)).write_bytes(data[number])
        daemon.await_records(8, State.WAITING, State.SENDING, seconds=120)
        for number in range(8, 12):
            (daemon.footage / f"{name(number)}.part").write_bytes(data[number])
        log_room = 200_000
        ballast = fill(disk, leave_bytes=log_room)
        simulator.faults.clear()
        await_until(lambda: {video.sha256 for video in simulator.received} >= sums(data[:8]), "delivery", 180)
        daemon.await_records(8, State.DELIVERED, seconds=180)
        for number in range(8, 12):
            (daemon.footage / f"{name(number)}.part").rename(daemon.footage / name(number))
        ballast.unlink()
        daemon.await_records(12, State.DELIVERED, seconds=180)
        assert {video.sha256 for video in simulator.received} == sums(data)
        assert sum(video.updates for video in simulator.received) == 0
        assert daemon.process.poll() is None


@pytest.mark.slow
def test_while_no_verdict_can_be_written_nothing_is_sent(tmp_path: Path) -> None:
    """Repeating uploads whose verdicts cannot be written would use up the SIM card's data."""
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        simulator.faults.add(Fault("answer", times=0, status=500))
        data = [recording(1.0, seed=str(number)) for number in range(4)]
        for number, content in enumerate(data):
            (daemon.footage / name(number)).write_bytes(content)
        daemon.await_records(4, State.WAITING, State.SENDING, seconds=120)
        with failing_calls(daemon.process.pid, "pwrite64:error=ENOSPC"):
            simulator.faults.clear()
            await_until(lambda: '"cause": "disk full"' in daemon.log, "the pause", 180)
            before = uploads(simulator)
            (daemon.footage / name(9)).write_bytes(recording(1.0, seed="9"))
            await_until(lambda: '"event": "spool_full"' in daemon.log, "the intake to wait", 180)
            assert uploads(simulator) == before
        daemon.await_records(5, State.DELIVERED, seconds=180)
        assert {video.sha256 for video in simulator.received} >= sums(data)
        assert sum(video.updates for video in simulator.received) == 0
        assert daemon.process.poll() is None


@pytest.mark.slow
def test_links_are_given_up_oldest_first_when_the_recorder_needs_the_space(tmp_path: Path, figure: Figure) -> None:
    floor = 30 * MB
    spool = f"min_free_bytes = {floor}"
    with (
        small_disk(tmp_path / "disk", 62 * MB) as disk,
        Simulator() as simulator,
        DaemonProcess(disk, simulator.base_url, {"spool": spool}) as daemon,
    ):
        simulator.faults.add(Fault("answer", times=0, status=500))
        data = [recording(1.0, size_bytes=5 * MB, seed=str(number)) for number in range(6)]
        for number, content in enumerate(data):
            (daemon.footage / name(number)).write_bytes(content)
            daemon.await_records(number + 1, seconds=120)
        assert daemon.records(State.LOST) == []
        # The recorder deletes files to overwrite them, which frees nothing: the spool links the same blocks.
        for number in range(6):
            (daemon.footage / name(number)).unlink()
        lost = daemon.await_records(1, State.LOST, seconds=120)

        def free() -> int:
            return os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize

        await_until(lambda: free() >= floor, "the floor of free space", 120)
        lost = daemon.records(State.LOST)
        assert 0 < len(lost) < 6
        assert [record.id for record in lost] == [record.id for record in daemon.records()][: len(lost)]
        assert all("given up for space" in record.reason for record in lost)
        assert daemon.log.count('"event": "clip_given_up"') == len(lost)
        assert "must stay free" in daemon.command("status").stdout
        daemon.stop()
        simulator.faults.clear()
        daemon.start()
        daemon.await_records(6 - len(lost), State.DELIVERED, seconds=120)
        assert {video.sha256 for video in simulator.received} == sums(data[len(lost) :])
        figure("clips given up for space, as policy says", len(lost))
