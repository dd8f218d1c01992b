"""Why a request got no response, for a technician: what is wrong and what to do about it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

import requests
from urllib3.exceptions import LocationValueError, NameResolutionError, ProxyError

# OpenSSL's error codes for certificates (x509_vfy.h), as in SSLCertVerificationError.verify_code.
NOT_YET_VALID = 9
EXPIRED = 10
OTHER_NAME = (62, 64)

# The first type that is among the causes decides.
_DIAGNOSES: tuple[tuple[type[BaseException], str], ...] = (
    (NameResolutionError, "the name cannot be resolved: is there mobile data, and a name server (DNS)?"),
    (ConnectionRefusedError, "the connection is refused: is the address right, and does a firewall allow it?"),
    (ProxyError, "the proxy does not connect ({root}): check api.proxy"),
    (requests.ConnectTimeout, "no connection within the connect timeout: is there mobile data?"),
    (requests.Timeout, "no response within the timeout"),
    (ssl.SSLError, "the encrypted connection failed: {root}"),
    (BaseException, "no complete response: {root}"),
)
_INVALID_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    LocationValueError,
    UnicodeError,  # a host name that cannot be one
)


def diagnose(error: BaseException, where: str) -> str:
    """The diagnosis of an error of `requests`, urllib3, ssl or a socket.

    Args:
        where: the server, as the technician knows it; no other address is shown.
    """
    causes = tuple(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{where}: {_about_certificate(cause)}"
    diagnosis = next(text for kind, text in _DIAGNOSES if any(isinstance(cause, kind) for cause in causes))
    return f"{where}: {diagnosis.format(root=_root(causes))}"


def is_invalid_address(error: BaseException) -> bool:
    """Whether the URL, or that of the proxy, is not valid, so that no connection was tried."""
    return any(isinstance(cause, _INVALID_ADDRESS) for cause in _causes(error))


def _about_certificate(error: ssl.SSLCertVerificationError) -> str:
    clock = f"this device's clock says {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    if error.verify_code == NOT_YET_VALID:
        return f"the server's certificate is not valid yet: {clock}; if that is behind, set the clock"
    if error.verify_code == EXPIRED:
        return f"the server's certificate has expired, unless the clock is ahead: {clock}"
    if error.verify_code in OTHER_NAME:
        return "the server's certificate is for another name: wrong address, or not the API's server"
    return (
        f"the server's certificate is not trusted ({error.verify_message}): another server answers instead of "
        f"the API, or the network has a CA of its own: set api.ca_file to its file"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes: the libraries wrap each other's errors in three different ways."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]


def _root(causes: Sequence[BaseException]) -> str:
    """The text of the operating system's error, if there is one; else of the innermost error."""
    system = [cause for cause in causes if isinstance(cause, OSError)]
    own = [cause for cause in system if not isinstance(cause, requests.RequestException)]
    cause = (own or causes)[-1]
    return str(cause) or type(cause).__name__
