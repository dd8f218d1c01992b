"""Readers of single configuration values: each takes what TOML holds and returns what the program works with.

A reader raises WrongValueError, which says what is wrong with the value and what is allowed instead.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

Reader: TypeAlias = Callable[[object], object]
Number = TypeVar("Number", int, float)

HIGHEST_CAMERA = 255
MAX_EXCERPT_LENGTH = 60

# 15 digits hold a petabyte in bytes; Python refuses to convert numbers of thousands of digits.
_SIZE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,15})?) ?(?P<unit>[kMGT]i?B|B)", re.IGNORECASE | re.ASCII)
_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    list: "a list",
    dict: "a table",
}
_CREDENTIALS = re.compile(r"^(\w+://)?.*@", re.DOTALL)


class WrongValueError(Exception):
    """A value that cannot be used.

    Args:
        wrong: what is wrong with it; shows the value, unless it may be a secret.
        allowed: what is allowed instead, or what to do.
    """

    def __init__(self, wrong: str, allowed: str) -> None:
        super().__init__(f"{wrong}; {allowed}")
        self.wrong = wrong
        self.allowed = allowed


def as_toml(value: object) -> str:
    """The value in TOML notation for a message: ASCII only, so that it is safe to print, and cut if it is long."""
    try:
        written = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or tables nested a thousand deep
        return "it"
    return written if len(written) <= MAX_EXCERPT_LENGTH else f"{written[: MAX_EXCERPT_LENGTH - 3]}..."


def closest_match(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant, ignoring case; None if none is similar."""
    spelled = {candidate.lower(): candidate for candidate in words}
    close = _close_matches(word.lower(), spelled, n=1)
    return spelled[close[0]] if close else None


def _close_matches(word: str, words: Iterable[str], *, n: int, cutoff: float = 0.6) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415  # needed only for errors: saves memory in the daemon

    return get_close_matches(word, list(words), n, cutoff)


def suggestion(word: str, words: Collection[str], allowed: str = "") -> str:
    """The part of a message that lists the allowed words, after the one that was probably meant.

    Args:
        allowed: how to describe the allowed words; empty means to list them.
    """
    near = closest_match(word, words)
    meant = f"did you mean {as_toml(near)}? " if near else ""
    return f"{meant}allowed: {allowed or ', '.join(words)}"


def non_empty(value: object) -> str:
    """Any text that is not blank."""
    if not isinstance(value, str):
        raise _wrong_type(value, "allowed: text in quotes")
    if not value.strip():
        raise WrongValueError("it is empty", "give it a value, or remove the line")
    return value


def text(value: object) -> str:
    """Text that is not blank, without invisible characters, leading or trailing spaces."""
    written = non_empty(value)
    if written != written.strip() or not written.isprintable():
        raise WrongValueError(
            f"{as_toml(value)} has an invisible character, or a space at an end", "allowed: text without them"
        )
    return written


def username(value: object) -> str:
    name = text(value)
    if ":" in name:
        raise WrongValueError(
            "it contains a colon", "allowed: the username alone (in HTTP Basic, a colon starts the password)"
        )
    return name


def password(_value: object) -> str:
    """Always refused: people and backups read the configuration file, and must not learn the password."""
    raise WrongValueError(
        "the password must not be in this file",
        "put it into a file of its own that only the service can read (mode 600) and name that file in "
        "api.password_file, or set $VISION_INGEST_PASSWORD; then remove this line",
    )


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "allowed: true or false, without quotes")
    return value


def integer(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        allowed = f"allowed: a whole number from {low} to {high}"
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(value, allowed)
        return _in_range(value, value, low, high, allowed)

    return read


def seconds(low: float, high: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        allowed = f"allowed: a number of seconds from {low:g} to {high:g}"
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _wrong_type(value, allowed)
        return float(_in_range(value, value, low, high, allowed))

    return read


def size(low: int, high: int) -> Callable[[object], int]:
    """A number of bytes: 50000000, "50 MB" (millions) or "50 MiB" (1,048,576 each)."""

    def read(value: object) -> int:
        allowed = f'allowed: {size_text(low)} to {size_text(high)}, written as 8000000, "8 MB" or "8 MiB"'
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            raise _wrong_type(value, allowed)
        if isinstance(value, int):
            return _in_range(value, value, low, high, allowed)
        written = _SIZE.fullmatch(value.strip())
        if written is None:
            raise WrongValueError(f"{as_toml(value)} is not a size", allowed)
        from decimal import Decimal  # noqa: PLC0415  # rarely needed: saves memory in the daemon

        count = int(Decimal(written["number"]) * _UNITS[written["unit"].lower()])
        return _in_range(value, count, low, high, allowed)

    return read


def _in_range(written: object, number: Number, low: float, high: float, allowed: str) -> Number:
    """The number, unless it is NaN or outside of its range; `written` is what a message shows."""
    if not low <= number <= high:
        raise WrongValueError(f"{as_toml(written)} is out of range", allowed)
    return number


def size_text(count: int) -> str:
    """A number of bytes in the largest decimal unit that keeps it whole: 50000000 is "50 MB"."""
    for unit in ("TB", "GB", "MB"):
        if count and count % _UNITS[unit.lower()] == 0:
            return f"{count // _UNITS[unit.lower()]} {unit}"
    return f"{count} byte{'' if count == 1 else 's'}"


def one_of(words: Collection[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_type(value, f"allowed: {', '.join(words)} (in quotes)")
        if value not in words:
            raise WrongValueError(f"{as_toml(value)} is unknown", suggestion(value, words))
        return value

    return read


def zone(value: object) -> ZoneInfo:
    """A time zone by its IANA name."""
    if not isinstance(value, str):
        raise _wrong_type(value, 'allowed: an IANA time zone such as "Africa/Johannesburg" or "UTC"')
    try:
        return ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:  # OSError: the name of a directory of zones, such as "Africa"
        raise WrongValueError(f"there is no time zone {as_toml(value)}", _similar_zones(value)) from error


def _similar_zones(name: str) -> str:
    """Suggests zones that are spelled similarly, or are named after that city.

    Zones such as Etc/GMT+2 are never suggested: their sign is inverted (it is west of Greenwich).
    """
    zones = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/"))
    city = name.rpartition("/")[2].strip().replace(" ", "_").lower()
    likely = [zone for zone in zones if zone.rpartition("/")[2].lower() == city]
    likely += _close_matches(name, zones, n=3, cutoff=0.7)
    if not likely:
        return 'allowed: an IANA time zone such as "Africa/Johannesburg" or "UTC"'
    return f"did you mean {' or '.join(as_toml(zone) for zone in dict.fromkeys(likely[:3]))}?"


def path(value: object) -> Path:
    written = text(value)
    if written.startswith("~"):
        raise WrongValueError(
            f"{as_toml(value)} starts with ~", "write the whole path: the service has no home directory"
        )
    return Path(written)


def globs(min_length: int) -> Callable[[object], tuple[str, ...]]:
    """A list of at least `min_length` file name patterns such as "*.mp4"."""

    def read(value: object) -> tuple[str, ...]:
        allowed = 'allowed: a list of file name patterns, such as ["*.mp4", "*.mov"]'
        if not isinstance(value, list):
            raise _wrong_type(value, allowed)
        for name in value:
            if not isinstance(name, str) or not name:
                raise WrongValueError(f"{as_toml(name)} in the list is not a file name pattern", allowed)
        if len(value) < min_length:
            raise WrongValueError("the list is empty: no file would match", allowed)
        return tuple(value)

    return read


camera = integer(0, HIGHEST_CAMERA)


def cameras(value: object) -> dict[str, int]:
    """Camera channels, by the name that file names use for the camera."""
    if not isinstance(value, dict):
        raise _wrong_type(value, "allowed: a table of names and channels, such as { F = 1, R = 2 }")
    channels = {}
    for name, channel in value.items():
        try:
            channels[str(name)] = camera(channel)
        except WrongValueError as error:
            raise WrongValueError(f"camera {as_toml(name)}: {error.wrong}", error.allowed) from error
    return channels


def base_url(value: object) -> str:
    """The root URL of the API: HTTPS, because each request carries the password; plain HTTP only on loopback."""
    allowed = 'allowed: a URL such as "https://fleetapi-za.cartrack.com/rest"'
    parts = _split(value, allowed)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise WrongValueError(
            f"{_without_credentials(parts.geturl())} is not encrypted: others could read the password",
            "write https:// (http:// is only for this machine itself, such as http://127.0.0.1:8000)",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise WrongValueError(
            f"{_without_credentials(parts.geturl())} contains a username, ? or #", f"{allowed}, without them"
        )
    return parts.geturl().rstrip("/")


def proxy(value: object) -> str:
    """The HTTP proxy of all requests; may contain a username and a password."""
    return _split(value, 'allowed: an HTTP proxy such as "http://10.0.0.1:3128"').geturl()


def webhook_url(value: object) -> str:
    """The URL that the API calls with results; the API must be able to reach it, not this machine."""
    return _split(value, 'allowed: a URL such as "https://fleet.example.com/vision-results"').geturl()


def _split(value: object, allowed: str) -> SplitResult:
    written = non_empty(value)
    wrong = WrongValueError(f"{_without_credentials(written)} is not an http:// or https:// URL", allowed)
    if " " in written or not written.isprintable():
        raise wrong
    try:
        parts = urlsplit(written)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote a part of the password
        raise wrong from None
    if parts.scheme not in ("https", "http") or not has_host:
        raise wrong
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_credentials(url: str) -> str:
    return as_toml(_CREDENTIALS.sub(r"\1...@", url))


def _wrong_type(value: object, allowed: str) -> WrongValueError:
    kind = _KINDS.get(type(value), "a date or a time")
    shown = "it" if isinstance(value, (list, dict)) else as_toml(value)
    return WrongValueError(f"{shown} is {kind}", allowed)
