"""Addresses in the configuration. A message about one never shows the password that it may hold."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from agent.config.values import WrongValueError, as_toml, non_empty

_CREDENTIALS = re.compile(r"^(\w+://)?.*@", re.DOTALL)


def base_url(value: object) -> str:
    """The root of the API: HTTPS, because the password travels with each request; HTTP only to this machine itself."""
    allowed = 'allowed is an address such as "https://fleetapi-za.cartrack.com/rest"'
    parts = _split(value, ("https", "http"), allowed)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise WrongValueError(
            f"{_shown(parts.geturl())} is not encrypted: the password could be read on the way",
            "write https:// (http:// only reaches this machine itself, such as http://127.0.0.1:8000)",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise WrongValueError(
            f"{_shown(parts.geturl())} holds more than an address", f"{allowed}, without a username, ? or #"
        )
    return parts.geturl().rstrip("/")


def proxy(value: object) -> str:
    """The HTTP proxy that all requests go through; it may hold a username and a password."""
    allowed = 'allowed is an HTTP proxy such as "http://10.0.0.1:3128"'
    return _split(value, ("http", "https"), allowed).geturl()


def webhook_url(value: object) -> str:
    """Where the API sends results: an address that the API, not this machine, can reach."""
    allowed = 'allowed is an address such as "https://fleet.example.com/vision-results"'
    return _split(value, ("https", "http"), allowed).geturl()


def _split(value: object, schemes: tuple[str, ...], allowed: str) -> SplitResult:
    written = non_empty(value)
    wrong = WrongValueError(f"{_shown(written)} is not a web address that can be used here", allowed)
    if " " in written or not written.isprintable():
        raise wrong
    try:
        parts = urlsplit(written)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote a part of the password
        raise wrong from None
    if parts.scheme not in schemes or not whole:
        raise wrong
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: str) -> str:
    return as_toml(_CREDENTIALS.sub(r"\1...@", url))
