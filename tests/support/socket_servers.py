"""Raw servers on loopback that follow a script, byte by byte: for what a well-behaved server cannot be made to do.

Each connection runs the next script; the last script serves all connections that follow. What a script raises because
the client hung up ends that connection only; anything else fails the test when the server is closed.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import trustme

# More than anything takes on a busy machine that does happen.
PATIENCE_SECONDS = 100.0


@dataclass(frozen=True)
class Request:
    """What a client sent: the head, and as much of the body as the script read."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


class Peer:
    """One accepted connection, as a script uses it."""

    def __init__(self, sock: socket.socket, closing: threading.Event) -> None:
        self.sock = sock
        self.closing = closing
        self.requests: list[Request] = []
        self._received = bytearray()

    def receive(self, most_bytes: int = 65536) -> bytes:
        """Some bytes, straight from the socket.

        Raises:
            ConnectionError: the client has hung up.
        """
        received = self.sock.recv(most_bytes)
        if not received:
            raise ConnectionResetError("the client has hung up")
        return received

    def read_head(self) -> Request:
        while b"\r\n\r\n" not in self._received:
            self._received += self.receive()
        head, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        self._received[:] = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.requests.append(Request(method, target, headers))
        return self.requests[-1]

    def read_request(self, *, at_most_bytes: int = 65536, pause_seconds: float = 0.0) -> Request:
        """A whole request; the body in pieces of at most so many bytes, with a pause after each."""
        self.read_head()
        return self.read_body(at_most_bytes=at_most_bytes, pause_seconds=pause_seconds)

    def read_body(self, *, at_most_bytes: int = 65536, pause_seconds: float = 0.0) -> Request:
        """The rest of the request whose head was read."""
        head = self.requests[-1]
        length = int(head.headers.get("content-length", "0"))
        body = self._received
        while len(body) < length:
            body += self.receive(min(at_most_bytes, length - len(body)))
            if pause_seconds:
                time.sleep(pause_seconds)
        self._received = bytearray()
        self.requests[-1] = Request(head.method, head.target, head.headers, bytes(body))
        return self.requests[-1]

    def take(self, most_bytes: int) -> None:
        """Some more of the body of the request whose head was read; it is kept for `read_body`."""
        self._received += self.receive(min(most_bytes, self.pending_bytes()))

    def pending_bytes(self) -> int:
        """How much of that body has not been taken yet."""
        return int(self.requests[-1].headers.get("content-length", "0")) - len(self._received)

    def drain(self) -> int:
        """Read the body of the request whose head was read, without keeping it.

        Returns:
            The bytes of the body.
        """
        length = int(self.requests[-1].headers.get("content-length", "0"))
        count = len(self._received)
        self._received.clear()
        buffer = bytearray(1 << 20)
        while count < length:
            received = self.sock.recv_into(buffer)
            if not received:
                raise ConnectionResetError("the client has hung up")
            count += received
        return count

    def answer(self, status: int, payload: object = None, headers: Mapping[str, str] | None = None) -> None:
        """An answer with JSON, or with text if the payload is text."""
        content = payload if isinstance(payload, str) else json.dumps(payload)
        kind = "text/html" if isinstance(payload, str) else "application/json"
        self.answer_bytes(status, content.encode(), {"Content-Type": kind, **(headers or {})})

    def answer_bytes(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        lines = [f"{name}: {value}" for name, value in {"Content-Length": str(len(content)), **headers}.items()]
        self.sock.sendall("\r\n".join([f"HTTP/1.1 {status} Scripted", *lines, "", ""]).encode() + content)

    def reset(self) -> None:
        """Hang up as a crashed server or a firewall does: with a reset instead of an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def hang(self) -> None:
        """Neither read nor answer, until the server is closed."""
        self.closing.wait()


Script = Callable[[Peer], object]


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port of loopback at which nobody listens: it is held, or another test's server might get it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def tunnelling_to(port: int) -> Script:
    """An HTTP proxy that makes a tunnel to this port on loopback, whatever it is asked for."""

    def script(peer: Peer) -> None:
        peer.read_head()
        with socket.create_connection(("127.0.0.1", port)) as target:
            peer.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            # In one thread: a TLS socket does not bear two.
            while True:
                readable, _, _ = select.select([peer.sock, target], [], [])
                for source in readable:
                    received = source.recv(65536)
                    if not received:
                        return
                    (target if source is peer.sock else peer.sock).sendall(received)

    return script


class ScriptedServer:
    """A server that is running; see `scripted_server`."""

    def __init__(self, listener: socket.socket, scripts: tuple[Script, ...], context: ssl.SSLContext | None) -> None:
        self.port: int = listener.getsockname()[1]
        self.peers: list[Peer] = []
        self._listener = listener
        self._scripts = scripts
        self._context = context
        self._closing = threading.Event()
        self._failures: list[Exception] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/rest"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of their connections."""
        return [request for peer in self.peers for request in peer.requests]

    def close(self) -> None:
        """Stop, and raise what a script raised."""
        self._closing.set()
        for peer in self.peers:
            with suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "a script did not end"
        assert not self._failures, self._failures

    def _serve(self) -> None:
        while not self._closing.is_set():
            with suppress(OSError):  # the client hung up, or did not trust us, or the listener is closed
                accepted, _ = self._listener.accept()
                accepted.settimeout(PATIENCE_SECONDS)
                accepted.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
                )  # or Nagle keeps an answer until too late
                with accepted, self._secured(accepted) as sock:
                    self._follow(Peer(sock, self._closing))

    def _secured(self, accepted: socket.socket) -> socket.socket:
        return self._context.wrap_socket(accepted, server_side=True) if self._context else accepted

    def _follow(self, peer: Peer) -> None:
        script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
        self.peers.append(peer)
        try:
            script(peer)
        except OSError:
            raise
        except Exception as exc:  # noqa: BLE001  # told to the test, in whose thread it can be raised
            self._failures.append(exc)


@contextmanager
def scripted_server(
    *scripts: Script, certificate: trustme.LeafCert | None = None, receive_buffer_bytes: int | None = None
) -> Iterator[ScriptedServer]:
    """Serve connections, one after the other.

    Args:
        scripts: one for each connection; the last one for all that follow.
        certificate: with it, the server speaks TLS.
        receive_buffer_bytes: of the kernel; a small one makes a slow reader felt at once.
    """
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
    with socket.socket() as listener:
        if receive_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = ScriptedServer(listener, scripts, context)
        try:
            yield server
        finally:
            server.close()
