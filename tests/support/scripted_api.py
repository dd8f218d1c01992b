"""An API on loopback that does to the next requests what a test says, byte by byte, and behaves well otherwise.

Unlike `scripted_server` it serves its connections beside each other: while one stalls, others are answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from tests.support.socket_servers import Peer, Request, Script

FIELDS = ("registration", "camera", "start_timestamp", "end_timestamp")


class Certificate(Protocol):
    """What a TLS server shows; one of trustme's, for instance."""

    def configure_cert(self, context: ssl.SSLContext, /) -> None: ...


@dataclass(frozen=True)
class Video:
    """A clip that came in a whole request."""

    start: str
    sha256: str


class ScriptedApi:
    """The server; see `scripted_api`.

    Attributes:
        uploads: what befalls the next uploads. Each script runs when the head was read; if it leaves the connection
            open and returns, the next request is read from it.
        questions: the same for requests that carry no footage.
        videos: the clips of all uploads that were answered with results.
        heads: of all requests so far.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.uploads: deque[Script] = deque()
        self.questions: deque[Script] = deque()
        self.videos: list[Video] = []
        self.heads: list[Request] = []
        self.certificate: Certificate | None = None
        self.lists: list[Mapping[str, object]] = []
        self._listener = listener
        self._closing = threading.Event()
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}/rest"

    @property
    def uploads_begun(self) -> int:
        return sum(head.method == "POST" for head in self.heads)

    def times_received(self) -> Counter[str]:
        """How often each clip came, by its start."""
        return Counter(video.start for video in self.videos)

    def well(self, peer: Peer) -> None:
        """Takes the upload whose head was read, and says so of each clip."""
        body = peer.read_body(at_most_bytes=1 << 20).body
        found = list(_clips(body))
        results = [record | {"request_id": len(self.videos) + n} for n, (record, _) in enumerate(found)]
        self.videos += [Video(str(record["start_timestamp"]), sha256) for record, sha256 in found]
        peer.answer(200, {"data": results})

    def close(self) -> None:
        """Stop, and raise what a script raised."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)
        for peer in self._peers:
            with suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        assert not self._failures, self._failures

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                accepted, _ = self._listener.accept()
                accepted.settimeout(60)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._serve, args=[accepted], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        try:
            with accepted, self._secured(accepted) as sock:
                peer = Peer(sock, self._closing)
                self._peers.append(peer)
                while sock.fileno() != -1:
                    self._answer(peer)
        except OSError:
            pass  # the client hung up, or did not trust us
        except Exception as exc:  # noqa: BLE001  # told to the test, in whose thread it can be raised
            self._failures.append(exc)

    def _secured(self, accepted: socket.socket) -> socket.socket:
        if self.certificate is None:
            return accepted
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        return context.wrap_socket(accepted, server_side=True)

    def _answer(self, peer: Peer) -> None:
        head = peer.read_head()
        self.heads.append(head)
        if head.method == "POST":
            script = self.uploads.popleft() if self.uploads else self.well
        else:
            script = self.questions.popleft() if self.questions else self._say
        script(peer)

    def _say(self, peer: Peer) -> None:
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
def scripted_api(
    *, certificate: Certificate | None = None, receive_buffer_bytes: int | None = None
) -> Iterator[ScriptedApi]:
    """Serve on loopback.

    Args:
        certificate: with it, the server speaks TLS; another may be put in its place.
        receive_buffer_bytes: of the kernel; a small one makes a slow reader felt at once.
    """
    with socket.socket() as listener:
        if receive_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        api = ScriptedApi(listener)
        api.certificate = certificate
        try:
            yield api
        finally:
            api.close()
