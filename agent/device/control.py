"""The daemon's control socket: one JSON line asks, one JSON line answers.

It tells what only the running daemon knows (the link, the upload in flight) without writing to the card, and lets
commands change the queue without becoming a second writer.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from agent.errors import VisionIngestError

log = structlog.get_logger()

NAME = "control.sock"
REQUEST_BYTES = 1 << 20
ANSWER_SECONDS = 10.0
# Shorter than anyone's patience with an answer: one who asks nothing must not keep the next from being heard.
QUESTION_SECONDS = 2.0
PAUSE_SECONDS = 0.5

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NoDaemon(VisionIngestError):
    """No daemon answers for this spool."""


class ControlServer:
    """Answers on the socket in the spool's directory until it is closed.

    Args:
        directory: the spool's directory, which only its owner may enter: that is the access control.
        handler: makes the answer to a request; called from the server's thread. What it raises is logged and
            answered as {"error": …}.
    """

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._handler = handler
        self._closed = threading.Event()
        self._path = directory / NAME
        # The lock of the spool is held: a socket that is there was left by a daemon that was killed.
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with _short(self._path) as address:
            self._socket.bind(address)
        self._path.chmod(0o600)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError):  # a disk that has failed must not keep the daemon from ending in order
            self._path.unlink()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=2.0)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                # Closed; or out of file descriptors, which passes.
                self._closed.wait(PAUSE_SECONDS)
                continue
            with connection:
                connection.settimeout(QUESTION_SECONDS)
                try:
                    connection.sendall(_line(self._answer(_read_line(connection))))
                except (OSError, ValueError):
                    # Whoever asked has gone, or asked nonsense: there is nobody to answer.
                    continue

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._handler(request)
        except Exception as exc:  # whatever one question does, the next must be answered
            log.exception("question_failed", request=request)
            return {"error": f"the daemon could not answer ({exc}); its log says more"}


def ask(directory: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The running daemon's answer.

    Args:
        directory: the spool's directory.

    Raises:
        NoDaemon: none runs with this spool, or it does not answer in 10 s.
        VisionIngestError: the daemon could not do what was asked.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(ANSWER_SECONDS)
            with _short(directory / NAME) as address:
                connection.connect(address)
            connection.sendall(_line(request))
            answer = _read_line(connection)
    except (OSError, ValueError) as exc:
        raise NoDaemon(f"no daemon answers for {directory}: {exc}") from exc
    if "error" in answer:
        raise VisionIngestError(str(answer["error"]))
    return answer


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address for a socket at any path: its own may be longer than the 107 bytes that fit (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _read_line(connection: socket.socket) -> dict[str, Any]:
    received = bytearray()
    while not received.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece or len(received) > REQUEST_BYTES:
            raise ValueError("not one line")
        received += piece
    try:
        value = json.loads(received)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  # bad bytes from outside, not a wrong argument
    return value
