from __future__ import annotations

import gzip
import socket
import threading
import traceback
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent import __version__
from agent.errors import Cancelled, EndpointNotFound, LinkDown
from agent.vision import transport as transport_module
from agent.vision.transport import HttpResponse, Transport
from tests.support.scripted_server import Peer, refusing_port, scripted_server, tunnelling_to
from tests.support.vision_cases import PASSWORD, answering, answering_with, api, authority, certificate

DONE = {"data": None}
NOW = datetime.now(timezone.utc)


def exchange(base_url: str, folder: Path, **changes: Any) -> HttpResponse:
    with closing(Transport(api(base_url, folder, **changes), lambda: False)) as transport:
        return transport.exchange("GET", "/status")


def headers_of(folder: Path, **changes: Any) -> Mapping[str, str]:
    with scripted_server(answering(200, DONE), certificate=certificate()) as server:
        exchange(server.url, folder, **changes)
        return server.requests[0].headers


def test_a_request_has_credentials_and_a_user_agent(tmp_path: Path) -> None:
    headers = headers_of(tmp_path)
    assert headers["authorization"] == "Basic YWNjb3VudDpjb3JyZWN0LWhvcnNlLdCx0YPQug=="  # in UTF-8
    assert headers["user-agent"] == f"vision-ingest/{__version__}"
    assert headers["accept"] == "application/json"


def test_the_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    other = tmp_path / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(other))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert headers_of(tmp_path)["authorization"].startswith("Basic YWNjb3VudD")


def test_the_certificates_of_the_system_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority().cert_pem.write_to_path(str(tmp_path / "system.pem"))
    monkeypatch.setattr(transport_module, "SYSTEM_CA_FILE", tmp_path / "system.pem")
    assert headers_of(tmp_path, ca_file=None)


def test_the_certificates_of_the_library_are_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "SYSTEM_CA_FILE", tmp_path / "missing.pem")
    with (
        scripted_server(answering(200, DONE), certificate=certificate()) as server,
        pytest.raises(LinkDown, match="certificate is not trusted"),
    ):
        exchange(server.url, tmp_path, ca_file=None)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with scripted_server(answering(302, "moved", {"Location": "/login"})) as server:
        assert exchange(server.url, tmp_path).status == 302
        assert len(server.requests) == 1


def test_cookies_are_not_kept(tmp_path: Path) -> None:
    with scripted_server(answering(200, DONE, {"Set-Cookie": "portal=1; Path=/"})) as server:
        with closing(Transport(api(server.url, tmp_path), lambda: False)) as transport:
            transport.exchange("GET", "/status")
            transport.exchange("GET", "/status")
        assert "cookie" not in server.requests[1].headers


def test_a_compressed_response_is_read_though_not_requested(tmp_path: Path) -> None:
    def compressed(peer: Peer) -> None:
        peer.read_request()
        peer.answer_bytes(200, gzip.compress(b'{"data": 1}'), {"Content-Encoding": "gzip"})

    with scripted_server(compressed) as server:
        assert exchange(server.url, tmp_path).content == b'{"data": 1}'
        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_the_password_is_in_no_error(tmp_path: Path) -> None:
    with scripted_server(lambda peer: peer.reset()) as server:
        account = api(server.url, tmp_path, proxy=None)
        with closing(Transport(account, lambda: False)) as transport, pytest.raises(LinkDown) as caught:
            transport.exchange("GET", "/status")
    told = "".join(traceback.format_exception(caught.value)) + repr(vars(transport))
    assert PASSWORD not in told
    assert "bук" not in told


def test_the_proxys_password_is_in_no_error(tmp_path: Path) -> None:
    with scripted_server(lambda peer: peer.reset()) as server, pytest.raises(LinkDown) as caught:
        exchange("https://127.0.0.1:1/rest", tmp_path, proxy=f"http://user:hidden@127.0.0.1:{server.port}")
    assert "hidden" not in str(caught.value)
    assert f"through the proxy 127.0.0.1:{server.port}" in str(caught.value)


class TestCertificates:
    def refused(self, folder: Path, leaf: trustme.LeafCert, host: str = "127.0.0.1") -> str:
        with scripted_server(answering(200, DONE), certificate=leaf) as server, pytest.raises(LinkDown) as caught:
            exchange(f"https://{host}:{server.port}/rest", folder)
        return str(caught.value)

    def test_a_certificate_that_is_not_valid_yet_points_to_the_clock(self, tmp_path: Path) -> None:
        leaf = certificate(not_before=NOW + timedelta(days=1), not_after=NOW + timedelta(days=2))
        before = datetime.now(timezone.utc)
        said = self.refused(tmp_path, leaf)
        days = {f"{at:%Y-%m-%d}" for at in (before, datetime.now(timezone.utc))}
        assert "not valid yet" in said
        assert any(f"this device's clock says {day}" in said for day in days)

    def test_an_expired_certificate_is_shown_with_the_time_of_the_device(self, tmp_path: Path) -> None:
        leaf = certificate(not_before=NOW - timedelta(days=2), not_after=NOW - timedelta(days=1))
        said = self.refused(tmp_path, leaf)
        assert "expired" in said
        assert "clock says" in said

    def test_a_certificate_of_an_unknown_authority_points_to_the_ca_file(self, tmp_path: Path) -> None:
        said = self.refused(tmp_path, trustme.CA().issue_cert("127.0.0.1"))
        assert "not trusted" in said
        assert "api.ca_file" in said

    def test_a_certificate_for_another_name_points_to_the_address(self, tmp_path: Path) -> None:
        assert "another name" in self.refused(tmp_path, certificate(), host="localhost")


