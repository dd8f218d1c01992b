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
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from agent.errors import Cancelled
from agent.vision.stall_guard import StallGuard, set_nonblocking

# The most that is read at once of an answer that comes early.
EARLY_RESPONSE_BYTES = 16 * 1024

# What may wait in the kernel unsent. Without a limit it is megabytes, and progress would be shown that is none.
MAX_UNSENT_BYTES = 128 * 1024

READY = select.POLLIN | select.POLLOUT


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
