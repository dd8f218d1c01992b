"""One request and its response, over one connection that is kept open.

`requests` does HTTP, with all settings from the environment turned off: REQUESTS_CA_BUNDLE would override the CA file,
.netrc the credentials, and HTTPS_PROXY would divert both.
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

# The longest responses are lists of a hundred clips, some tens of kilobytes.
MAX_RESPONSE_BYTES = 4 * 1024 * 1024

# Mobile networks drop idle connections after some minutes without telling either end: a request on one would stall for
# the whole timeout.
MAX_IDLE_SECONDS = 30.0


class Body(Protocol):
    """The body of a large request: of exactly known length, and never complete in memory."""

    @property
    def content_type(self) -> str: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response, of the API or of whatever answers instead of it.

    Args:
        headers: case-insensitive.
        content: at most MAX_ANSWER_BYTES.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Requests to one API, one at a time. Belongs to one thread, except `abort`, which any thread may call.

    Args:
        api: address, credentials and timeouts.
        stopping: called several times a second; once it returns true, the current request ends.
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
        # Every request has credentials: a cookie could only come from something in between.
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
        """Sends one request and reads the response.

        Args:
            path: below the API's base URL, quoted.
            query: names and values.
            document: sent as JSON.
            body: sent as it is; what its iteration raises is not translated.

        Raises:
            LinkDown: no complete response. Nothing is known about what the server did.
            EndpointNotFound: the configured address is not valid.
            Cancelled: the daemon is to stop, or `abort` was called.
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
                    f"{self._route()}: this address is not valid: check api.region or api.base_url, and api.proxy"
                ) from exc
            raise LinkDown(diagnose(exc, self._route())) from exc
        finally:
            self._used = time.monotonic()

    def abort(self) -> None:
        """Ends the current request at once with Cancelled, and every later one. For any thread."""
        self._guard.abort()

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()
        self._guard.close()

    def _route(self) -> str:
        """Server and proxy for error messages, without what may be secret in a URL."""
        server = _host(self._base_url)
        return f"{server} through the proxy {_host(self._api.proxy)}" if self._api.proxy else server


class _Credentials(AuthBase):
    """HTTP Basic in UTF-8 (`requests` encodes Latin-1, and shows the password in the error if it cannot)."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        pair = f"{self._api.username}:{self._api.password.reveal()}"
        request.headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return request


def _ca_file(api: Api) -> str | bool:
    """The trusted certificates: the configured file, else the system's, else those of `requests`."""
    if api.ca_file is not None:
        return str(api.ca_file)
    return str(SYSTEM_CA_FILE) if SYSTEM_CA_FILE.exists() else True


def _read_content(response: requests.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(64 * 1024):
        content += chunk
        if len(content) > MAX_RESPONSE_BYTES:
            raise LinkDown("the response is too long to be from the API")
    return bytes(content)


def _host(url: str) -> str:
    """Host and port of a URL, without a password in it."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or "an address without a host"