def test_a_server_that_does_not_speak_tls_is_the_links_fault(tmp_path: Path) -> None:
    def plain(peer: Peer) -> None:
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with scripted_server(plain) as server, pytest.raises(LinkDown, match="encrypted connection failed"):
        exchange(f"https://127.0.0.1:{server.port}/rest", tmp_path)


def test_a_tls_handshake_that_stalls_is_the_links_fault(tmp_path: Path) -> None:
    with (
        scripted_server(lambda peer: peer.hang()) as server,
        pytest.raises(LinkDown, match="no response within the timeout"),
    ):
        exchange(f"https://127.0.0.1:{server.port}/rest", tmp_path, connect_timeout_seconds=0.1)


@pytest.mark.usefixtures("names")
def test_a_name_that_cannot_be_resolved_points_to_the_mobile_data(tmp_path: Path) -> None:
    with pytest.raises(LinkDown, match="name cannot be resolved"):
        exchange("https://fleetapi.invalid/rest", tmp_path)


def test_a_closed_port_is_reported_as_refused(tmp_path: Path) -> None:
    with refusing_port() as port, pytest.raises(LinkDown, match="connection is refused"):
        exchange(f"http://127.0.0.1:{port}/rest", tmp_path)


def test_every_address_of_a_name_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server(answering(200, DONE)) as server:
        places = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: places)
        assert exchange("http://api.example/rest", tmp_path).status == 200


@pytest.mark.parametrize(
    ("base_url", "proxy"),
    [
        ("http://a..b/rest", None),
        ("http://" + "a" * 70 + ".example/rest", None),
        ("http://*.example/rest", None),
        ("https://[::1/rest", None),
        ("https://host:port/rest", None),
        ("host.example/rest", None),
        ("ftp://host.example/rest", None),
        ("http:///rest", None),
        ("http://host.example/rest", "http://"),
        ("http://host.example/rest", "http://user:hidden@:bad:/"),
        ("http://host.example/rest", "socks5://127.0.0.1:1"),
    ],
)
def test_an_invalid_address_must_be_corrected_by_a_person(tmp_path: Path, base_url: str, proxy: str | None) -> None:
    with pytest.raises(EndpointNotFound, match=r"check api\.region or api\.base_url, and api\.proxy") as caught:
        exchange(base_url, tmp_path, proxy=proxy)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_unusable_ca_file_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "own.pem"
    if content is not None:
        file.write_text(content)
    with (
        scripted_server(answering(200, DONE), certificate=certificate()) as server,
        pytest.raises(LinkDown, match=r"own\.pem|encrypted connection failed"),
    ):
        exchange(server.url, tmp_path, ca_file=file)


class TestThroughAProxy:
    def test_a_plain_request_names_the_server(self, tmp_path: Path) -> None:
        with scripted_server(answering(200, DONE)) as proxy:
            exchange("http://api.example/rest", tmp_path, proxy=f"http://user:word@127.0.0.1:{proxy.port}")
            assert proxy.requests[0].target == "http://api.example/rest/status"
            assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjp3b3Jk"

    def test_a_secure_request_goes_through_a_tunnel(self, tmp_path: Path) -> None:
        echo = answering_with(lambda request: {"data": request.target})
        with (
            scripted_server(echo, certificate=certificate()) as server,
            scripted_server(tunnelling_to(server.port)) as proxy,
        ):
            reply = exchange(server.url, tmp_path, proxy=f"http://127.0.0.1:{proxy.port}")
            assert proxy.requests[0].target == f"127.0.0.1:{server.port}"
        assert reply.content == b'{"data": "/rest/status"}'
        assert "authorization" not in proxy.requests[0].headers

    def test_a_proxy_that_speaks_tls_itself_works_too(self, tmp_path: Path) -> None:
        with (
            scripted_server(answering(200, DONE), certificate=certificate()) as server,
            scripted_server(tunnelling_to(server.port), certificate=certificate()) as proxy,
        ):
            assert exchange(server.url, tmp_path, proxy=proxy.url.removesuffix("/rest")).status == 200

    def test_a_proxy_that_requires_a_login_is_reported_with_its_key(self, tmp_path: Path) -> None:
        with (
            scripted_server(answering(407, "login")) as proxy,
            pytest.raises(LinkDown, match=r"407.*check api\.proxy"),
        ):
            exchange("https://api.example/rest", tmp_path, proxy=f"http://127.0.0.1:{proxy.port}")

    def test_a_proxy_that_closes_the_connection_is_named(self, tmp_path: Path) -> None:
        with (
            scripted_server(lambda peer: peer.reset()) as proxy,
            pytest.raises(LinkDown, match=r"through the proxy 127\.0\.0\.1"),
        ):
            exchange("https://api.example/rest", tmp_path, proxy=f"http://127.0.0.1:{proxy.port}")


def sockets() -> int:
    places = (place.readlink() for place in Path("/proc/self/fd").iterdir() if place.is_symlink())
    return sum(str(place).startswith("socket:") for place in places)


@pytest.mark.parametrize("secure", [False, True])
def test_closing_leaves_no_socket_of_a_cancelled_request(tmp_path: Path, secure: bool) -> None:
    """Else each reload of the configuration would leave one until the next garbage collection."""
    asked = threading.Event()

    def hear(peer: Peer) -> None:
        peer.read_head()
        asked.set()
        peer.hang()

    before = sockets()
    with scripted_server(hear, certificate=certificate() if secure else None) as server:
        transport = Transport(api(server.url, tmp_path), asked.is_set)
        with pytest.raises(Cancelled) as kept:
            transport.exchange("GET", "/status")
        assert kept.traceback  # keeps the frames of the request alive
        transport.close()
    assert sockets() <= before
