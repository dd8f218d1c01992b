"""The package as a technician uses it: installed in a real Debian, under systemd, with real signals."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import await_until
from tests.support.debian_machine import DebianMachine

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 180.0
PTRACE_ATTACH, PTRACE_DETACH = 16, 17  # ptrace(2)
WAIT_FOR_THREADS = 0x40000000  # __WALL of waitpid(2)


class Device:
    """A machine with the package installed, and a camera's folder."""

    def __init__(self, machine: DebianMachine, shared: Path, simulator: Simulator) -> None:
        self.machine = machine
        self.shared = shared
        self.simulator = simulator
        self.sent: set[str] = set()

    def install(self, package: Path) -> str:
        shutil.copy(package, self.shared)
        return self.machine.run("dpkg", "-i", f"/shared/{package.name}").stdout

    def set_up(self, *more: str) -> str:
        """Runs the commands of a technician. The service is not yet in the group of the camera's files."""
        self.machine.run("groupadd", "--force", "camera")
        self.machine.run("install", "-d", "-m", "2750", "-g", "camera", "/footage")
        # A container has no clock of its own that could be trusted.
        always = "printf '[clock]\\ntrust = \"always\"\\n' > /etc/vision-ingest/config.d/clock.toml"
        self.machine.run("sh", "-c", always)
        return self.machine.output(
            *("vision-ingest", "setup", "--base-url", self.simulator.base_url, "--username", "bench"),
            *("--registration", "ABC1234X", "--footage", "/footage", "--timezone", "UTC", *more),
            VISION_INGEST_PASSWORD="bench",
        )

    def record(self, number: int, size_bytes: int | None = None) -> None:
        """The camera writes a clip."""
        data = recording(1.0, size_bytes=size_bytes, seed=f"clip {number}")
        name = f"ABC1234X_1_20260728_14{number:02d}00.mp4"
        (self.shared / name).write_bytes(data)
        self.machine.run("sh", "-c", f"cp /shared/{name} /footage/.{name} && mv /footage/.{name} /footage/{name}")
        self.sent.add(hashlib.sha256(data).hexdigest())

    def await_all_delivered(self) -> None:
        await_until(lambda: self.arrived() == self.sent, "every clip to arrive", PATIENCE_SECONDS)
        await_until(
            lambda: self.clips("delivered") == len(self.sent) and self.clips("sending") == 0,
            "the ledger to know that all are delivered",
            PATIENCE_SECONDS,
        )

    def arrived(self) -> set[str]:
        return {video.sha256 for video in self.simulator.received}

    def clips(self, state: str) -> int:
        status = self.machine.output("vision-ingest", "status", "--json")
        try:
            return int(json.loads(status)["clips"][state]["clips"])
        except ValueError:
            return 0

    def await_uploading(self) -> None:
        await_until(lambda: self.clips("sending") > 0, "an upload in flight", PATIENCE_SECONDS)

    def main_pid(self) -> int:
        return int(self.machine.property("MainPID") or 0)

    def await_running(self, *, other_than: int = 0) -> int:
        """Waits until the service runs in another process."""
        await_until(
            lambda: self.machine.property("ActiveState") == "active" and self.main_pid() not in (0, other_than),
            "the service to run",
            PATIENCE_SECONDS,
        )
        return self.main_pid()


@pytest.fixture
def device(machine: DebianMachine, tmp_path: Path, simulator: Simulator) -> Device:
    return Device(machine, tmp_path, simulator)


