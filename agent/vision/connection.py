"""Connections with a stall timeout, that notice an early response and can be aborted from another thread.

What `requests` and urllib3 do instead; each was seen to lose uploads on a slow link:

- the connect timeout limits each chunk of a body that is sent, so that a slow link looks like a dead one;
- the wait for the response starts when the last chunk is in the kernel's buffer, megabytes before it has left the
  device;
- over TLS, the response that a server gave before it closed the connection (a 401, a 413) is lost;
- no other thread can end a request.
"""

from __future__ import annotations

import functools
import io
import re
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from http.client import BadStatusLine, HTTPResponse, parse_headers
from pathlib import Path
from typing import Any, Protocol

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from agent.errors import Cancelled, LinkDown

# The most that is read at once of an early response.
EARLY_RESPONSE_BYTES = 16 * 1024

# Unsent bytes in the kernel. Without a limit they are megabytes, which would count as progress before they are sent.
MAX_UNSENT_BYTES = 128 * 1024

READY = select.POLLIN | select.POLLOUT

# Interim responses at the beginning of what was received, and what may be the beginning of one.
_INTERIM = re.compile(rb"\A(?:HTTP/1\.[01] 1\d\d[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+")
_INTERIM_START = re.compile(rb"\A(?:HTTP/1\.[01] 1|.{0,9}\Z)", re.DOTALL)
MAX_INTERIM_RESPONSES = 20

# How often a wait is interrupted to check for progress and for a stop.
TICK_SECONDS = 0.25

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, since Linux 4.1.
_BYTES_ACKED = struct.Struct("=120xQ")


class Connection(Protocol):
    """What the stall guard needs of a connection."""

    def close(self) -> None: ...


