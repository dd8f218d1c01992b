from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from agent.errors import Cancelled, DeliveryError, LinkDown
from agent.vision import transport as transport_module
from agent.vision.connection import StallAwareConnection
from agent.vision.transport import Transport
from tests.support.daemon import await_until
from tests.support.scripted_server import PATIENCE_SECONDS, Peer, Script, ScriptedServer, scripted_server
from tests.support.vision_cases import API_ERROR, answering, api, certificate

DONE = {"data": None}
# Longer than a test may take: whatever ends has another reason.
ENDLESS = 3600.0
both = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


class Bytes:
    """A body of so many bytes, in chunks of 256 KiB."""

    content_type = "application/octet-stream"

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[bytes]:
        self.sent = 0
        while self.sent < self.count:
            piece = b"\x5a" * min(256 * 1024, self.count - self.sent)
            yield piece
            self.sent += len(piece)


@contextmanager
def link(
    folder: Path,
    *scripts: Script,
    secure: bool = False,
    stall_seconds: float = 60.0,
    stopping: threading.Event | None = None,
    receive_buffer_bytes: int | None = None,
) -> Iterator[tuple[Transport, ScriptedServer]]:
    leaf = certificate() if secure else None
    with scripted_server(*scripts, certificate=leaf, receive_buffer_bytes=receive_buffer_bytes) as server:
        account = api(server.url, folder, stall_timeout_seconds=stall_seconds)
        with closing(Transport(account, (stopping or threading.Event()).is_set)) as transport:
            yield transport, server


# A busy machine may not schedule a thread for a second or two: that is not a stall.
STALL = 10.0


def slowly(peer: Peer) -> None:
    peer.read_request(at_most_bytes=8192, pause_seconds=0.05)
    peer.answer(200, DONE)


@pytest.mark.slow
@both
def test_a_slow_link_with_progress_is_not_given_up(tmp_path: Path, secure: bool) -> None:
    with link(tmp_path, slowly, secure=secure, stall_seconds=STALL, receive_buffer_bytes=16384) as (transport, _):
        started = time.monotonic()
        assert transport.exchange("POST", "/upload", body=Bytes(2 * 1024 * 1024)).status == 200
        assert time.monotonic() - started > STALL


@pytest.mark.slow
@both
def test_acknowledged_bytes_count_as_progress_while_waiting_for_the_response(tmp_path: Path, secure: bool) -> None:
    def very_slowly(peer: Peer) -> None:
        peer.read_request(at_most_bytes=1024, pause_seconds=0.05)
        peer.answer(200, DONE)

    body = Bytes(250 * 1024)
    with link(tmp_path, very_slowly, secure=secure, stall_seconds=STALL, receive_buffer_bytes=4096) as (transport, _):
        started = time.monotonic()
        assert transport.exchange("POST", "/upload", body=body).status == 200
        assert time.monotonic() - started > STALL


@both
def test_a_server_that_stops_reading_is_given_up(tmp_path: Path, secure: bool) -> None:
    def deaf(peer: Peer) -> None:
        peer.read_head()
        peer.hang()

    with (
        link(tmp_path, deaf, secure=secure, stall_seconds=0.2) as (transport, _),
        pytest.raises(LinkDown, match=r"nothing moved for 0\.2 s while sending"),
    ):
        transport.exchange("POST", "/upload", body=Bytes(20_000_000))


@both
def test_a_server_that_never_responds_is_given_up(tmp_path: Path, secure: bool) -> None:
    def mute(peer: Peer) -> None:
        peer.read_head()
        peer.drain()
        peer.hang()

    with (
        link(tmp_path, mute, secure=secure, stall_seconds=0.2) as (transport, _),
        pytest.raises(LinkDown, match=r"nothing moved for 0\.2 s while waiting for the response"),
    ):
        # So little that it is sent at once, whenever the server reads it.
        transport.exchange("POST", "/upload", body=Bytes(1000))


