"""A clock that is unset at boot, is set while the device runs, or jumps: the times that arrive are right."""

from __future__ import annotations

import os
import signal
import ssl
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from agent.model import State
from agent.spool.records import Record
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.clocked_daemon import ClockedDaemon
from tests.support.daemon import DaemonProcess, await_until

# Each case starts a daemon, some cases two.
pytestmark = [pytest.mark.daemon, pytest.mark.slow]

YEAR = 365 * 86_400.0
SECONDS = 120.0
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def film(daemon: DaemonProcess, start: float, *, written: float | None = None, camera: int = 1) -> Path:
    """Two seconds of footage, named after `start`, with the modification time of its last write."""
    begin = datetime.fromtimestamp(start, tz=timezone.utc)
    path = daemon.footage / f"ABC1234X_{camera}_{begin:%Y%m%d_%H%M%S}.mp4"
    growing = daemon.place / "growing.mp4"
    growing.write_bytes(recording(2.0, seed=path.name))
    date = start + 3.0 if written is None else written
    os.utime(growing, (date, date))
    return growing.rename(path)


def the_only(daemon: DaemonProcess, state: State) -> Record:
    (record,) = daemon.await_records(1, state, seconds=SECONDS)
    return record


def starts(simulator: Simulator) -> list[float]:
    return [
        datetime.strptime(video.start, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
        for video in simulator.received
    ]


@pytest.mark.parametrize("off", [400.0 - time.time(), -3 * 86_400.0, YEAR], ids=["1970", "days behind", "ahead"])
def test_footage_of_an_unset_clock_arrives_with_the_right_time_once_it_is_set(tmp_path: Path, off: float) -> None:
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=off) as daemon:
        began = int(time.time()) - 10
        path = film(daemon, began + off)
        date = path.stat().st_mtime_ns
        held = the_only(daemon, State.HELD)
        assert "clock not yet trusted" in held.reason
        assert "clock not trusted yet" in daemon.command("status").stdout
        assert "clock_not_trusted" in daemon.log
        daemon.set_clock(0.0, synchronised=True)
        delivered = the_only(daemon, State.DELIVERED)
        assert starts(simulator) == [pytest.approx(began, abs=2.0)]
        assert path.stat().st_mtime_ns == date == delivered.footage.modified_ns
        story = daemon.command("why", str(held.id)).stdout
        assert "by this device's clock before it was set" in " ".join(story.split())
        assert daemon.log.count("clock_stepped") == 1
    assert list((daemon.spool / "clips").iterdir()) == []


def test_footage_recorded_while_the_clock_was_set_arrives_with_the_right_time(tmp_path: Path) -> None:
    """Named before the clock is set and closed afterwards: the first recording of nearly every trip."""
    off = -3 * 86_400.0
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=off) as daemon:
        began = int(time.time())
        daemon.set_clock(0.0, synchronised=True)
        await_until(lambda: "clock_trusted" in daemon.log, "the clock to be trusted", SECONDS)
        film(daemon, began + off, written=time.time())
        the_only(daemon, State.DELIVERED)
        assert starts(simulator) == [pytest.approx(began, abs=2.0)]


def test_a_camera_with_a_right_clock_of_its_own_keeps_its_times(tmp_path: Path) -> None:
    off = -3 * 86_400.0
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=off) as daemon:
        began = int(time.time()) - 10
        film(daemon, began, written=time.time() + off)
        the_only(daemon, State.HELD)
        daemon.set_clock(0.0, synchronised=True)
        the_only(daemon, State.DELIVERED)
        assert starts(simulator) == [began]


def test_a_power_cut_while_clips_are_held_in_the_same_boot_changes_nothing(tmp_path: Path) -> None:
    """Only the daemon crashed: the device and its clock kept running."""
    off = -3 * 86_400.0
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=off) as daemon:
        began = int(time.time()) - 10
        film(daemon, began + off)
        the_only(daemon, State.HELD)
        daemon.stop(signal.SIGKILL)
        daemon.set_clock(0.0, synchronised=True)
        daemon.start()
        the_only(daemon, State.DELIVERED)
        assert starts(simulator) == [pytest.approx(began, abs=2.0)]


