"""The daemon's control socket: a request is one line of JSON, and so is the response.

It exposes what only the running daemon knows (the link, the upload in flight) without writing to the card, and lets
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
MAX_LINE_BYTES = 1 << 20
CLIENT_TIMEOUT_SECONDS = 10.0
# Shorter than the client's timeout: a client that connects and sends nothing must not make the next one fail.
SERVER_TIMEOUT_SECONDS = 2.0
ACCEPT_RETRY_SECONDS = 0.5

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NoDaemon(VisionIngestError):
    """No running daemon responds for this spool."""


class ControlServer:
    """Serves requests on the socket in the spool's directory until it is closed.

    Args:
        directory: the spool's directory; access control is that only its owner may enter it.
        handler: returns the response to a request; an exception is logged and sent as {"error": …}.

    Threads: one thread of its own accepts and handles requests, one at a time, so `handler` needs no protection against
    itself. `close` is called by the thread that created the server.
    """

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._handler = handler
        self._closed = threading.Event()
        self._path = directory / NAME
        # The caller holds the spool's lock, so an existing socket was left by a daemon that was killed.
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with _short_address(self._path) as address:
            self._socket.bind(address)
        self._path.chmod(0o600)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the socket and stop the thread; a request in progress gets 2 s to finish."""
        self._closed.set()
        with suppress(OSError):  # a failed disk must not prevent an orderly shutdown
            self._path.unlink()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=2.0)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                # Closed, or temporarily out of file descriptors.
                self._closed.wait(ACCEPT_RETRY_SECONDS)
                continue
            with connection:
                connection.settimeout(SERVER_TIMEOUT_SECONDS)
                try:
                    connection.sendall(_encode_line(self._respond(_read_line(connection))))
                except (OSError, ValueError):
                    # The client is gone, or what it sent is no request.
                    continue

    def _respond(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._handler(request)
        except Exception as exc:  # one failing request must not end the thread
            log.exception("question_failed", request=request)
            return {"error": f"the daemon failed to process the request ({exc}); see its log"}


def ask(directory: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request to the running daemon and return its response.

    Args:
        directory: the spool's directory.

    Raises:
        NoDaemon: none runs for this spool, or it does not respond within 10 s.
        VisionIngestError: the daemon responded with an error.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(CLIENT_TIMEOUT_SECONDS)
            with _short_address(directory / NAME) as address:
                connection.connect(address)
            connection.sendall(_encode_line(request))
            response = _read_line(connection)
    except (OSError, ValueError) as exc:
        raise NoDaemon(f"no daemon answers for {directory}: {exc}") from exc
    if "error" in response:
        raise VisionIngestError(str(response["error"]))
    return response


@contextmanager
def _short_address(path: Path) -> Iterator[str]:
    """A short alias of a socket's path, which may exceed the 107 bytes that an address can hold (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _encode_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _read_line(connection: socket.socket) -> dict[str, Any]:
    received = bytearray()
    while not received.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece or len(received) > MAX_LINE_BYTES:
            raise ValueError("not one line")
        received += piece
    try:
        value = json.loads(received)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  # bad bytes from outside, not a wrong argument
    return value
