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
    """A spool's directory with a daemon that answers with the question."""
    server = ControlServer(tmp_path, echo)
    yield tmp_path
    server.close()


def connect(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(str(directory / NAME))
    return connection


def test_a_question_is_answered(directory: Path) -> None:
    request = {"ask": "retry", "clips": [1, 2], "name": "zürich \udcff\n.mp4"}
    assert ask(directory, request) == {"echo": request}


def test_questions_asked_at_once_are_all_answered(directory: Path) -> None:
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


def test_an_answer_longer_than_one_read_arrives_whole(directory: Path) -> None:
    clips = list(range(100_000))
    assert ask(directory, {"clips": clips}) == {"echo": {"clips": clips}}


def test_only_the_owner_may_ask(directory: Path) -> None:
    assert stat.S_IMODE((directory / NAME).stat().st_mode) == 0o600


def test_a_directory_with_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
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
def test_garbage_is_not_answered_and_the_next_question_is(directory: Path, garbage: bytes) -> None:
    with connect(directory) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""
    assert ask(directory, {"n": 1}) == {"echo": {"n": 1}}


def test_a_question_without_end_is_cut_off(directory: Path) -> None:
    with connect(directory) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(b"x" * 50_000_000)
    assert ask(directory, {"n": 1}) == {"echo": {"n": 1}}


def test_who_asks_and_leaves_does_not_stop_the_server(directory: Path) -> None:
    with connect(directory) as connection:
        connection.sendall(b'{"n": 1}\n')
    assert ask(directory, {"n": 2}) == {"echo": {"n": 2}}


def test_who_connects_and_asks_nothing_keeps_nobody_waiting_for_long(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(control, "QUESTION_SECONDS", 0.1)
        with connect(directory) as silent:
            assert silent.recv(4096) == b"", "the server has hung up"
    assert ask(directory, {"n": 1}) == {"echo": {"n": 1}}


def test_a_question_that_makes_the_daemon_stumble_is_told_to_the_asker_and_logged(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, lambda request: {"clips": [int(clip) for clip in request["clips"]]})
    try:
        with capture_logs() as logged:
            with pytest.raises(VisionIngestError, match="could not answer"):
                ask(tmp_path, {"clips": [None]})
            with pytest.raises(VisionIngestError, match="could not answer"):
                ask(tmp_path, {})
        assert ask(tmp_path, {"clips": ["3"]}) == {"clips": [3]}
    finally:
        server.close()
    assert [entry["event"] for entry in logged] == ["question_failed"] * 2


def test_what_the_daemon_refuses_is_an_error_for_the_asker(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, lambda request: {"error": "unknown request"})
    try:
        with pytest.raises(VisionIngestError, match="unknown request") as caught:
            ask(tmp_path, {"ask": "dance"})
    finally:
        server.close()
    assert not isinstance(caught.value, NoDaemon)


def test_without_a_daemon_the_asker_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="no daemon answers"):
        ask(tmp_path, {"ask": "status"})
    with pytest.raises(NoDaemon, match="no daemon answers"):
        ask(tmp_path / "nowhere", {"ask": "status"})


def test_after_the_close_there_is_no_daemon_and_no_socket(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, echo)
    server.close()
    assert not (tmp_path / NAME).exists()
    with pytest.raises(NoDaemon):
        ask(tmp_path, {})


def test_a_daemon_that_does_not_answer_in_time_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.1)
    release = threading.Event()
    server = ControlServer(tmp_path, lambda request: {"waited": release.wait(PATIENCE_SECONDS)})
    try:
        with pytest.raises(NoDaemon, match="timed out"):
            ask(tmp_path, {})
    finally:
        release.set()
        server.close()


def test_the_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
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


def test_running_out_of_file_descriptors_does_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.EMFILE, "Too many open files")] * 2
    accept = socket.socket.accept

    def failing_at_first(listener: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(control, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(socket.socket, "accept", failing_at_first)
    server = ControlServer(tmp_path, echo)
    try:
        assert ask(tmp_path, {"n": 1}) == {"echo": {"n": 1}}
    finally:
        server.close()
    assert not failures


def test_a_question_nested_as_deep_as_json_may_be_does_not_end_the_answers(tmp_path: Path) -> None:
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
