"""Shared by tests of the API client: an account, a trusted certificate, stored clips, responding servers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme

from agent.config import Api, Secret
from agent.model import ClipKey, Upload
from tests.support.scripted_server import Peer, Request, Script

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
PASSWORD = "correct-horse-бук"
API_ERROR = {"error": {"code": 0, "message": "the server's words"}}


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def certificate(**validity: Any) -> trustme.LeafCert:
    """A certificate for 127.0.0.1 that clients made by `api` trust."""
    return authority().issue_cert("127.0.0.1", **validity)


def api(base_url: str, folder: Path, **changes: Any) -> Api:
    """An account at this address, with timeouts longer than a busy machine needs."""
    ca_file = folder / "ca.pem"
    authority().cert_pem.write_to_path(str(ca_file))
    settings = {"connect_timeout_seconds": 60.0, "stall_timeout_seconds": 60.0, "ca_file": ca_file, **changes}
    return Api(base_url, "account", Secret(PASSWORD), **settings)


def backdate(file: Path) -> None:
    """Date a file an hour back, as footage is when it is stored.

    File timestamps have a resolution of some milliseconds: a later write could otherwise leave the date unchanged.
    """
    written = file.stat().st_mtime_ns - 3600 * 10**9
    os.utime(file, ns=(written, written))


def stored_clip(folder: Path, content: bytes = b"\x00\x01footage", **changes: Any) -> Upload:
    """A clip whose file is in the folder."""
    file = folder / f"{changes.get('id', 1)}.clip"
    file.write_bytes(content)
    backdate(file)
    return upload_of(file, **changes)


def upload_of(
    file: Path,
    *,
    id: int = 1,
    registration: str = "ABC1234X",
    camera: int = 1,
    start: datetime = START,
    seconds: int = 60,
    comments: str = "",
) -> Upload:
    """A clip that is being uploaded from an existing file."""
    video = ClipKey(registration, camera, start, start + timedelta(seconds=seconds))
    stat = file.stat()
    return Upload(id, video, comments, file, stat.st_size, stat.st_mtime_ns)


def answering(
    status: int, payload: object, headers: Mapping[str, str] | None = None, *, closing: bool = False
) -> Script:
    """Respond to every request in the same way."""
    return answering_with(lambda _request: payload, status, headers, closing=closing)


def answering_with(
    payload: Callable[[Request], object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    closing: bool = False,
) -> Script:
    """Respond to each request with what `answer` makes of it; close the connection after the first if `closing`."""

    def script(peer: Peer) -> None:
        while True:
            peer.answer(status, payload(peer.read_request()), headers)
            if closing:
                return

    return script