class StallGuard:
    """Stall timeout and cross-thread abort, shared by all connections of one transport.

    Any thread may call `abort`; all else belongs to the thread that makes the requests. What the two share: an Event,
    and a duplicate of the socket in use, which the lock guards, so that `abort` never shuts down a descriptor that was
    closed and reused.

    Args:
        stall_timeout_seconds: a connection without any progress for so long is given up.
        stopping: called several times a second; once it returns true, every wait ends.
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
        """Ends the current operation at once, and every later one. For any thread."""
        self._aborted.set()
        with self._lock:
            if self._handle is not None:
                with suppress(OSError):  # not connected yet, or no longer
                    self._handle.shutdown(socket.SHUT_RDWR)

    def register(self, connection: Connection) -> None:
        """Remembers a connection, so that `close` can close it."""
        self._connections.add(connection)

    def close(self) -> None:
        """Closes all connections, including those that a failed request left to the garbage collector."""
        for connection in list(self._connections):
            connection.close()

    def attach(self, sock: socket.socket) -> None:
        """Remembers the socket that is in use from now on.

        A duplicate is kept: it stays valid while TLS replaces the socket object, so that the handshake can be aborted.

        Raises:
            Cancelled: the daemon is to stop.
        """
        with self._lock:
            self._forget()
            self._handle = sock.dup()
        self.check()

    def detach(self) -> None:
        """Forgets the socket, which is closed."""
        with self._lock:
            self._forget()

    def check(self) -> None:
        """Raises Cancelled if the daemon is to stop."""
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
        """Retries a socket operation that would block, as long as the peer acknowledges what was sent before.

        Args:
            sock: the socket.
            operation: sends or receives without blocking, and returns how many bytes.
            purpose: for the error: "sending", "waiting for the response".
            awaited: events to wait for, as in `select.poll`; TLS may need the other direction as well.
            meanwhile: called after each wait; what it raises ends the operation.

        Raises:
            LinkDown: no progress within the stall timeout.
            Cancelled: the daemon is to stop.
        """
        if not isinstance(sock, socket.socket):
            return self._with_timeout(sock, operation, purpose)
        set_nonblocking(sock)
        acknowledged = -1
        progress_at = time.monotonic()
        while True:
            wanted = awaited
            try:
                return operation()
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except ssl.SSLWantWriteError:
                wanted |= select.POLLOUT
            if self._ready(sock, wanted):
                progress_at = time.monotonic()
            else:
                now_acknowledged = self._acknowledged_bytes()
                if now_acknowledged > acknowledged >= 0:
                    progress_at = time.monotonic()
                elif time.monotonic() - progress_at >= self._stall_timeout_seconds:
                    raise self._stall_error(purpose)
                acknowledged = now_acknowledged
            self.check()
            meanwhile()

    def _with_timeout(self, sock: Any, operation: Callable[[], int], purpose: str) -> int:
        """TLS through a TLS proxy is done by urllib3, which loses data if it is interrupted: one blocking call."""
        sock.settimeout(self._stall_timeout_seconds)
        try:
            return operation()
        except TimeoutError as exc:
            self.check()
            raise self._stall_error(purpose) from exc

    def _ready(self, sock: socket.socket, wanted: int) -> bool:
        """Waits for one tick at most."""
        poll = select.poll()
        poll.register(sock, wanted)
        return bool(poll.poll(1000 * min(TICK_SECONDS, self._stall_timeout_seconds)))

    def _stall_error(self, purpose: str) -> LinkDown:
        return LinkDown(f"the connection stalled: nothing moved for {self._stall_timeout_seconds:g} s while {purpose}")

    def _acknowledged_bytes(self) -> int:
        """How many bytes the peer has acknowledged on this connection (TCP)."""
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
    """Operations on the socket return at once."""
    if sock.gettimeout() != 0:  # setting it is a system call
        sock.settimeout(0)


class StallAwareAdapter(HTTPAdapter):
    """Makes stall-aware connections, keeps one open, and never retries: the dispatcher decides about that."""

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
        pool_classes: Any = {
            "http": functools.partial(self._pool, HTTPConnectionPool, StallAwareConnection),
            "https": functools.partial(self._pool, HTTPSConnectionPool, StallAwareTlsConnection),
        }
        manager.pool_classes_by_scheme = pool_classes

    def _pool(self, pool_class: Any, connection_class: Any, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool: HTTPConnectionPool = pool_class(*args, **kwargs)
        pool.ConnectionCls = functools.partial(connection_class, self._guard)  # type: ignore[assignment]
        return pool


class StallAwareConnection(HTTPConnection):
    """A connection with the guard's stall timeout, that checks for an early response while it sends.

    Attributes:
        response_pending: the server responded before it had the whole request: it would read the next request on this
            connection as the rest of this one.
    """

    def __init__(self, guard: StallGuard, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = guard
        guard.register(self)
        self.response_class = functools.partial(_StallAwareResponse, self)  # type: ignore[assignment]
        self.response_pending = False
        self._early_response = b""

    def _new_conn(self) -> socket.socket:
        """As urllib3's, but can be aborted while it connects."""
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        for family, kind, protocol, _, address in addresses:
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
            raise ConnectTimeoutError(self, f"no response within {self.timeout} s") from failure
        raise NewConnectionError(self, str(failure)) from failure

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(
            self.timeout
        )  # the proxy's response was read without blocking; TLS begins with blocking reads

    def close(self) -> None:
        self.guard.detach()
        self._early_response = b""
        self.response_pending = False
        super().close()

    def send(self, data: Any) -> None:
        """Sends all of `data`, for as long as there is progress.

        Raises:
            BrokenPipeError: the server responded or closed the connection early: urllib3 then reads the response.
        """
        if self.sock is None:
            self.connect()
        view = memoryview(data)
        try:
            self._check_early_response()
            while view:
                # All of it at once: TLS splits it into records, and returns when the last one is sent.
                send = functools.partial(self.sock.send, view)
                sent = self.guard.retry_until_stalled(
                    self.sock, send, "sending", awaited=READY, meanwhile=self._check_early_response
                )
                view = view[sent:]
        except (ConnectionError, ssl.SSLError) as exc:
            self.response_pending = True
            raise BrokenPipeError(str(exc)) from exc

    def _check_early_response(self) -> None:
        """Keeps what the server has sent already for the reader of the response.

        Raises:
            BrokenPipeError: it has responded.
        """
        if not isinstance(self.sock, socket.socket):
            return
        set_nonblocking(self.sock)
        try:
            received = self.sock.recv(EARLY_RESPONSE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return  # nothing, or TLS records without data, such as session tickets
        # Interim responses (1xx) are not the response yet, and some proxies send them unasked.
        self._early_response = _INTERIM.sub(b"", self._early_response + received)
        if not received or not _INTERIM_START.match(self._early_response):
            raise BrokenPipeError("the server responded before it had the whole request")

    def early_response(self) -> bytes:
        """What came of the response while the request was sent; returned once."""
        received, self._early_response = self._early_response, b""
        return received


class StallAwareTlsConnection(StallAwareConnection, HTTPSConnection):
    """The same over TLS. The trusted certificates, hundreds, are parsed once and not for each connection."""

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
    """A response that is read with the stall timeout, beginning with what came early."""

    def __init__(self, connection: StallAwareConnection, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._connection = connection
        self.fp = io.BufferedReader(_StallAwareReader(self.fp, sock, connection))

    def begin(self) -> None:
        """Raises LinkDown if the server reports success without having had the whole request."""
        super().begin()
        if self._connection.response_pending:
            self.will_close = True
            if 200 <= self.status < 300:
                raise LinkDown("the server reported success before it had the whole request")

    def _read_status(self) -> tuple[str, int, str]:
        """Skips interim responses, of which http.client skips only 100."""
        for _ in range(MAX_INTERIM_RESPONSES):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 102 <= status < 200:
                return version, status, reason
            parse_headers(self.fp)
        raise BadStatusLine("no response after many interim ones")


class _StallAwareReader(io.RawIOBase):
    """Reads the socket instead of `original`, which keeps it open and would be unusable after a timeout."""

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
        return self._guard.retry_until_stalled(self._sock, receive, "waiting for the response")

    def close(self) -> None:
        self._original.close()
        super().close()
