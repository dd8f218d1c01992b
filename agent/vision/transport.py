"""One request and its answer, over one connection that is kept: HTTP as this program needs it.

`requests` does the protocol. What it would take from the environment is turned off: REQUESTS_CA_BUNDLE overrides the
CA file, .netrc overrides the credentials, and HTTPS_PROXY diverts both.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from agent import __version__
from agent.config import Api
from agent.errors import Cancelled, EndpointNotFound, LinkDown
from agent.vision.connection import StallAwareAdapter, StallGuard
from agent.vision.diagnosis import diagnose, is_invalid_address

SYSTEM_CA_FILE = Path("/etc/ssl/certs/ca-certificates.crt")

# The longest answers are lists of a hundred clips, some tens of kilobytes.
MAX_RESPONSE_BYTES = 4 * 1024 * 1024

# Mobile networks forget a connection that is idle for some minutes without telling either end; a request on it would
# stall for the whole timeout.
MAX_IDLE_SECONDS = 30.0


class Body(Protocol):
    """What a large request sends: of exactly known length, and never whole in memory."""

    @property
    def content_type(self) -> str: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer, whoever gave it.

    Args:
        headers: looked up case-insensitively.
        content: at most MAX_ANSWER_BYTES.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Requests to one API, one at a time. `abort` may be called from any thread.

    Args:
        api: where it is, the credentials, and how patient to be.
        stopping: asked several times a second; once it is true, the request under way ends.
    """

    def __init__(self, api: Api, stopping: Callable[[], bool]) -> None:
        self._api = api
        self._base_url = api.base_url.rstrip("/")
        self._guard = StallGuard(api.stall_timeout_seconds, stopping)
        self._used = time.monotonic()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = _ca_file(api)
        self._session.proxies = {"http": api.proxy, "https": api.proxy} if api.proxy else {}
        # The API is asked with credentials each time; a cookie could only come from something in between.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {
                "User-Agent": f"vision-ingest/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            }
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, StallAwareAdapter(self._guard))

    def exchange(
        self,
        method: str,
        path: str,
        *,
        query: Iterable[tuple[str, str]] = (),
        document: object = None,
        body: Body | None = None,
    ) -> HttpResponse:
        """Send one request and read the answer.

        Args:
            path: below the API's base URL, quoted.
            query: names and values.
            document: sent as JSON.
            body: sent as it is; whatever its iteration raises comes out unchanged.

        Raises:
            LinkDown: no whole answer came. Nothing is known of what the server did.
            WrongAddress: the configured address cannot be one.
            Stopped: the daemon is to stop, or `abort` was called.
        """
        self._guard.check()
        if time.monotonic() - self._used > MAX_IDLE_SECONDS:
            self._session.close()
        headers = {}
        data: Any = body
        if body is not None:
            headers["Content-Type"] = body.content_type
        elif document is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(document).encode()
        try:
            with self._session.request(
                method,
                self._base_url + path,
                params=list(query),
                data=data,
                headers=headers,
                auth=_Credentials(self._api),
                timeout=(self._api.connect_timeout_seconds, self._api.stall_timeout_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                return HttpResponse(response.status_code, response.headers, _read_content(response))
        except (requests.RequestException, HTTPError, OSError, ValueError) as exc:
            if self._guard.stopping:
                raise Cancelled("asked to stop") from exc
            if is_invalid_address(exc):
                raise EndpointNotFound(
                    f"{self._route()}: this address cannot be used: check api.region or api.base_url, and api.proxy"
                ) from exc
            raise LinkDown(diagnose(exc, self._route())) from exc
        finally:
            self._used = time.monotonic()

    def abort(self) -> None:
        """End the request under way, at once, with Stopped; later ones end so too. For any thread."""
        self._guard.abort()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
        self._guard.close()

    def _route(self) -> str:
        """The way to the API without what may be secret in a URL."""
        server = _host(self._base_url)
        return f"{server} through the proxy {_host(self._api.proxy)}" if self._api.proxy else server


class _Credentials(AuthBase):
    """HTTP Basic in UTF-8 (`requests` itself encodes Latin-1, and quotes the password if it cannot)."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        pair = f"{self._api.username}:{self._api.password.reveal()}"
        request.headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return request


def _ca_file(api: Api) -> str | bool:
    """The certificates to trust: the configured ones, else the system's, else those that come with `requests`."""
    if api.ca_file is not None:
        return str(api.ca_file)
    return str(SYSTEM_CA_FILE) if SYSTEM_CA_FILE.exists() else True


def _read_content(response: requests.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_content(64 * 1024):
        content += piece
        if len(content) > MAX_RESPONSE_BYTES:
            raise LinkDown("the answer is too long to be the API's")
    return bytes(content)


def _host(url: str) -> str:
    """Host and port of a URL; the URL may hold a password."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or "an address without a host"
