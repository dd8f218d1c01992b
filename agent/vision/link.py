"""Connections that give up when nothing moves, hear an answer that comes early, and can be cut from another thread.

What `requests` and urllib3 do instead, each seen to lose uploads on a slow link:

- the connect timeout limits each piece of a body that is sent, so that a slow link looks like a dead one;
- the wait for the answer starts when the last piece is in the kernel's buffer, megabytes before it has left the device;
- over TLS, the answer that a server gave before it hung up (a 401, a 413) is thrown away;
- no other thread can end a request.
"""

from __future__ import annotations

import functools
import io
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import wait_for_read

from agent.errors import LinkDown, Stopped

# How often a wait is interrupted to look whether anything moved and whether to stop.
TICK_SECONDS = 0.25

# One TLS record. A TLS socket of Python's sends all that it is given before it returns, and the server's voice is only
# heard in between.
SLICE_BYTES = 16 * 1024

# What may wait in the kernel unsent. Without a limit it is megabytes, and progress would be shown that is none.
UNSENT_BYTES = 128 * 1024

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, since Linux 4.1.
_BYTES_ACKED = struct.Struct("=120xQ")


class Link:
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
            raise Stopped("asked to stop")

    def patiently(self, sock: socket.socket, operation: Callable[[], int], purpose: str) -> int:
        """Repeat a socket operation that moved nothing, as long as the peer still takes what was sent before.

        Args:
            sock: the socket that it works on.
            operation: sends or receives, and returns how many bytes.
            purpose: for the error: "sending", "waiting for the answer".

        Raises:
            LinkDown: nothing moved for too long.
            Stopped: the daemon is to stop.
        """
        # TLS through a TLS proxy is done by urllib3, which loses data if it is interrupted: no ticks there.
        real = isinstance(sock, socket.socket)
        sock.settimeout(min(TICK_SECONDS, self._stall_timeout_seconds) if real else self._stall_timeout_seconds)
        acknowledged = -1
        moved = time.monotonic()
        while True:
            try:
                return operation()
            except TimeoutError:
                self.check()
            now_acknowledged = self._acknowledged_bytes()
            if now_acknowledged > acknowledged >= 0:
                moved = time.monotonic()
            elif time.monotonic() - moved >= self._stall_timeout_seconds:
                raise LinkDown(
                    f"the connection stalled: nothing moved for {self._stall_timeout_seconds:g} s while {purpose}"
                )
            acknowledged = now_acknowledged

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


class PatientAdapter(HTTPAdapter):
    """Makes connections of this kind, keeps one open, and never retries: that is decided above."""

    def __init__(self, link: Link) -> None:
        self._link = link
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_patient_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_patient_connections(manager)
        return manager

    def _use_patient_connections(self, manager: PoolManager) -> None:
        pools: Any = {
            "http": functools.partial(self._pool, HTTPConnectionPool, PatientConnection),
            "https": functools.partial(self._pool, HTTPSConnectionPool, PatientTlsConnection),
        }
        manager.pool_classes_by_scheme = pools

    def _pool(self, pool_class: Any, connection_class: Any, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool: HTTPConnectionPool = pool_class(*args, **kwargs)
        pool.ConnectionCls = functools.partial(connection_class, self._link)  # type: ignore[assignment]
        return pool


class PatientConnection(HTTPConnection):
    """A connection whose waits belong to its Link, and that listens while it sends."""

    def __init__(self, link: Link, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.link = link
        self.response_class = functools.partial(_Answer, self)  # type: ignore[assignment]
        # The server did not take the whole request: it would read the next one as a part of this one.
        self.cut_short = False
        self._heard = b""

    def _new_conn(self) -> socket.socket:
        """As urllib3's, but the socket can be cut while it connects."""
        try:
            places = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        for family, kind, protocol, _, address in places:
            sock = socket.socket(family, kind, protocol)
            try:
                self.link.attach(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
                sock.settimeout(self.timeout)
                sock.connect(address)
            except (OSError, Stopped) as exc:
                sock.close()
                self.link.check()
                failure = exc
            else:
                return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no answer within {self.timeout} s") from failure
        raise NewConnectionError(self, str(failure)) from failure

    def close(self) -> None:
        self.link.detach()
        self._heard = b""
        self.cut_short = False
        super().close()

    def send(self, data: Any) -> None:
        """Send all bytes of `data`; the time limit is on standing still, not on the whole.

        Raises:
            BrokenPipeError: the server answered or hung up before it had everything: urllib3 then reads the answer.
        """
        if self.sock is None:
            self.connect()
        view = memoryview(data)
        try:
            while view:
                if self._hears_answer():
                    raise BrokenPipeError("the server answered before it had the whole request")
                send = functools.partial(self.sock.send, view[:SLICE_BYTES])
                view = view[self.link.patiently(self.sock, send, "sending") :]
        except (ConnectionError, ssl.SSLError) as exc:
            self.cut_short = True
            raise BrokenPipeError(str(exc)) from exc

    def _hears_answer(self) -> bool:
        """Whether the server says something already; what it says is kept for the reader of the answer."""
        if not isinstance(self.sock, socket.socket) or not wait_for_read(self.sock, timeout=0):
            return False
        self.sock.settimeout(0)
        try:
            self._heard += self.sock.recv(SLICE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False  # TLS talks to itself: session tickets
        # "100 Continue" is no answer yet, and some proxies send it unasked.
        return not self._heard.startswith((b"HTTP/1.1 100", b"HTTP/1.0 100"))

    def heard(self) -> bytes:
        """What came of the answer while the request was sent; once."""
        heard, self._heard = self._heard, b""
        return heard


class PatientTlsConnection(PatientConnection, HTTPSConnection):
    """The same over TLS."""


class _Answer(HTTPResponse):
    """An answer that is read with the link's patience, from what was heard of it already."""

    def __init__(self, connection: PatientConnection, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._connection = connection
        self.fp = io.BufferedReader(_PatientReader(self.fp, sock, connection))

    def begin(self) -> None:
        super().begin()
        if self._connection.cut_short:
            self.will_close = True


class _PatientReader(io.RawIOBase):
    """Reads a socket on behalf of `original`, the file that keeps it open and that a timeout would spoil."""

    def __init__(self, original: io.BufferedIOBase, sock: socket.socket, connection: PatientConnection) -> None:
        self._original = original
        self._sock = sock
        self._link = connection.link
        self._heard = connection.heard()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._heard:
            count = min(len(buffer), len(self._heard))
            buffer[:count], self._heard = self._heard[:count], self._heard[count:]
            return count
        receive = functools.partial(self._sock.recv_into, buffer)
        return self._link.patiently(self._sock, receive, "waiting for the answer")

    def close(self) -> None:
        self._original.close()
        super().close()
