"""Why a request did not get an answer, in a technician's words: what is wrong, and what to do about it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

import requests
from urllib3.exceptions import LocationValueError, NameResolutionError, ProxyError

# OpenSSL's numbers of what is wrong with a certificate (x509_vfy.h), as SSLCertVerificationError has them.
NOT_YET_VALID = 9
EXPIRED = 10
OTHER_NAME = (62, 64)

# The first kind that is among the causes decides.
_SENTENCES: tuple[tuple[type[BaseException], str], ...] = (
    (NameResolutionError, "the name cannot be resolved: is there mobile data, and a name server (DNS)?"),
    (ConnectionRefusedError, "the connection is refused: is the address right, and the way there open?"),
    (ProxyError, "the proxy does not connect ({root}): check api.proxy"),
    (requests.ConnectTimeout, "no connection within the time allowed: is there mobile data?"),
    (requests.Timeout, "no answer within the time allowed"),
    (ssl.SSLError, "the encrypted connection failed: {root}"),
    (BaseException, "no whole answer came: {root}"),
)
_ABOUT_THE_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    LocationValueError,
    UnicodeError,  # a host name that cannot be one
)


def diagnose(error: BaseException, where: str) -> str:
    """The sentence for an error of `requests`, urllib3, ssl or a socket.

    Args:
        where: the server, as the technician knows it; the sentence shows no other address.
    """
    causes = tuple(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{where}: {_about_certificate(cause)}"
    sentence = next(words for kind, words in _SENTENCES if any(isinstance(cause, kind) for cause in causes))
    return f"{where}: {sentence.format(root=_root(causes))}"


def is_invalid_address(error: BaseException) -> bool:
    """Whether no network was tried because the URL itself, or the proxy's, cannot be one."""
    return any(isinstance(cause, _ABOUT_THE_ADDRESS) for cause in _causes(error))


def _about_certificate(error: ssl.SSLCertVerificationError) -> str:
    clock = f"this device's clock says {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    if error.verify_code == NOT_YET_VALID:
        return f"the server's certificate is not valid yet: {clock}; is it behind? Set it"
    if error.verify_code == EXPIRED:
        return f"the server's certificate has expired, unless the clock is ahead: {clock}"
    if error.verify_code in OTHER_NAME:
        return "the server's certificate is for another name: wrong address, or something answers in the API's place"
    return (
        f"the server's certificate is not trusted ({error.verify_message}): something answers in the API's place, or "
        f"the network has a CA of its own: name its file in api.ca_file"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came from: the libraries wrap each other's, in three different ways."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]


def _root(causes: Sequence[BaseException]) -> str:
    """The words of the system's own error, if there is one; else of the innermost."""
    system = [cause for cause in causes if isinstance(cause, OSError)]
    own = [cause for cause in system if not isinstance(cause, requests.RequestException)]
    cause = (own or causes)[-1]
    return str(cause) or type(cause).__name__
