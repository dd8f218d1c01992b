"""The order of the daemon's writes and syncs, traced from outside. A kill loses no writes, so it cannot test this."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model import State
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.daemon import DaemonProcess, await_until
from tests.support.requirements import needs
from tests.support.traced_calls import STRACE, TracedCalls

pytestmark = pytest.mark.daemon

NAME = "ABC1234X_1_20260701_120000.mp4"
WAL = "/spool/clips.db-wal>"

# Admits three clips together, and prints a line.
TOGETHER = """
import sys, time
from pathlib import Path
from agent.config import SpoolSettings
from agent.spool import Spool
from tests.support.spooling import make_clip, take_all

place = Path(sys.argv[1])
spool = Spool(SpoolSettings(place / "spool", min_free_bytes=0), time.time)
clips = [make_clip(place / "footage", number) for number in range(3)]
print("taken in", [taken.state.value for (taken,) in take_all(spool, clips)], flush=True)
spool.close()
"""


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="vision-ingest-test-", dir="/dev/shm"))
    yield place
    shutil.rmtree(place)


def journey(place: Path, spool: Path) -> TracedCalls:
    """One clip from footage to delivery."""
    needs("strace")
    trace = place / "trace"
    with Simulator() as simulator:
        daemon = DaemonProcess(place, simulator.base_url, {"spool": f'directory = "{spool}"'})
        daemon.spool = spool
        (daemon.footage / NAME).write_bytes(recording(1.0, seed="traced"))
        command = [*STRACE, "-o", str(trace), sys.executable, "-m", "agent.cli", "run", "--config", str(daemon.config)]
        with daemon.log_file.open("wb") as log, subprocess.Popen(command, stderr=log, env=daemon.environ) as process:
            try:
                await_until(lambda: "batch_sent" in daemon.log, "the delivery", 120.0)
            finally:
                process.terminate()
        assert [record.state for record in daemon.records()] == [State.DELIVERED]
    # The tracer ends slightly later than the traced process.
    await_until(lambda: '"event": "stopped"' in daemon.log and trace.read_text().count("exited with") > 1, "the trace")
    return TracedCalls(trace)


@pytest.mark.slow
def test_a_linked_clip_is_durable_before_its_row_and_its_row_before_it_is_admitted(
    tmp_path: Path,
) -> None:
    calls = journey(tmp_path, tmp_path / "spool")
    linked = calls.next("linkat", f"footage/{NAME}", "/spool/clips/")
    # Through the descriptor that was used for inspection, so that it is the same file.
    data = calls.next("fsync", f"footage/{NAME}>", after=linked)
    assert calls.count("openat", f'/footage/{NAME}"') == 1
    name = calls.next("fsync", "/spool/clips>", after=linked)
    assert_row_follows(calls, linked, max(data, name))
    assert_released_only_when_delivered(calls)


@pytest.mark.slow
def test_clips_admitted_together_share_syncs_and_are_durable_before_the_first_row(
    tmp_path: Path,
) -> None:
    needs("strace")
    trace = tmp_path / "trace"
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    tracer = [word for word in STRACE if word != "-D"]  # it ends when what it traces has
    command = [*tracer, "-o", str(trace), sys.executable, "-c", TOGETHER, str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout
    assert said == "taken in ['waiting', 'waiting', 'waiting']\n"
    calls = TracedCalls(trace)
    linked = [calls.next("linkat", f"footage/{number}.mp4", "/spool/clips/") for number in range(3)]
    files = [f"footage/{number}.mp4>" for number in range(3)]
    data = [calls.next("fsync", file, after=linked[-1]) for file in files]
    name = calls.next("fsync", "/spool/clips>", after=linked[-1])
    written = calls.next("pwrite64", WAL, after=linked[0])
    assert written > max(*data, name)
    committed = calls.next("fdatasync", WAL, after=written)
    assert calls.next("write", "taken in") > committed
    assert [calls.count("fsync", word) for word in (*files, "/spool/clips>")] == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_copied_clip_gets_its_name_when_its_data_is_durable(tmp_path: Path, other_file_system: Path) -> None:
    calls = journey(tmp_path, other_file_system / "spool")
    begun = calls.next("openat", ".part", "O_CREAT")
    copied = calls.next("sendfile", ".part>", after=begun)
    data = calls.next("fsync", ".part>", after=copied)
    named = calls.next("rename", ".part", ".mp4", after=data)
    assert calls.count("rename", ".part") == 1
    name = calls.next("fsync", "/spool/clips>", after=named)
    assert_row_follows(calls, begun, name)
    assert_released_only_when_delivered(calls)


@pytest.mark.slow
def test_new_directories_are_durable_in_those_that_hold_them(tmp_path: Path) -> None:
    deep = tmp_path / "var/lib/vision-ingest/spool"
    calls = journey(tmp_path, deep)
    for directory in (*list(deep.parents)[2::-1], deep, deep / "clips"):
        made = calls.next("mkdir", f'"{directory}"')
        saved = calls.next("fsync", f"<{directory.parent}>", after=made)
        assert saved < calls.next("openat", "/spool/clips.db-wal", "O_CREAT")


def assert_row_follows(calls: TracedCalls, begun: int, durable: int) -> None:
    """The row is written only when the file is durable, and success is reported only when the row is durable."""
    written = calls.next("pwrite64", WAL, after=begun)
    assert written > durable
    committed = calls.next("fdatasync", WAL, after=written)
    assert calls.next("write", '\\"event\\": \\"clip_waiting\\"') > committed
    assert calls.next("sendto", "POST /rest/vision/video/") > committed


def assert_released_only_when_delivered(calls: TracedCalls) -> None:
    sent = calls.next("sendto", "POST /rest/vision/video/")
    written = calls.next("pwrite64", WAL, after=sent)
    committed = calls.next("fdatasync", WAL, after=written)
    assert calls.next("unlink", "/spool/clips/", ".mp4") > committed
    assert calls.next("write", '\\"event\\": \\"clip_delivered\\"') > committed
    assert calls.count("unlink", "/spool/clips/", ".mp4") == 1
