from __future__ import annotations

import errno
import io
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.config import LogSettings
from agent.device import control, logs
from agent.device.control import NAME, ControlServer, NoDaemon, ask
from agent.errors import VisionIngestError
from tests.support.daemon import PATIENCE_SECONDS
from tests.support.hostile.readers import logging_restored


def echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"echo": request}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A spool's directory with a daemon that echoes each request."""
    server = ControlServer(tmp_path, echo)
    yield tmp_path
    server.close()


def connect(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(str(directory / NAME))
    return connection


def test_a_request_gets_its_response(directory: Path) -> None:
    request = {"ask": "retry", "clips": [1, 2], "name": "zürich \udcff\n.mp4"}
    assert ask(directory, request) == {"echo": request}


def test_simultaneous_requests_all_get_their_response(directory: Path) -> None:
    answers: list[dict[str, Any]] = []
    asking = [
        threading.Thread(target=lambda number=number: answers.append(ask(directory, {"n": number})))
        for number in range(6)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(answer["echo"]["n"] for answer in answers) == list(range(6))


def test_a_response_longer_than_one_read_arrives_whole(directory: Path) -> None:
    clips = list(range(100_000))
    assert ask(directory, {"clips": clips}) == {"echo": {"clips": clips}}


def test_only_the_owner_may_connect(directory: Path) -> None:
    assert stat.S_IMODE((directory / NAME).stat().st_mode) == 0o600


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30) / ("longer" * 30)
    directory.mkdir(parents=True)
    assert len(str(directory)) > 300
    server = ControlServer(directory, echo)
    try:
        assert ask(directory, {"ask": "status"}) == {"echo": {"ask": "status"}}
    finally:
        server.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b"no line feed",
        b'{"a": 1}\n{"b": 2}\n',
        b"[" * 200_000 + b"\n",
    ],
)
def test_garbage_gets_no_response_and_the_next_request_does(directory: Path, garbage: bytes) -> None:
    with connect(directory) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""
    assert ask(directory, {"n": 1}) == {"echo": {"n": 1}}


def test_an_endless_request_is_cut_off(directory: Path) -> None:
    with connect(directory) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(b"x" * 50_000_000)
    assert ask(directory, {"n": 1}) == {"echo": {"n": 1}}


def test_a_client_that_disconnects_early_does_not_stop_the_server(directory: Path) -> None:
    with connect(directory) as connection:
        connection.sendall(b'{"n": 1}\n')
    assert ask(directory, {"n": 2}) == {"echo": {"n": 2}}


def test_a_silent_client_is_disconnected_soon(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(control, "SERVER_TIMEOUT_SECONDS", 0.1)
        with connect(directory) as silent:
            assert silent.recv(4096) == b"", "the server has hung up"
    assert ask(directory, {"n": 1}) == {"echo": {"n": 1}}


def test_a_failing_request_is_reported_to_the_client_and_logged(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, lambda request: {"clips": [int(clip) for clip in request["clips"]]})
    try:
        with capture_logs() as logged:
            with pytest.raises(VisionIngestError, match="failed to process"):
                ask(tmp_path, {"clips": [None]})
            with pytest.raises(VisionIngestError, match="failed to process"):
                ask(tmp_path, {})
        assert ask(tmp_path, {"clips": ["3"]}) == {"clips": [3]}
    finally:
        server.close()
    assert [entry["event"] for entry in logged] == ["question_failed"] * 2


def test_an_error_response_raises_in_the_client(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, lambda request: {"error": "unknown request"})
    try:
        with pytest.raises(VisionIngestError, match="unknown request") as caught:
            ask(tmp_path, {"ask": "dance"})
    finally:
        server.close()
    assert not isinstance(caught.value, NoDaemon)


def test_without_a_daemon_the_client_raises_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="no daemon answers"):
        ask(tmp_path, {"ask": "status"})
    with pytest.raises(NoDaemon, match="no daemon answers"):
        ask(tmp_path / "nowhere", {"ask": "status"})


def test_after_close_there_is_no_daemon_and_no_socket(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, echo)
    server.close()
    assert not (tmp_path / NAME).exists()
    with pytest.raises(NoDaemon):
        ask(tmp_path, {})


def test_a_daemon_that_does_not_respond_in_time_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CLIENT_TIMEOUT_SECONDS", 0.1)
    release = threading.Event()
    server = ControlServer(tmp_path, lambda request: {"waited": release.wait(PATIENCE_SECONDS)})
    try:
        with pytest.raises(NoDaemon, match="timed out"):
            ask(tmp_path, {})
    finally:
        release.set()
        server.close()


def test_the_socket_left_by_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from agent.device.control import ControlServer;"
        "ControlServer(Path(sys.argv[1]), dict); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path.cwd(), check=False)
    assert (tmp_path / NAME).exists()
    with pytest.raises(NoDaemon):
        ask(tmp_path, {})
    server = ControlServer(tmp_path, echo)
    try:
        assert ask(tmp_path, {}) == {"echo": {}}
    finally:
        server.close()


def test_the_server_survives_running_out_of_file_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(errno.EMFILE, "Too many open files")] * 2
    accept = socket.socket.accept

    def failing_at_first(listener: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(control, "ACCEPT_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(socket.socket, "accept", failing_at_first)
    server = ControlServer(tmp_path, echo)
    try:
        assert ask(tmp_path, {"n": 1}) == {"echo": {"n": 1}}
    finally:
        server.close()
    assert not failures


def test_the_server_survives_deeply_nested_json(tmp_path: Path) -> None:
    def refuse(request: Mapping[str, Any]) -> Mapping[str, Any]:
        if "deep" in request:
            raise ValueError("no")
        return {"echo": request}

    with logging_restored(), closing(ControlServer(tmp_path, refuse)):
        logs.configure(LogSettings(format="json"), secrets=(), stream=io.StringIO())
        for depth in range(950, 1000):
            with connect(tmp_path) as connection:
                connection.sendall(b'{"deep": ' + b"[" * depth + b"]" * depth + b"}\n")
                connection.recv(65536)
        assert ask(tmp_path, {"n": 1}) == {"echo": {"n": 1}}
