"""The daemon's main thread: it sleeps until there is something to do, and then reacts at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import daemon as daemon_module
from agent.daemon import Daemon, read_config
from agent.intake.intake import Intake
from simulator.recorder import recording
from tests.support.daemon import PASSWORD, DaemonProcess

NOWHERE = "https://127.0.0.1:9/rest"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PATIENCE_SECONDS = 60.0


class Manager:
    """The service manager of a daemon that runs in this process."""

    def __init__(self, address: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))
        self.socket.settimeout(PATIENCE_SECONDS)

    def told(self, beginning: str) -> str:
        """Wait for a message that starts with this."""
        while True:
            message = self.socket.recv(4096).decode()
            if message.startswith(beginning):
                return message


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = tmp_path / "manager.sock"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    manager = Manager(address)
    yield manager
    manager.socket.close()


@pytest.fixture
def daemon(tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon whose periodic checks are an hour apart, so that only events can wake it."""
    monkeypatch.setattr(daemon_module, "WATCHDOG_INTERVAL_SECONDS", 3600.0)
    monkeypatch.setattr(daemon_module, "STALL_TIMEOUT_SECONDS", 3 * 3600.0)
    monkeypatch.setenv("VISION_INGEST_PASSWORD", PASSWORD)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield DaemonProcess(tmp_path, NOWHERE)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(place: DaemonProcess, meanwhile: Callable[[], object]) -> int:
    """Run the daemon in this thread.

    Args:
        meanwhile: runs in another thread; when it is done, the daemon gets SIGTERM.
    """
    daemon = Daemon(place.config, read_config(place.config))

    def act() -> None:
        try:
            meanwhile()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as other:
        acting = other.submit(act)
        code = daemon.run()
        acting.result()
    return code


def test_a_change_updates_the_status_line_at_once(daemon: DaemonProcess, manager: Manager) -> None:
    def bring_clips() -> None:
        manager.told("STATUS=0 waiting")
        for number in (1, 2):
            (daemon.footage / f"ABC1234X_1_20260728_14000{number}.mp4").write_bytes(recording(1.0, seed=str(number)))
            manager.told(f"STATUS={number} waiting")

    assert run(daemon, bring_clips) == 0


def test_a_link_that_is_down_updates_the_status_line_at_once(daemon: DaemonProcess, manager: Manager) -> None:
    def bring_clip() -> None:
        manager.told("STATUS=0 waiting")
        (daemon.footage / "ABC1234X_1_20260728_140001.mp4").write_bytes(recording(1.0, seed="1"))
        while "link down" not in manager.told("STATUS=1 waiting"):
            pass

    assert run(daemon, bring_clip) == 0


def test_a_signal_wakes_the_main_thread(daemon: DaemonProcess, manager: Manager) -> None:
    def reload() -> None:
        manager.told("STATUS=0 waiting")
        os.kill(os.getpid(), signal.SIGHUP)
        manager.told("RELOADING=1")
        manager.told("READY=1")

    assert run(daemon, reload) == 0
    manager.told("STOPPING=1")


def test_a_worker_that_fails_ends_the_daemon(
    daemon: DaemonProcess, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = threading.Event()

    def step(intake: Intake, alive: Callable[[], None]) -> float:
        alive()
        failing.wait()
        raise OSError("the disk failed")

    def fail() -> None:
        manager.told("STATUS=0 waiting")
        failing.set()
        manager.told("STOPPING=1")

    monkeypatch.setattr(Intake, "step", step)
    assert run(daemon, fail) == 1
