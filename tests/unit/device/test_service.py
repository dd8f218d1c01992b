from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.device import service
from agent.device.service import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's socket, and its address as in NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@vision-ingest-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1) if request.param == "abstract" else address)
        receiver.settimeout(5.0)
        yield receiver, address


def test_notifications_follow_the_protocol_of_the_service_manager(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    service_manager = ServiceManager({"NOTIFY_SOCKET": address})
    service_manager.ready()
    service_manager.reloading()
    service_manager.status("3 waiting, link up")
    service_manager.watchdog_ping()
    service_manager.stopping()
    assert [receiver.recv(4096) for _ in range(5)] == [
        b"READY=1",
        b"RELOADING=1",
        b"STATUS=3 waiting, link up",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_quoted_server_text_cannot_inject_a_notification(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    ServiceManager({"NOTIFY_SOCKET": address}).status("link down: sorry\r\nMAINPID=1\n\nSTOPPING=1")
    assert receiver.recv(4096) == b"STATUS=link down: sorry MAINPID=1 STOPPING=1"


def test_a_status_with_undecodable_bytes_is_sent(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    ServiceManager({"NOTIFY_SOCKET": address}).status("clip \udcff.mp4")
    assert receiver.recv(4096) == b"STATUS=clip ?.mp4"


def test_without_a_service_manager_nothing_happens() -> None:
    ServiceManager({}).ready()


def test_a_service_manager_that_is_gone_is_ignored(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).watchdog_ping()


def test_a_service_manager_that_does_not_read_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SEND_SECONDS", 0.05)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.setblocking(False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            queued = count_until_blocked(lambda: flood.sendto(b"X=1", address))
        ServiceManager({"NOTIFY_SOCKET": address}).watchdog_ping()
        assert count_until_blocked(lambda: receiver.recv(16)) == queued


def count_until_blocked(step: Callable[[], object]) -> int:
    count = 0
    try:
        while True:
            step()
            count += 1
    except BlockingIOError:
        return count


@pytest.mark.parametrize(("given", "seconds"), [("300000000", 300.0), ("", None), ("0", None), ("soon", None)])
def test_the_watchdog_timeout_is_read_from_the_environment(given: str, seconds: float | None) -> None:
    assert ServiceManager({"WATCHDOG_USEC": given}).watchdog_seconds == seconds
