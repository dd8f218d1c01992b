"""The way to the API as its connections share it: how long nothing may move, and how another thread ends it all."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from agent.errors import Cancelled, LinkDown

# How often a wait is interrupted to look whether anything moved and whether to stop.
TICK_SECONDS = 0.25

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, since Linux 4.1.
_BYTES_ACKED = struct.Struct("=120xQ")


class Connection(Protocol):
    """What a link asks of its connections."""

    def close(self) -> None: ...


class StallGuard:
    """What the connections of one transport share: their patience, and the way to end what they do.

    Args:
        stall_timeout_seconds: a connection on which nothing moves for so long is given up.
        stopping: asked several times a second; once it is true, whatever waits ends.
    """

    def __init__(self, stall_timeout_seconds: float, stopping: Callable[[], bool]) -> None:
        self._stall_timeout_seconds = stall_timeout_seconds
        self._asked_to_stop = stopping
        self._aborted = threading.Event()
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    @property
    def stopping(self) -> bool:
        return self._aborted.is_set() or self._asked_to_stop()

    def abort(self) -> None:
        """End what goes on, at once, and everything that is tried later. For any thread."""
        self._aborted.set()
        with self._lock:
            if self._handle is not None:
                with suppress(OSError):  # not connected yet, or not any more
                    self._handle.shutdown(socket.SHUT_RDWR)

    def register(self, connection: Connection) -> None:
        """Remember a connection that was made for this link."""
        self._connections.add(connection)

    def close(self) -> None:
        """Close all connections, those too that a request which failed has left to the garbage collector."""
        for connection in list(self._connections):
            connection.close()

    def attach(self, sock: socket.socket) -> None:
        """Remember the socket that is in use from now on.

        A duplicate is kept: it stays valid while TLS replaces the socket object, and it ends the handshake too.

        Raises:
            Stopped: the link is not to be used any more.
        """
        with self._lock:
            self._forget()
            self._handle = sock.dup()
        self.check()

    def detach(self) -> None:
        """Forget the socket: it is closed."""
        with self._lock:
            self._forget()

    def check(self) -> None:
        """Raise Stopped if the link is not to be used any more."""
        if self.stopping:
            raise Cancelled("asked to stop")

    def retry_until_stalled(
        self,
        sock: socket.socket,
        operation: Callable[[], int],
        purpose: str,
        *,
        awaited: int = select.POLLIN,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> int:
        """Repeat a socket operation that moved nothing, as long as the peer still takes what was sent before.

        Args:
            sock: the socket that it works on.
            operation: sends or receives without waiting, and returns how many bytes.
            purpose: for the error: "sending", "waiting for the answer".
            awaited: what the socket must be ready for, as `select.poll` names it; TLS may want the other as well.
            meanwhile: called after each wait; what it raises ends the operation.

        Raises:
            LinkDown: nothing moved for too long.
            Stopped: the daemon is to stop.
        """
        if not isinstance(sock, socket.socket):
            return self._with_timeout(sock, operation, purpose)
        set_nonblocking(sock)
        acknowledged = -1
        moved = time.monotonic()
        while True:
            wanted = awaited
            try:
                return operation()
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except ssl.SSLWantWriteError:
                wanted |= select.POLLOUT
            if self._ready(sock, wanted):
                moved = time.monotonic()
            else:
                now_acknowledged = self._acknowledged_bytes()
                if now_acknowledged > acknowledged >= 0:
                    moved = time.monotonic()
                elif time.monotonic() - moved >= self._stall_timeout_seconds:
                    raise self._stall_error(purpose)
                acknowledged = now_acknowledged
            self.check()
            meanwhile()

    def _with_timeout(self, sock: Any, operation: Callable[[], int], purpose: str) -> int:
        """TLS through a TLS proxy is done by urllib3, which loses data if it is interrupted: one long wait."""
        sock.settimeout(self._stall_timeout_seconds)
        try:
            return operation()
        except TimeoutError as exc:
            self.check()
            raise self._stall_error(purpose) from exc

    def _ready(self, sock: socket.socket, wanted: int) -> bool:
        """Wait for one tick at most."""
        poll = select.poll()
        poll.register(sock, wanted)
        return bool(poll.poll(1000 * min(TICK_SECONDS, self._stall_timeout_seconds)))

    def _stall_error(self, purpose: str) -> LinkDown:
        return LinkDown(f"the connection stalled: nothing moved for {self._stall_timeout_seconds:g} s while {purpose}")

    def _acknowledged_bytes(self) -> int:
        """How many bytes the peer has confirmed on this connection."""
        with self._lock:
            if self._handle is None:
                return 0
            info = self._handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else 0

    def _forget(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def set_nonblocking(sock: socket.socket) -> None:
    """Make operations on the socket return at once."""
    if sock.gettimeout() != 0:  # setting it is a system call
        sock.settimeout(0)
