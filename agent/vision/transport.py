"""HTTP as this program needs it: one connection that never hangs, can be cut from another thread, and obeys no
environment variable.

Three traps of the libraries below are met here. `requests` lets REQUESTS_CA_BUNDLE and .netrc override what the
program says. urllib3 lets the connect timeout govern each piece of a body that is sent. And `sendall` counts the time
for a whole piece, so that a slow link that moves looks like one that stalls.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any, ClassVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.connection import HTTPConnection, HTTPSConnection

from agent import __version__
from agent.config import Api

SYSTEM_CA_FILE = Path("/etc/ssl/certs/ca-certificates.crt")


class LiveSocket:
    """The socket that is in use now, so that another thread can cut it.

    Args:
        stall_timeout_seconds: a socket on which nothing moves for so long is given up.
    """

    def __init__(self, stall_timeout_seconds: float) -> None:
        self.stall_timeout_seconds = stall_timeout_seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def register(self, live: socket.socket | None) -> None:
        with self._lock:
            self._socket = live

    def cut(self) -> None:
        """Ends whatever blocks on the socket, at once: sending as well as waiting for the answer."""
        with self._lock:
            if self._socket is None:
                return
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It is closed already: there is nothing to end.
                return


class _Live:
    """What both kinds of connection do differently from urllib3's."""

    live: ClassVar[LiveSocket]
    sock: socket.socket | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.live.register(self.sock)

    def close(self) -> None:
        self.live.register(None)
        super().close()  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Sends one piece; the time limit is on standing still, not on the piece."""
        if self.sock is None or not isinstance(data, (bytes, bytearray, memoryview)):
            super().send(data)  # type: ignore[misc]
            return
        self.sock.settimeout(self.live.stall_timeout_seconds)
        view = memoryview(data)
        while view:
            view = view[self.sock.send(view) :]


class Adapter(HTTPAdapter):
    """Makes such connections, keeps one of them open, and never retries: whoever called decides what comes next."""

    def __init__(self, live: LiveSocket) -> None:
        self._plain = type("PlainConnection", (_Live, HTTPConnection), {"live": live})
        self._secure = type("SecureConnection", (_Live, HTTPSConnection), {"live": live})
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=urllib3.Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_own_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_own_connections(manager)
        return manager

    def _use_own_connections(self, manager: Any) -> None:
        plain = type("PlainPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": self._plain})
        secure = type("SecurePool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": self._secure})
        manager.pool_classes_by_scheme = {"http": plain, "https": secure}


def open_session(api: Api, live: LiveSocket) -> requests.Session:
    """A session for the API; one thread at a time may use it."""
    session = requests.Session()
    session.trust_env = False
    # As bytes: `requests` would encode text as Latin-1, which not every password can be.
    session.auth = HTTPBasicAuth(api.username.encode(), api.password.reveal().encode())
    session.headers.update({"User-Agent": f"vision-ingest/{__version__}", "Accept": "application/json"})
    session.proxies = {"http": api.proxy, "https": api.proxy} if api.proxy else {}
    session.verify = ca_file(api)
    session.mount("https://", Adapter(live))
    session.mount("http://", Adapter(live))
    return session


def ca_file(api: Api) -> str | bool:
    """The certificates to trust: the configured file, else the system's, else those that come with `requests`."""
    if api.ca_file is not None:
        return str(api.ca_file)
    return str(SYSTEM_CA_FILE) if SYSTEM_CA_FILE.exists() else True