def test_a_new_user_comes_from_nothing_to_a_delivered_clip(device: Device, package: Path) -> None:
    said = device.install(package)
    assert "sudo vision-ingest setup" in said
    machine = device.machine
    await_until(lambda: "waiting to be configured" in machine.property("StatusText"), "the words of the service")
    assert machine.property("ActiveState") == "active"
    assert machine.property("NRestarts") == "0"
    assert machine.run("stat", "-c", "%a %U", "/etc/vision-ingest/api-password").stdout.strip() == "600 root"
    machine.run("touch", "/before")
    said = device.set_up()
    assert "credentials accepted" in said, said
    assert "to the group camera" in said
    device.await_running()
    for number in range(3):
        device.record(number)
    device.await_all_delivered()
    await_until(lambda: machine.property("StatusText") == "0 waiting, idle, link ok", "the words of the service")
    assert machine.run("vision-ingest", "check").returncode == 0
    written = machine.run(
        *(
            "find",
            "/",
            "-xdev",
            "-newer",
            "/before",
            "-user",
            "vision-ingest",
            "-not",
            "-path",
            "/var/lib/vision-ingest*",
        )
    ).stdout
    assert written == ""
    assert "delivered" in machine.output("vision-ingest", "clips")
    for page in ("vision-ingest", "vision-ingest.toml", "vision-ingest.service"):
        machine.run("man", "-w", page)


def test_an_upgrade_in_the_middle_of_an_upload_loses_nothing(
    device: Device, package: Path, earlier_package: Path
) -> None:
    device.install(earlier_package)
    device.set_up()
    process = device.await_running()
    machine = device.machine
    assert "0.0.9" in machine.run("vision-ingest", "--version").stdout
    machine.run("sh", "-c", "echo '[limits]\nmax_seconds = 200' > /etc/vision-ingest/config.d/fleet.toml")
    machine.run("systemctl", "reload", "vision-ingest")
    device.simulator.faults.add(Fault("stall", path="upload", after_bytes=1000, seconds=600))
    for number in range(5):
        device.record(number, size_bytes=300_000)
    device.await_uploading()
    device.install(package)
    device.await_running(other_than=process)
    assert "0.0.9" not in machine.run("vision-ingest", "--version").stdout
    device.await_all_delivered()
    assert "max_seconds = 200" in machine.run("cat", "/etc/vision-ingest/config.d/fleet.toml").stdout
    device.record(6)
    device.await_all_delivered()


def test_remove_keeps_everything_and_purge_keeps_what_was_not_delivered(device: Device, package: Path) -> None:
    device.install(package)
    device.set_up()
    device.await_running()
    device.record(1)
    device.await_all_delivered()
    device.simulator.faults.add(Fault("answer", times=0, status=503, content="out of order", content_type="text/html"))
    device.record(2)
    await_until(lambda: device.clips("waiting") == 1, "a clip that waits", PATIENCE_SECONDS)
    machine = device.machine
    machine.run("dpkg", "--remove", "vision-ingest")
    assert machine.property("ActiveState") == "inactive"
    machine.run("test", "-e", "/var/lib/vision-ingest/clips.db", "-a", "-e", "/etc/vision-ingest/config.d/setup.toml")
    said = machine.run("dpkg", "--purge", "vision-ingest").stdout
    assert "1 undelivered clips are kept" in said
    machine.run("test", "!", "-e", "/etc/vision-ingest/api-password")
    machine.run("rm", "-r", "/footage")
    device.simulator.faults.clear()
    device.install(package)
    device.set_up()
    device.await_all_delivered()
    said = machine.run("dpkg", "--purge", "vision-ingest").stdout
    assert "kept" not in said
    machine.run("test", "!", "-e", "/var/lib/vision-ingest")


def test_a_killed_service_comes_back_and_every_clip_arrives(device: Device, package: Path) -> None:
    device.install(package)
    device.set_up()
    process = device.await_running()
    device.simulator.faults.add(Fault("stall", path="upload", after_bytes=1000, seconds=600))
    for number in range(4):
        device.record(number, size_bytes=300_000)
    device.await_uploading()
    device.machine.run("kill", "-KILL", str(process))
    device.await_running(other_than=process)
    device.await_all_delivered()


def test_a_hung_worker_is_noticed_and_the_service_started_anew(device: Device, package: Path) -> None:
    device.install(package)
    device.set_up()
    machine = device.machine
    machine.run("mkdir", "-p", "/etc/systemd/system/vision-ingest.service.d")
    drop_in = "/etc/systemd/system/vision-ingest.service.d/watchdog.conf"
    machine.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=40\\n' > {drop_in}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "vision-ingest")
    process = device.await_running()
    with _stopped_workers(machine.host_pid(process)) as reap:
        await_until(lambda: reap() or device.main_pid() not in (0, process), "the watchdog", PATIENCE_SECONDS)
    device.await_running(other_than=process)
    assert "watchdog" in machine.output("journalctl", "--no-pager", "-u", "vision-ingest", "-o", "cat").lower()
    device.record(1)
    device.await_all_delivered()


