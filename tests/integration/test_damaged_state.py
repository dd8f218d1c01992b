"""The daemon's own state is damaged while it is off: it starts, logs that once, and every clip still arrives."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.model import State
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until

pytestmark = pytest.mark.daemon

START = datetime(2026, 7, 28, 14, 0, 0, tzinfo=timezone.utc)
DELIVERED = 3
WAITING = 6


def truncated(spool: Path) -> None:
    os.truncate(spool / "clips.db", (spool / "clips.db").stat().st_size // 2)


def of_zero_length(spool: Path) -> None:
    os.truncate(spool / "clips.db", 0)


def garbled(spool: Path) -> None:
    with (spool / "clips.db").open("r+b") as file:
        for offset in range(0, (spool / "clips.db").stat().st_size, 8192):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(2048))


def without_its_log(spool: Path) -> None:
    (spool / "clips.db-wal").unlink()


def with_a_torn_log(spool: Path) -> None:
    os.truncate(spool / "clips.db-wal", (spool / "clips.db-wal").stat().st_size * 2 // 3)


def with_rows_that_cannot_be_read(spool: Path) -> None:
    with closing(sqlite3.connect(spool / "clips.db")) as database:
        database.execute("UPDATE spool_clips SET data = X'FF' WHERE _id % 3 = 0")
        database.execute("UPDATE spool_clips SET status = 77 WHERE _id % 3 = 1")
        database.commit()


def missing(spool: Path) -> None:
    for file in spool.glob("clips.db*"):
        file.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "event"),
    [
        (truncated, "queue_damaged"),
        (of_zero_length, "queue_damaged"),
        (garbled, "queue_damaged"),
        (without_its_log, None),
        (with_a_torn_log, None),
        (with_rows_that_cannot_be_read, "row_damaged"),
        (missing, None),
    ],
)
def test_a_daemon_with_a_damaged_queue_starts_and_every_clip_arrives(
    tmp_path: Path, damage: Callable[[Path], None], event: str | None, figure: Figure
) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        data = [recording(1.0, seed=str(number)) for number in range(DELIVERED + WAITING)]
        files = [
            daemon.footage / f"ABC1234X_1_{START + timedelta(seconds=2 * number):%Y%m%d_%H%M%S}.mp4"
            for number in range(len(data))
        ]
        for file, content in zip(files[:DELIVERED], data, strict=False):
            file.write_bytes(content)
        daemon.await_records(DELIVERED, State.DELIVERED, seconds=120)
        simulator.faults.add(Fault("answer", times=0, status=500))
        for file, content in zip(files[DELIVERED:], data[DELIVERED:], strict=True):
            file.write_bytes(content)
        daemon.await_records(WAITING, State.WAITING, State.SENDING, seconds=120)
        # After a kill, SQLite's write-ahead log contains the whole database and would repair it.
        daemon.stop(signal.SIGTERM if damage in (truncated, garbled) else signal.SIGKILL)
        # The recorder has overwritten two of them: only the spool has their bytes.
        for file in files[-2:]:
            file.unlink()
        damage(daemon.spool)
        simulator.faults.clear()
        daemon.start()
        await_until(
            lambda: (
                {video.sha256 for video in simulator.received}
                == {hashlib.sha256(content).hexdigest() for content in data}
            ),
            "all clips to arrive",
            120,
        )
        await_until(lambda: not daemon.records(State.WAITING, State.SENDING), "all to be settled", 120)
        assert daemon.process.poll() is None
        assert daemon.records(State.LOST, State.REFUSED, State.HELD) == []
        if event is not None:
            assert f'"event": "{event}"' in daemon.log
        status = daemon.command("status")
        assert ("The queue was damaged" in status.stdout) == (event == "queue_damaged")
        figure("damaged states survived", 1)
        figure("clips sent again after damage (updates)", sum(video.updates for video in simulator.received))
        # Stored files are removed after the verdicts are written.
        await_until(lambda: not list((daemon.spool / "clips").iterdir()), "the stored files to go", 60)


@pytest.mark.slow
def test_a_queue_damaged_at_runtime_ends_the_daemon_and_the_next_start_repairs_it(tmp_path: Path) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        simulator.faults.add(Fault("answer", times=0, status=500))
        data = [recording(1.0, seed=str(number)) for number in range(30)]
        for number, content in enumerate(data):
            name = f"ABC1234X_1_{START + timedelta(seconds=2 * number):%Y%m%d_%H%M%S}.mp4"
            (daemon.footage / name).write_bytes(content)
        daemon.await_records(30, State.WAITING, State.SENDING, seconds=120)
        daemon.stop()
        daemon.start()
        garbled(daemon.spool)
        simulator.faults.clear()
        # Without a write, the damage might not be noticed.
        (daemon.footage / f"ABC1234X_1_{START - timedelta(seconds=60):%Y%m%d_%H%M%S}.mp4").write_bytes(data[0])
        await_until(lambda: daemon.process.poll() is not None or len(simulator.received) >= 30, "an end of it", 120)
        if daemon.process.poll() is None:
            daemon.stop(signal.SIGKILL)
        daemon.start()
        expected = {hashlib.sha256(content).hexdigest() for content in data}
        await_until(lambda: {video.sha256 for video in simulator.received} >= expected, "all clips to arrive", 120)
        assert daemon.process.poll() is None
