"""nginx as an API over TLS that reads and discards every upload, and accepts everything.

Only this double is so cheap that benchmarks measure the client and not the server.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.support.daemon import await_until

# To answer only after the whole body, as the API does, nginx must have kept it: in memory, so that no disk is measured.
MEMORY = Path("/dev/shm")

CONFIG = """
daemon off;
master_process off;
user root;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    log_format times '$msec $request_time $uri';
    access_log {access_log};
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path {place}/bodies;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    scgi_temp_path {place}/scgi;
    uwsgi_temp_path {place}/uwsgi;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {place}/server.pem;
        ssl_certificate_key {place}/server.pem;
        location / {{
            proxy_pass http://unix:{place}/answer.sock;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{place}/answer.sock;
        access_log off;
        default_type application/json;
        location / {{ return 200 '{{"data": []}}'; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Served:
    """When the first byte of an upload arrived and when it was answered: Unix seconds, to the millisecond."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink.

    Args:
        base_url: of the API.
        ca_file: its certificate among as many others as a system has, because a client has to read them all.
        access_log: one line per answered request.
    """

    base_url: str
    ca_file: Path
    access_log: Path

    def uploads(self) -> list[Served]:
        """The uploads answered so far, in order of their answers."""
        served = []
        for line in self.access_log.read_text().splitlines():
            ended, seconds, uri = line.split()
            if "upload" in uri:
                served.append(Served(float(ended) - float(seconds), float(ended)))
        return served


@contextmanager
def sink() -> Iterator[Sink]:
    """Serve within the context."""
    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vision-ingest-sink-", dir=memory) as directory:
        place = Path(directory)
        port = _free_port()
        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(place / "server.pem")
        _write_authorities(authority, place / "ca.pem")
        access_log = place / "access.log"
        config = place / "nginx.conf"
        config.write_text(CONFIG.format(place=place, port=port, access_log=f"{access_log} times"))
        said = place / "said.txt"
        with said.open("wb") as output:
            server = subprocess.Popen(["nginx", "-p", str(place), "-c", str(config)], stderr=output)
        try:
            await_until(lambda: _listens(port) or server.poll() is not None, "nginx listens")
            assert server.poll() is None, said.read_text()
            yield Sink(f"https://127.0.0.1:{port}/rest", place / "ca.pem", access_log)
        finally:
            server.terminate()
            server.wait(timeout=10)


def _write_authorities(authority: trustme.CA, file: Path) -> None:
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    others = system.read_bytes() if system.exists() else b""
    file.write_bytes(others + authority.cert_pem.bytes())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
