"""A relay on loopback that keeps the answers to uploads to itself: the server has done what the client never hears."""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_UPLOAD = b"POST /rest/vision/video/"


class HoldingRelay:
    """See `holding_relay`.

    Attributes:
        holding: whether answers to uploads are held; False lets everything pass.
        answered: set when an answer is held that is complete.
    """

    def __init__(self, listener: socket.socket, target_port: int, *, but_the_last_byte: bool) -> None:
        self.port: int = listener.getsockname()[1]
        self.holding = True
        self.answered = threading.Event()
        self._listener = listener
        self._target_port = target_port
        self._but_the_last_byte = but_the_last_byte
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(30)
        for sock in self._socks:
            with suppress(OSError):  # closed
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(30)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._threads.append(threading.Thread(target=self._relay, args=[client], daemon=True))
                self._threads[-1].start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target_port)) as server, suppress(OSError):
            self._socks += [client, server]
            uploading = False
            answer = b""
            while True:
                readable, _, _ = select.select([client, server], [], [], 60)
                if client in readable:
                    asked = client.recv(65_536)
                    if not asked:
                        return
                    uploading = uploading or (self.holding and asked.startswith(_UPLOAD))
                    server.sendall(asked)
                if server in readable:
                    said = server.recv(65_536)
                    if not said:
                        return
                    if not uploading:
                        client.sendall(said)
                        continue
                    answer += said
                    if _is_whole(answer):
                        if self._but_the_last_byte:
                            client.sendall(answer[:-1])
                        self.answered.set()


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return bool(end) and length is not None and len(body) >= int(length[1])


@contextmanager
def holding_relay(target_url: str, *, but_the_last_byte: bool = False) -> Iterator[tuple[HoldingRelay, str]]:
    """Relays to a server on loopback.

    Args:
        target_url: of the server.
        but_the_last_byte: the answer is passed on but for its last byte; else nothing of it is.

    Yields:
        The relay, and the URL by which the server is reached through it.
    """
    port = urlsplit(target_url).port or 80
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = HoldingRelay(listener, port, but_the_last_byte=but_the_last_byte)
        try:
            yield relay, target_url.replace(f":{port}/", f":{relay.port}/")
        finally:
            relay.close()