@both
@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: close"])
def test_a_response_that_stalls_half_way_is_given_up(tmp_path: Path, header: str, secure: bool) -> None:
    def half(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(f'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n{header}\r\n\r\n{{"data"'.encode())
        peer.hang()

    with link(tmp_path, half, secure=secure, stall_seconds=0.2) as (transport, _), pytest.raises(LinkDown):
        transport.exchange("GET", "/status")


@both
def test_an_early_response_is_read_though_the_server_closes_the_connection(tmp_path: Path, secure: bool) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.answer(413, API_ERROR)

    body = Bytes(50_000_000)
    with link(tmp_path, refuse, secure=secure) as (transport, _):
        assert transport.exchange("POST", "/upload", body=body).status == 413
    assert body.sent < 20_000_000


@both
def test_an_early_response_ends_the_sending_and_the_connection(tmp_path: Path, secure: bool) -> None:
    def refuse_and_wait(peer: Peer) -> None:
        peer.read_head()
        peer.answer(401, API_ERROR)
        while True:
            peer.receive()

    body = Bytes(50_000_000)
    with link(tmp_path, refuse_and_wait, answering(200, DONE), secure=secure) as (transport, server):
        assert transport.exchange("POST", "/upload", body=body).status == 401
        assert transport.exchange("GET", "/status").status == 200
        assert len(server.peers) == 2
    assert body.sent < 20_000_000


@both
def test_an_early_response_is_read_even_if_a_failing_send_comes_first(
    tmp_path: Path, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.answer(413, API_ERROR)

    monkeypatch.setattr(StallAwareConnection, "_check_early_response", lambda _connection: None)
    with link(tmp_path, refuse, secure=secure) as (transport, _):
        assert transport.exchange("POST", "/upload", body=Bytes(50_000_000)).status == 413


@both
def test_an_early_response_on_a_slow_link_is_read_within_a_chunk(tmp_path: Path, secure: bool) -> None:
    def refuse_soon(peer: Peer) -> None:
        peer.read_head()
        for _ in range(3):
            peer.receive(8192)
        peer.answer(401, API_ERROR)
        peer.hang()

    # The kernel buffers far less than the body: to continue sending would stall.
    body = Bytes(40 * 256 * 1024)
    with link(tmp_path, refuse_soon, secure=secure, receive_buffer_bytes=16384) as (transport, _):
        assert transport.exchange("POST", "/upload", body=body).status == 401


@both
def test_an_unrequested_100_continue_is_not_the_response(tmp_path: Path, secure: bool) -> None:
    def encourage(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.drain()
        peer.answer(200, DONE)

    with link(tmp_path, encourage, secure=secure) as (transport, _):
        assert transport.exchange("POST", "/upload", body=Bytes(5_000_000)).status == 200


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"


@both
@pytest.mark.parametrize("interim", [*INTERIM, b"".join(INTERIM), b"HTTP/1.1 100 Continue\r\n\r\n" + INTERIM[1]])
def test_interim_responses_are_skipped_whenever_they_come(tmp_path: Path, secure: bool, interim: bytes) -> None:
    def early_and_late(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(interim[:20])
        peer.take(1_000_000)
        peer.sock.sendall(interim[20:])
        peer.drain()
        peer.sock.sendall(interim)
        peer.answer(201, DONE)

    with link(tmp_path, early_and_late, secure=secure) as (transport, _):
        assert transport.exchange("POST", "/upload", body=Bytes(5_000_000)).status == 201


def test_an_early_response_after_an_interim_one_ends_the_sending(tmp_path: Path) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(INTERIM[1])
        peer.answer(413, API_ERROR)
        peer.hang()

    body = Bytes(50_000_000)
    with link(tmp_path, refuse) as (transport, _):
        assert transport.exchange("POST", "/upload", body=body).status == 413
    assert body.sent < 20_000_000


def test_interim_responses_without_end_are_given_up(tmp_path: Path) -> None:
    def endless(peer: Peer) -> None:
        peer.read_request()
        with suppress(OSError):
            for _ in range(10_000):
                peer.sock.sendall(INTERIM[1])

    with link(tmp_path, endless) as (transport, _), pytest.raises(LinkDown):
        transport.exchange("GET", "/status")


@both
@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_success_before_the_whole_request_was_sent_is_no_success(
    tmp_path: Path, secure: bool, hangs_up: bool
) -> None:
    def hasty(peer: Peer) -> None:
        peer.read_head()
        peer.answer(200, DONE)
        if not hangs_up:
            peer.hang()

    with (
        link(tmp_path, hasty, secure=secure) as (transport, _),
        pytest.raises(LinkDown, match="before it had the whole request"),
    ):
        transport.exchange("POST", "/upload", body=Bytes(50_000_000))


def reset_at_once(peer: Peer) -> None:
    peer.reset()


def reset_during_the_body(peer: Peer) -> None:
    peer.read_head()
    peer.receive()
    peer.reset()


def reset_after_the_body(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def hang_up_during_the_body(peer: Peer) -> None:
    peer.read_head()


@both
@pytest.mark.parametrize(
    "script", [reset_at_once, reset_during_the_body, reset_after_the_body, hang_up_during_the_body]
)
def test_a_broken_connection_is_the_links_fault(tmp_path: Path, script: Script, secure: bool) -> None:
    with link(tmp_path, script, secure=secure) as (transport, _), pytest.raises(LinkDown, match=r"127\.0\.0\.1"):
        transport.exchange("POST", "/upload", body=Bytes(3_000_000))


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 999999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b" " * 5_000_000,
        b"\x00\xff\xfe",
    ],
    ids=[
        "no HTTP",
        "odd status",
        "too short",
        "odd chunk",
        "short chunk",
        "no gzip",
        "long header",
        "many headers",
        "too long",
        "binary",
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_garbage_makes_a_foreign_error_escape(tmp_path: Path, garbage: bytes) -> None:
    def babble(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(garbage)

    with link(tmp_path, babble) as (transport, _), pytest.raises(LinkDown):
        transport.exchange("GET", "/status")


def test_a_connection_is_kept_for_the_next_request(tmp_path: Path) -> None:
    with link(tmp_path, answering(200, DONE), secure=True) as (transport, server):
        for _ in range(3):
            transport.exchange("GET", "/status")
        assert len(server.peers) == 1


def test_a_connection_that_was_idle_for_long_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with link(tmp_path, answering(200, DONE)) as (transport, server):
        transport.exchange("GET", "/status")
        monkeypatch.setattr(transport_module, "MAX_IDLE_SECONDS", -1.0)
        transport.exchange("GET", "/status")
        assert len(server.peers) == 2


def test_a_connection_that_the_server_closed_is_replaced(tmp_path: Path) -> None:
    with link(tmp_path, answering(200, DONE, closing=True)) as (transport, server):
        transport.exchange("GET", "/status")
        await_until(lambda: server.peers[0].sock.fileno() == -1, "the server to close the connection")
        assert transport.exchange("GET", "/status").status == 200
        assert len(server.peers) == 2


def deaf(peer: Peer) -> None:
    peer.read_head()
    peer.hang()


def abort(transport: Transport, body: Bytes | None, has_begun: Callable[[], bool]) -> None:
    """Aborts a request of another thread once it has begun; it must end with Cancelled, and not by a timeout."""
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            transport.exchange("POST", "/upload", body=body)
        except (Cancelled, DeliveryError) as exc:
            outcome.append(exc)

    worker = threading.Thread(target=work)
    worker.start()
    await_until(has_begun, "the request to begin")
    transport.abort()
    worker.join(PATIENCE_SECONDS)
    assert [type(exc) for exc in outcome] == [Cancelled]


@both
def test_abort_ends_a_blocked_upload_at_once(tmp_path: Path, secure: bool) -> None:
    with link(tmp_path, deaf, secure=secure, stall_seconds=ENDLESS) as (transport, server):
        abort(transport, Bytes(50_000_000), lambda: len(server.requests) == 1)


@both
def test_abort_ends_the_wait_for_a_response_at_once(tmp_path: Path, secure: bool) -> None:
    with link(tmp_path, deaf, secure=secure, stall_seconds=ENDLESS) as (transport, server):
        abort(transport, None, lambda: len(server.requests) == 1)


def test_abort_ends_a_tls_handshake_at_once(tmp_path: Path) -> None:
    greeted = threading.Event()

    def silent(peer: Peer) -> None:
        peer.receive()
        greeted.set()
        peer.hang()

    with scripted_server(silent) as server:
        account = api(f"https://127.0.0.1:{server.port}/rest", tmp_path, connect_timeout_seconds=ENDLESS)
        with closing(Transport(account, lambda: False)) as transport:
            abort(transport, None, greeted.is_set)


def full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose backlog is full: further connection attempts hang."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.create_connection(listener.getsockname())]
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    return listener, waiting


def connection_attempts(port: int) -> int:
    """How many sockets of this machine try to connect to a port (proc(5), /proc/net/tcp, state SYN_SENT)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(f":{port:04X}") and state == "02" for _, _, remote, state, *_ in rows)


def test_abort_ends_a_connection_attempt_at_once(tmp_path: Path) -> None:
    listener, waiting = full_listener()
    with listener:
        port = listener.getsockname()[1]
        before = connection_attempts(port)
        account = api(f"http://127.0.0.1:{port}/rest", tmp_path, connect_timeout_seconds=ENDLESS)
        with closing(Transport(account, lambda: False)) as transport:
            abort(transport, None, lambda: connection_attempts(port) > before)
    for sock in waiting:
        sock.close()


def test_a_connect_timeout_is_the_links_fault(tmp_path: Path) -> None:
    listener, waiting = full_listener()
    with listener:
        account = api(f"http://127.0.0.1:{listener.getsockname()[1]}/rest", tmp_path, connect_timeout_seconds=0.2)
        with (
            closing(Transport(account, lambda: False)) as transport,
            pytest.raises(LinkDown, match="no connection within the connect timeout"),
        ):
            transport.exchange("GET", "/status")
    for sock in waiting:
        sock.close()


def test_nothing_is_sent_after_an_abort(tmp_path: Path) -> None:
    with link(tmp_path, answering(200, DONE)) as (transport, server):
        transport.abort()
        with pytest.raises(Cancelled):
            transport.exchange("GET", "/status")
        assert not server.peers


@both
def test_a_stop_is_noticed_without_an_abort(tmp_path: Path, secure: bool) -> None:
    stop = threading.Event()
    with link(tmp_path, deaf, secure=secure, stall_seconds=ENDLESS, stopping=stop) as (transport, _):
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(Cancelled):
            transport.exchange("GET", "/status")
