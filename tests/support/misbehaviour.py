"""How servers and networks break requests: scripts for `ScriptedApi`, each run when the head was read."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.scripted_server import Peer, Script
from tests.support.vision_cases import API_ERROR

HTML = "<html><title>Welcome to the network</title><form action='/login'></form></html>"
FOUND = {"Location": "http://login.example/"}


def take_a_little(peer: Peer) -> None:
    """Read a part of the body; a small one may have arrived with the head."""
    if peer.pending_bytes() > 0:
        peer.take(1000)


def reset(peer: Peer) -> None:
    peer.reset()


def reset_during_the_body(peer: Peer) -> None:
    take_a_little(peer)
    peer.reset()


def reset_after_the_body(peer: Peer) -> None:
    peer.drain()
    peer.reset()


def hang_up_during_the_body(peer: Peer) -> None:
    take_a_little(peer)
    raise ConnectionAbortedError


def hang_up_in_the_answer(peer: Peer) -> None:
    peer.read_body()
    peer.sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"data": [')
    raise ConnectionAbortedError


def stop_reading(peer: Peer) -> None:
    peer.hang()
    raise ConnectionAbortedError


def never_answer(peer: Peer) -> None:
    peer.drain()
    peer.hang()
    raise ConnectionAbortedError


def stop_in_the_answer(peer: Peer) -> None:
    peer.drain()
    peer.sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"data": [')
    peer.hang()
    raise ConnectionAbortedError


def says(status: int, payload: object, headers: Mapping[str, str] | None = None) -> Script:
    """Read the whole request, then respond."""

    def script(peer: Peer) -> None:
        peer.read_body()
        peer.answer(status, payload, headers)

    return script


def says_text(content: bytes, kind: str = "application/json") -> Script:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.answer_bytes(200, content, {"Content-Type": kind})

    return script


def bytes_until_hang_up(peer: Peer) -> list[int]:
    """The sizes of what still arrives after a response that did not wait for the body."""
    counts = []
    try:
        while True:
            counts.append(len(peer.receive(1 << 20)))
    except OSError:
        peer.reset()
    return counts


BREAKS: dict[str, Script] = {
    "reset before the body": reset,
    "reset during the body": reset_during_the_body,
    "reset after the body": reset_after_the_body,
    "hang-up during the body": hang_up_during_the_body,
    "hang-up in the answer": hang_up_in_the_answer,
}
STALLS: dict[str, Script] = {
    "server stops reading": stop_reading,
    "server never answers": never_answer,
    "answer stops half way": stop_in_the_answer,
}
# Responses that are not the API's, or contain no verdict.
NOT_THE_API: dict[str, Script] = {
    "truncated JSON": says_text(b'{"data": [{"registration": "ABC1'),
    "no JSON": says_text(b"OK"),
    "nothing": says_text(b""),
    "JSON null": says(200, None),
    "a list": says(200, [1, 2]),
    "other JSON": says(200, {"status": "ok"}),
    "200 with an error": says(200, API_ERROR),
    "200 with data and an error": says(200, {"data": None, **API_ERROR}),
    "200 with HTML": says(200, HTML),
    "204": says(204, ""),
    "302": says(302, HTML, FOUND),
    "302 with JSON": says(302, {"data": []}, FOUND),
    "307": says(307, "", FOUND),
    "511": says(511, HTML),
    "401 of a proxy": says(401, HTML),
    "403 of a proxy": says(403, HTML),
    "404 of a proxy": says(404, HTML),
    "407": says(407, HTML),
    "429 of a proxy": says(429, HTML, {"Retry-After": "7"}),
}
SERVER_ERRORS: dict[str, Script] = {
    f"{status} with {kind}": says(status, payload)
    for status in (500, 502, 503, 504)
    for kind, payload in (("JSON", API_ERROR), ("HTML", HTML))
}
