"""An hour's events in a minute. A leak of a little at each event would exhaust the device within a week."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
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

START = datetime(2026, 7, 1, tzinfo=timezone.utc)
TRIPS = 14
CLIPS_A_TRIP = 100
# By then everything has been loaded, and each kind of fault has occurred once.
SETTLED_TRIP = 4
TROUBLE = (
    Fault("reset", path="bulk-upload", after_bytes=50_000),
    Fault("answer", path="bulk-upload", status=500),
    Fault("answer", path="bulk-upload", status=200, content="<html>Log in</html>", content_type="text/html"),
    Fault("drop", path="bulk-upload", seconds=0.5),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources that a process holds (proc(5))."""

    descriptors: int
    threads: int
    resident_bytes: int


# An open connection has a socket and a duplicate of it. A leak at each reload or fault would be larger than that.
A_CONNECTION = Usage(descriptors=2, threads=1, resident_bytes=0)


def usage(daemon: DaemonProcess) -> Usage:
    process = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    resident_bytes = int(status["VmRSS"].split()[0]) * 1024
    return Usage(len(list((process / "fd").iterdir())), int(status["Threads"]), resident_bytes)


def reload(daemon: DaemonProcess) -> None:
    before = daemon.log.count('"event": "started"')
    daemon.process.send_signal(signal.SIGHUP)
    await_until(lambda: daemon.log.count('"event": "started"') > before, "the reload", 60.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_long_run_leaks_no_descriptors_no_threads_and_no_memory(tmp_path: Path, figure: Figure) -> None:
    more = {"[footage]": "settle_seconds = 0.1\nrescan_seconds = 1", "upload": "linger_seconds = 0.1\nbatch_clips = 50"}
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url, more) as daemon:
        early = Usage(0, 0, 0)
        for trip in range(TRIPS):
            simulator.faults.add(TROUBLE[trip % len(TROUBLE)])
            folder = daemon.footage / f"trip-{trip}"
            folder.mkdir()
            for number in range(CLIPS_A_TRIP):
                moment = START + timedelta(minutes=CLIPS_A_TRIP * trip + number)
                file = folder / f"ABC1234X_1_{moment:%Y%m%d_%H%M%S}.mp4"
                file.write_bytes(recording(1.0, seed=file.name))
            daemon.await_records(CLIPS_A_TRIP * (trip + 1), State.DELIVERED, seconds=240.0)
            if trip == SETTLED_TRIP:
                early = usage(daemon)
            shutil.rmtree(folder)
            if trip < TRIPS - 1:
                reload(daemon)
        most = Usage(early.descriptors + A_CONNECTION.descriptors, early.threads + A_CONNECTION.threads, 0)
        # A thread of an earlier reload may still be ending.
        await_until(
            lambda: usage(daemon).descriptors <= most.descriptors and usage(daemon).threads <= most.threads,
            f"no more descriptors and threads than {most}, but {usage(daemon)}",
            60.0,
        )
        late = usage(daemon)
        assert late.resident_bytes < 1.25 * early.resident_bytes
        assert sum(video.updates for video in simulator.received) == 0
    figure("long run: clips", TRIPS * CLIPS_A_TRIP)
    figure("long run: descriptors", late.descriptors)
    figure("long run: threads", late.threads)
    figure("long run: memory after a third, MB", early.resident_bytes / 1e6)
    figure("long run: memory at the end, MB", late.resident_bytes / 1e6)
