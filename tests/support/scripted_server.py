"""A raw HTTP server on loopback that follows scripts byte by byte: misbehaviour that no proper server can show.

It is the only double that breaks off inside TLS records, headers and bodies. It is scripted by connection
(`scripted_server`) or by request (`scripted_api`, which behaves well where it has no script). The simulator is the
double for everything that a server which keeps the contract can do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

# Longer than anything takes on a busy machine that does happen.
PATIENCE_SECONDS = 100.0

FIELDS = ("registration", "camera", "start_timestamp", "end_timestamp")


class Certificate(Protocol):
    """A server certificate, such as trustme's."""

    def configure_cert(self, context: ssl.SSLContext, /) -> None: ...


@dataclass(frozen=True)
class Request:
    """What a client sent: the head, and the part of the body that the script has read."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


class Peer:
    """One accepted connection, as used by a script."""

    def __init__(self, sock: socket.socket, closing: threading.Event) -> None:
        self.sock = sock
        self.closing = closing
        self.requests: list[Request] = []
        self._received = bytearray()

    def receive(self, most_bytes: int = 65536) -> bytes:
        """Receive some bytes from the socket.

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
        """Read a whole request; the body in chunks of at most `at_most_bytes`, with a pause after each."""
        self.read_head()
        return self.read_body(at_most_bytes=at_most_bytes, pause_seconds=pause_seconds)

    def read_body(self, *, at_most_bytes: int = 65536, pause_seconds: float = 0.0) -> Request:
        """Read the rest of the request whose head was read."""
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
        """Read a part of the body of the current request; kept for `read_body`."""
        self._received += self.receive(min(most_bytes, self.pending_bytes()))

    def pending_bytes(self) -> int:
        """How much of the body of the current request has not been read."""
        return int(self.requests[-1].headers.get("content-length", "0")) - len(self._received)

    def drain(self) -> int:
        """Read and discard the rest of the body of the current request.

        Returns:
            The length of the body in bytes.
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
        """Respond with JSON, or with HTML if the payload is a string."""
        content = payload if isinstance(payload, str) else json.dumps(payload)
        kind = "text/html" if isinstance(payload, str) else "application/json"
        self.answer_bytes(status, content.encode(), {"Content-Type": kind, **(headers or {})})

    def answer_bytes(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        lines = [f"{name}: {value}" for name, value in {"Content-Length": str(len(content)), **headers}.items()]
        self.sock.sendall("\r\n".join([f"HTTP/1.1 {status} Scripted", *lines, "", ""]).encode() + content)

    def reset(self) -> None:
        """Reset the connection, as a crashed server or a firewall does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def hang(self) -> None:
        """Neither read nor respond until the server is closed."""
        self.closing.wait()


Script = Callable[[Peer], object]


@contextmanager
def refusing_port() -> Iterator[int]:
    """A loopback port that refuses connections. It stays bound, so that no other server gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def tunnelling_to(port: int) -> Script:
    """An HTTP proxy that tunnels every request to this loopback port."""

    def script(peer: Peer) -> None:
        peer.read_head()
        with socket.create_connection(("127.0.0.1", port)) as target:
            peer.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            # In one thread: a TLS socket must not be used by two.
            while True:
                readable, _, _ = select.select([peer.sock, target], [], [])
                for source in readable:
                    received = source.recv(65536)
                    if not received:
                        return
                    (target if source is peer.sock else peer.sock).sendall(received)

    return script


class SocketServer:
    """Accepts connections and runs `serve` for each, in a thread of its own.

    What `serve` raises because the client hung up ends that connection only; anything else fails the test on close.

    Attributes:
        certificate: with it, new connections use TLS; may be replaced at any time.
        peers: the connections so far, in the order in which they were ready (TLS included).
    """

    def __init__(self, listener: socket.socket, certificate: Certificate | None) -> None:
        self.port: int = listener.getsockname()[1]
        self.certificate = certificate
        self.peers: list[Peer] = []
        self._listener = listener
        self._lock = threading.Lock()  # guards `peers`
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}/rest"

    def serve(self, peer: Peer, number: int) -> None:
        """Serve a connection.

        Args:
            peer: the connection.
            number: how many connections were ready before it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Stop, and raise what a script raised."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE_SECONDS)
        for peer in self.peers:
            with suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a script did not end"
        assert not self._failures, self._failures

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                accepted, _ = self._listener.accept()
                accepted.settimeout(PATIENCE_SECONDS)
                # Without it, Nagle's algorithm delays a response that is sent in parts.
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._serve, args=[accepted], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        try:
            with accepted, self._secured(accepted) as sock:
                peer = Peer(sock, self._closing)
                with self._lock:
                    number = len(self.peers)
                    self.peers.append(peer)
                self.serve(peer, number)
        except OSError:
            pass  # the client hung up, or did not trust the certificate
        except Exception as exc:  # noqa: BLE001  # raised in the thread of the test, by `close`
            self._failures.append(exc)

    def _secured(self, accepted: socket.socket) -> socket.socket:
        if self.certificate is None:
            return accepted
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        return context.wrap_socket(accepted, server_side=True)


