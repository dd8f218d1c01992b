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
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Protocol

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from agent.errors import Cancelled, LinkDown

# The most that is read at once of an answer that comes early.
EARLY_RESPONSE_BYTES = 16 * 1024

# What may wait in the kernel unsent. Without a limit it is megabytes, and progress would be shown that is none.
MAX_UNSENT_BYTES = 128 * 1024

READY = select.POLLIN | select.POLLOUT

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


class StallAwareAdapter(HTTPAdapter):
    """Makes connections of this kind, keeps one open, and never retries: that is decided above."""

    def __init__(self, guard: StallGuard) -> None:
        self._guard = guard
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_stall_aware_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_stall_aware_connections(manager)
        return manager

    def _use_stall_aware_connections(self, manager: PoolManager) -> None:
        pools: Any = {
            "http": functools.partial(self._pool, HTTPConnectionPool, StallAwareConnection),
            "https": functools.partial(self._pool, HTTPSConnectionPool, StallAwareTlsConnection),
        }
        manager.pool_classes_by_scheme = pools

    def _pool(self, pool_class: Any, connection_class: Any, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool: HTTPConnectionPool = pool_class(*args, **kwargs)
        pool.ConnectionCls = functools.partial(connection_class, self._guard)  # type: ignore[assignment]
        return pool


class StallAwareConnection(HTTPConnection):
    """A connection whose waits belong to its Link, and that listens while it sends."""

    def __init__(self, guard: StallGuard, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = guard
        guard.register(self)
        self.response_class = functools.partial(_StallAwareResponse, self)  # type: ignore[assignment]
        # The server did not take the whole request: it would read the next one as a part of this one.
        self.response_pending = False
        self._early_response = b""

    def _new_conn(self) -> socket.socket:
        """As urllib3's, but the socket can be cut while it connects."""
        try:
            places = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        for family, kind, protocol, _, address in places:
            sock = socket.socket(family, kind, protocol)
            try:
                self.guard.attach(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
                sock.settimeout(self.timeout)
                sock.connect(address)
            except (OSError, Cancelled) as exc:
                sock.close()
                self.guard.check()
                failure = exc
            else:
                return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no answer within {self.timeout} s") from failure
        raise NewConnectionError(self, str(failure)) from failure

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(self.timeout)  # it was read without waiting, and TLS begins with a wait

    def close(self) -> None:
        self.guard.detach()
        self._early_response = b""
        self.response_pending = False
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
            self._check_early_response()
            while view:
                # All of it at once: TLS makes records of it, and returns when the last of them has gone.
                send = functools.partial(self.sock.send, view)
                sent = self.guard.retry_until_stalled(
                    self.sock, send, "sending", awaited=READY, meanwhile=self._check_early_response
                )
                view = view[sent:]
        except (ConnectionError, ssl.SSLError) as exc:
            self.response_pending = True
            raise BrokenPipeError(str(exc)) from exc

    def _check_early_response(self) -> None:
        """Keep what the server says already for the reader of the answer.

        Raises:
            BrokenPipeError: it answers.
        """
        if not isinstance(self.sock, socket.socket):
            return
        set_nonblocking(self.sock)
        try:
            self._early_response += self.sock.recv(EARLY_RESPONSE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return  # nothing, or TLS talks to itself: session tickets
        # "100 Continue" is no answer yet, and some proxies send it unasked.
        if not self._early_response.startswith((b"HTTP/1.1 100", b"HTTP/1.0 100")):
            raise BrokenPipeError("the server answered before it had the whole request")

    def early_response(self) -> bytes:
        """What came of the answer while the request was sent; once."""
        early_response, self._early_response = self._early_response, b""
        return early_response


class StallAwareTlsConnection(StallAwareConnection, HTTPSConnection):
    """The same over TLS. The trusted certificates are read once, not for each connection: there are hundreds."""

    def __init__(self, guard: StallGuard, *args: Any, **kwargs: Any) -> None:
        super().__init__(guard, *args, **kwargs)
        if self.ca_certs and self.proxy is None:
            self.ssl_context = _ssl_context(self.ca_certs, Path(self.ca_certs).stat().st_mtime_ns)
            self.ca_certs = None


@functools.lru_cache(maxsize=1)
def _ssl_context(ca_file: str, _changed_ns: int) -> ssl.SSLContext:
    context = create_urllib3_context()
    context.load_verify_locations(ca_file)
    return context


class _StallAwareResponse(HTTPResponse):
    """An answer that is read with the link's patience, from what was heard of it already."""

    def __init__(self, connection: StallAwareConnection, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._connection = connection
        self.fp = io.BufferedReader(_StallAwareReader(self.fp, sock, connection))

    def begin(self) -> None:
        super().begin()
        if self._connection.response_pending:
            self.will_close = True


class _StallAwareReader(io.RawIOBase):
    """Reads a socket on behalf of `original`, the file that keeps it open and that a timeout would spoil."""

    def __init__(self, original: io.BufferedIOBase, sock: socket.socket, connection: StallAwareConnection) -> None:
        self._original = original
        self._sock = sock
        self._guard = connection.guard
        self._early_response = connection.early_response()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._early_response:
            count = min(len(buffer), len(self._early_response))
            buffer[:count], self._early_response = self._early_response[:count], self._early_response[count:]
            return count
        receive = functools.partial(self._sock.recv_into, buffer)
        return self._guard.retry_until_stalled(self._sock, receive, "waiting for the answer")

    def close(self) -> None:
        self._original.close()
        super().close()