def test_a_power_cut_before_the_clock_was_set_leaves_the_decision_to_a_person(tmp_path: Path) -> None:
    off = -3 * 86_400.0
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=off) as daemon:
        began = int(time.time() + off) - 10
        path = film(daemon, began)
        held = the_only(daemon, State.HELD)
        daemon.stop(signal.SIGKILL)
        path.unlink()
        daemon.set_clock(0.0, synchronised=True, boot="2" * 32)
        daemon.start()
        await_until(lambda: "switched off before" in the_only(daemon, State.HELD).reason, "the reason", SECONDS)
        film(daemon, time.time() - 10, camera=2)
        the_only(daemon, State.DELIVERED)
        assert "vision-ingest retry" in daemon.command("why", str(held.id)).stdout
        assert daemon.command("retry", str(held.id)).returncode == 0
        daemon.await_records(2, State.DELIVERED, seconds=SECONDS)
        assert min(starts(simulator)) == began


@pytest.mark.parametrize("off", [YEAR, -YEAR], ids=["forward", "back"])
def test_a_step_of_a_year_while_it_runs_delays_what_it_dates_and_nothing_else(tmp_path: Path, off: float) -> None:
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=0.0) as daemon:
        daemon.set_clock(0.0, synchronised=True)
        began = int(time.time()) - 30
        film(daemon, began, camera=1)
        daemon.await_records(1, State.DELIVERED, seconds=SECONDS)
        daemon.set_clock(off, synchronised=False)
        await_until(lambda: daemon.log.count("clock_stepped") == 1, "the step to be noticed", SECONDS)
        film(daemon, began - 2 * YEAR, written=time.time() + off, camera=2)
        daemon.await_records(2, State.DELIVERED, seconds=SECONDS)
        film(daemon, began + off, camera=3)
        the_only(daemon, State.HELD)
        daemon.set_clock(0.0, synchronised=True)
        daemon.await_records(3, State.DELIVERED, seconds=SECONDS)
        assert starts(simulator) == [began, began - 2 * YEAR, pytest.approx(began, abs=2.0)]
        assert daemon.log.count("clock_stepped") == 2
        assert all(record.attempts == 0 for record in daemon.records())


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian package libfaketime)")
@pytest.mark.parametrize("step", ["+365d", "-365d"])
def test_a_step_of_a_year_of_all_clocks_but_the_monotonic_one_delays_no_retry(tmp_path: Path, step: str) -> None:
    """The unmodified daemon, with the changed time for all of its libraries."""
    stepped = tmp_path / "step"
    stepped.write_text("+0\n")
    with Simulator() as simulator:
        daemon = DaemonProcess(tmp_path, simulator.base_url)
        daemon.environ |= {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(stepped),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        with daemon:
            began = 1_750_000_000
            simulator.faults.add(Fault("reject", content="Temporary failure, try again."))
            film(daemon, began)
            await_until(
                lambda: any("Temporary failure" in r.reason for r in daemon.records(State.WAITING)),
                "the first failure",
                SECONDS,
            )
            stepped.write_text(f"{step}\n")
            await_until(lambda: daemon.log.count("clock_stepped") == 1, "the step to be noticed", SECONDS)
            film(daemon, began, camera=2)
            daemon.await_records(2, State.DELIVERED, seconds=SECONDS)
            # The error says that it will pass, so it uses no attempt.
            assert [record.attempts for record in daemon.records()] == [0, 0]
            assert len(simulator.received) == 2
            assert sum(video.updates for video in simulator.received) == 0


def test_a_clock_that_is_always_to_be_trusted_holds_nothing(tmp_path: Path) -> None:
    off = -YEAR
    with Simulator() as simulator, ClockedDaemon(tmp_path, simulator.base_url, off=off, trust="always") as daemon:
        began = int(time.time() + off) - 10
        film(daemon, began)
        the_only(daemon, State.DELIVERED)
        assert starts(simulator) == [began]


def test_a_certificate_that_is_not_valid_yet_is_trouble_of_the_link(tmp_path: Path) -> None:
    """A device whose clock is behind: the clip waits, without using attempts, until the clock is right."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    early = authority.issue_cert("127.0.0.1", not_before=tomorrow, not_after=tomorrow + timedelta(days=30))
    early.configure_cert(tls)
    more = {"api": f'ca_file = "{tmp_path / "ca.pem"}"'}
    with Simulator(tls=tls) as simulator, DaemonProcess(tmp_path, simulator.base_url, more) as daemon:
        film(daemon, time.time() - 86_400)
        await_until(lambda: "not valid yet" in daemon.log, "the certificate to be complained of", SECONDS)
        waiting = the_only(daemon, State.WAITING)
        assert (waiting.attempts, waiting.batch_failures) == (0, 0)
        assert "if that is behind, set the clock" in " ".join(daemon.command("status").stdout.split())
        assert simulator.received == []
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        delivered = the_only(daemon, State.DELIVERED)
        assert delivered.attempts == 0
        assert len(simulator.received) == 1
