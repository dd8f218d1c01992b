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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import VisionIngestError

NAME = "control.sock"
REQUEST_BYTES = 1 << 20
ANSWER_SECONDS = 10.0

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NoDaemon(VisionIngestError):
    """No daemon answers for this spool."""


class ControlServer:
    """Answers on the socket in the spool's directory until it is closed.

    Args:
        directory: the spool's directory, which only its owner may enter: that is the access control.
        handler: makes the answer to a request; called from the server's thread.
    """

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._handler = handler
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
        self._path.unlink(missing_ok=True)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=2.0)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(ANSWER_SECONDS)
                try:
                    request = _read_line(connection)
                    connection.sendall(_line(self._handler(request)))
                except (OSError, ValueError):
                    # Whoever asked has gone, or asked nonsense: there is nobody to answer.
                    continue


def ask(directory: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The running daemon's answer.

    Args:
        directory: the spool's directory.

    Raises:
        NoDaemon: none runs with this spool, or it does not answer in 10 s.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(ANSWER_SECONDS)
            with _short(directory / NAME) as address:
                connection.connect(address)
            connection.sendall(_line(request))
            return _read_line(connection)
    except (OSError, ValueError) as exc:
        raise NoDaemon(f"no daemon answers for {directory}: {exc}") from exc


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
    value = json.loads(received)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