def test_a_reload_takes_a_new_folder_and_a_stop_is_quick_in_the_middle_of_an_upload(
    device: Device, package: Path, figure: Figure
) -> None:
    device.install(package)
    device.set_up()
    process = device.await_running()
    machine = device.machine
    machine.run("install", "-d", "-m", "755", "/footage2")
    machine.run("sh", "-c", "printf '[[footage]]\\npath = \"/footage2\"\\n' > /etc/vision-ingest/config.d/more.toml")
    machine.run("systemctl", "reload", "vision-ingest")
    await_until(lambda: machine.journal().count("/footage2") > 0, "the new folder", PATIENCE_SECONDS)
    assert device.main_pid() == process
    device.simulator.faults.add(Fault("stall", path="upload", after_bytes=1000, seconds=600))
    device.record(1, size_bytes=300_000)
    device.await_uploading()
    started = time.monotonic()
    machine.run("systemctl", "stop", "vision-ingest")
    took = time.monotonic() - started
    # If it had not stopped in time, systemd would have killed it.
    assert machine.property("Result") == "success"
    figure("seconds in which systemctl stops the service in the middle of an upload", took, most=True)
    assert device.clips("waiting") == 1
    machine.run("systemctl", "start", "vision-ingest")
    device.await_all_delivered()


def test_a_long_recording_is_cut_under_the_hardened_unit(device: Device, package: Path) -> None:
    device.install(package)
    device.set_up()
    device.await_running()
    name = "ABC1234X_1_20260728_150000.mp4"
    lavfi = ("-f", "lavfi", "-i", "testsrc=size=320x180:rate=5:duration=400")
    command = ["ffmpeg", "-v", "error", *lavfi, "-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(device.shared / name)], check=True)
    device.machine.run("sh", "-c", f"cp /shared/{name} /footage/.{name} && mv /footage/.{name} /footage/{name}")
    await_until(lambda: device.clips("delivered") == 2, "both pieces", PATIENCE_SECONDS)
    assert sorted(video.camera for video in device.simulator.received) == [1, 1]
    # No clip has a warning as its reason, such as of a command that may not lower its priority.
    listed = map(json.loads, device.machine.run("vision-ingest", "clips", "--json").stdout.splitlines())
    assert [clip["reason"] for clip in listed if clip["reason"]] == []
    assert "footage_note" not in device.machine.journal()


def test_the_unit_is_valid_and_exposes_little(device: Device, package: Path) -> None:
    device.install(package)
    machine = device.machine
    verified = machine.run("systemd-analyze", "verify", "vision-ingest.service")
    assert verified.stdout + verified.stderr == ""
    said = machine.output("systemd-analyze", "security", "--no-pager", "vision-ingest.service")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= 1.5


@contextmanager
def _stopped_workers(pid: int) -> Iterator[Callable[[], bool]]:
    """Stops every thread of a process but the main one, as a driver call that never returns would (by ptrace).

    Yields:
        A function to call repeatedly: the process ends only when its tracer has waited for each thread. Returns False.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    threads = {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - {pid}
    for thread in threads:
        assert libc.ptrace(PTRACE_ATTACH, thread, 0, 0) == 0, os.strerror(ctypes.get_errno())
        os.waitpid(thread, WAIT_FOR_THREADS)

    def reap() -> bool:
        for thread in list(threads):
            ended, status = os.waitpid(thread, WAIT_FOR_THREADS | os.WNOHANG)
            if ended and not os.WIFSTOPPED(status):
                threads.discard(thread)
        return False

    yield reap
    for thread in threads:
        libc.ptrace(PTRACE_DETACH, thread, 0, 0)