class ScriptedServer(SocketServer):
    """Runs one script for each connection; see `scripted_server`."""

    def __init__(self, listener: socket.socket, certificate: Certificate | None, scripts: tuple[Script, ...]) -> None:
        self._scripts = scripts
        super().__init__(listener, certificate)

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of their connections."""
        return [request for peer in self.peers for request in peer.requests]

    def serve(self, peer: Peer, number: int) -> None:
        self._scripts[min(number, len(self._scripts) - 1)](peer)


@dataclass(frozen=True)
class Video:
    """A clip of an upload that arrived completely."""

    start: str
    sha256: str


class ScriptedApi(SocketServer):
    """Runs one script for each request, and responds as the API where there is none; see `scripted_api`.

    Attributes:
        uploads: scripts for the next uploads. Each runs when the head was read; if it returns and leaves the connection
            open, the next request is read from it.
        questions: the same for requests that carry no footage.
        videos: the clips of all uploads that got results.
        heads: the heads of all requests so far.
        lists: the items of the account's list.
    """

    def __init__(self, listener: socket.socket, certificate: Certificate | None) -> None:
        self.uploads: deque[Script] = deque()
        self.questions: deque[Script] = deque()
        self.videos: list[Video] = []
        self.heads: list[Request] = []
        self.lists: list[Mapping[str, object]] = []
        super().__init__(listener, certificate)

    @property
    def uploads_begun(self) -> int:
        return sum(head.method == "POST" for head in self.heads)

    def times_received(self) -> Counter[str]:
        """How often each clip arrived, by its start."""
        return Counter(video.start for video in self.videos)

    def well(self, peer: Peer) -> None:
        """Accept the upload whose head was read, with a result for each clip."""
        body = peer.read_body(at_most_bytes=1 << 20).body
        found = list(_clips(body))
        results = [record | {"request_id": len(self.videos) + n} for n, (record, _) in enumerate(found)]
        self.videos += [Video(str(record["start_timestamp"]), sha256) for record, sha256 in found]
        peer.answer(200, {"data": results})

    def serve(self, peer: Peer, number: int) -> None:
        while peer.sock.fileno() != -1:
            head = peer.read_head()
            self.heads.append(head)
            if head.method == "POST":
                script = self.uploads.popleft() if self.uploads else self.well
            else:
                script = self.questions.popleft() if self.questions else self._list
            script(peer)

    def _list(self, peer: Peer) -> None:
        listed = self.lists if "/requests" in peer.requests[-1].target else []
        peer.answer(200, {"data": list(listed)})


def _clips(body: bytes) -> Iterator[tuple[dict[str, object], str]]:
    """The fields of each clip in an upload, and the SHA-256 of its bytes."""
    if body.startswith(b"{"):
        for record in json.loads(body)["data"]:
            content = base64.b64decode(record["video_file"], validate=True)
            yield {name: record[name] for name in FIELDS}, hashlib.sha256(content).hexdigest()
        return
    told = {name: re.search(rb'name="%s"\r\n\r\n(.*?)\r\n' % name.encode(), body) for name in FIELDS}
    boundary = body.split(b"\r\n", 1)[0]
    content = body.split(b"Content-Type: video/mp4\r\n\r\n", 1)[1].rsplit(b"\r\n" + boundary, 1)[0]
    yield {name: found[1].decode() for name, found in told.items() if found}, hashlib.sha256(content).hexdigest()


@contextmanager
def scripted_server(
    *scripts: Script, certificate: Certificate | None = None, receive_buffer_bytes: int | None = None
) -> Iterator[ScriptedServer]:
    """Serve connections by scripts.

    Args:
        scripts: one for each connection; the last one for all further connections.
        certificate: with it, the server uses TLS.
        receive_buffer_bytes: size of the kernel's buffer; with a small one, clients notice at once that nobody reads.
    """
    with _listener(receive_buffer_bytes) as listener:
        server = ScriptedServer(listener, certificate, scripts)
        try:
            yield server
        finally:
            server.close()


@contextmanager
def scripted_api(
    *, certificate: Certificate | None = None, receive_buffer_bytes: int | None = None
) -> Iterator[ScriptedApi]:
    """Serve an API whose requests may be scripted; arguments as in `scripted_server`."""
    with _listener(receive_buffer_bytes) as listener:
        api = ScriptedApi(listener, certificate)
        try:
            yield api
        finally:
            api.close()


@contextmanager
def _listener(receive_buffer_bytes: int | None) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        if receive_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener
