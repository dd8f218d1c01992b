"""Single values of the configuration: each reader takes what TOML holds and returns what the program works with.

A reader raises WrongValueError, whose two halves become the message: what is wrong, and what is allowed.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeAlias, get_args, get_type_hints
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

Reader: TypeAlias = Callable[[object], object]

HIGHEST_CAMERA = 255
LONGEST_EXCERPT = 60

# 15 digits hold a petabyte in bytes; Python refuses to turn numbers of thousands of digits into others.
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
    bool: "a yes-or-no value",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
}


class WrongValueError(Exception):
    """A value that cannot be used.

    Args:
        wrong: what is wrong with it, in words that show the value.
        allowed: what may stand there instead.
    """

    def __init__(self, wrong: str, allowed: str) -> None:
        super().__init__(f"{wrong}; {allowed}")
        self.wrong = wrong
        self.allowed = allowed


def as_toml(value: object) -> str:
    """The value as TOML writes it, in plain ASCII (so that a message is safe to print), long ones cut."""
    try:
        written = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or tables a thousand deep
        return "it"
    return written if len(written) <= LONGEST_EXCERPT else f"{written[: LONGEST_EXCERPT - 3]}..."


def closest_match(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that was probably meant, whatever the case; None if none is near."""
    spelled = {candidate.lower(): candidate for candidate in words}
    close = _close_matches(word.lower(), spelled, n=1)
    return spelled[close[0]] if close else None


def _close_matches(word: str, words: Iterable[str], *, n: int, cutoff: float = 0.6) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415  # only for mistakes, and the daemon is to be small

    return get_close_matches(word, list(words), n, cutoff)


def suggestion(word: str, words: Collection[str]) -> str:
    """The half of a message that says which words are allowed, the nearest first."""
    near = closest_match(word, words)
    meant = f"did you mean {as_toml(near)}? " if near else ""
    return f"{meant}allowed: {', '.join(words)}"


def non_empty(value: object) -> str:
    """Text of any kind that is not empty."""
    if not isinstance(value, str):
        raise _wrong_type(value, "allowed is text in quotes")
    if not value.strip():
        raise WrongValueError("it is empty", "give it a value, or remove the line")
    return value


def text(value: object) -> str:
    """Text that is not empty, with nothing invisible in it and no space at either end."""
    written = non_empty(value)
    if written != written.strip() or not written.isprintable():
        raise WrongValueError(
            f"{as_toml(value)} has a space at an end or an invisible character", "allowed is text without them"
        )
    return written


def username(value: object) -> str:
    name = text(value)
    if ":" in name:
        raise WrongValueError("it holds a colon", "allowed is the username alone: HTTP Basic ends it at a colon")
    return name


def password(_value: object) -> str:
    """Always refused: the configuration file is read by people and backups that must not know the password."""
    raise WrongValueError(
        "a password must not stand in this file",
        "put it into a file of its own that only the service can read (mode 600) and name that file in "
        "api.password_file, or hand it over as $VISION_INGEST_PASSWORD; then remove this line",
    )


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "allowed is true or false, without quotes")
    return value


def integer(low: int, high: int, unit: str) -> Callable[[object], int]:
    def read(value: object) -> int:
        allowed = f"allowed is a whole number from {low} to {high} ({unit}), without quotes"
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(value, allowed)
        if not low <= value <= high:
            raise WrongValueError(f"{as_toml(value)} is too {'small' if value < low else 'large'}", allowed)
        return value

    return read


def seconds(low: float, high: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        allowed = f"allowed is a number of seconds from {low:g} to {high:g}, without quotes"
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _wrong_type(value, allowed)
        if not low <= value <= high:
            raise WrongValueError(f"{as_toml(value)} is not between {low:g} and {high:g}", allowed)
        return float(value)

    return read


def size(low: int, high: int) -> Callable[[object], int]:
    """A number of bytes: 50000000, "50 MB" (millions) or "50 MiB" (1,048,576 each)."""

    def read(value: object) -> int:
        allowed = f'allowed is {_bytes(low)} to {_bytes(high)}, written as 8000000, "8 MB" or "8 MiB"'
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            raise _wrong_type(value, allowed)
        if isinstance(value, str):
            written = _SIZE.fullmatch(value.strip())
            if written is None:
                raise WrongValueError(f"{as_toml(value)} is no size", allowed)
            from decimal import Decimal  # noqa: PLC0415  # seldom needed, and the daemon is to be small

            count = int(Decimal(written["number"]) * _UNITS[written["unit"].lower()])
        else:
            count = value
        if not low <= count <= high:
            raise WrongValueError(f"{as_toml(value)} is too {'small' if count < low else 'large'}", allowed)
        return count

    return read


def _bytes(count: int) -> str:
    """A limit in the largest decimal unit that keeps it whole: 50000000 is "50 MB"."""
    for unit in ("TB", "GB", "MB"):
        if count and count % _UNITS[unit.lower()] == 0:
            return f"{count // _UNITS[unit.lower()]} {unit}"
    return f"{count} byte{'' if count == 1 else 's'}"


def one_of(words: Collection[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_type(value, f"allowed: {', '.join(words)} (in quotes)")
        if value not in words:
            raise WrongValueError(f"{as_toml(value)} is not known here", suggestion(value, words))
        return value

    return read


def literal(settings: type, key: str) -> Callable[[object], str]:
    """One of the words that the type of this field lists."""
    return one_of(get_args(get_type_hints(settings)[key]))


def zone(value: object) -> ZoneInfo:
    """A time zone by its IANA name."""
    if not isinstance(value, str):
        raise _wrong_type(value, 'allowed is an IANA time zone in quotes, such as "Africa/Johannesburg" or "UTC"')
    try:
        return ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:  # OSError: the name of a directory of zones, such as "Africa"
        raise WrongValueError(f"there is no time zone {as_toml(value)}", _zones_like(value)) from error


def _zones_like(name: str) -> str:
    """Says which zones were probably meant: alike in spelling, or of that city.

    Zones such as Etc/GMT+2 are never suggested: their sign is inverted (it lies west of Greenwich).
    """
    zones = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/"))
    city = name.rpartition("/")[2].strip().replace(" ", "_").lower()
    likely = [zone for zone in zones if zone.rpartition("/")[2].lower() == city]
    likely += _close_matches(name, zones, n=3, cutoff=0.7)
    if not likely:
        return 'allowed is an IANA time zone such as "Africa/Johannesburg", or "UTC"'
    return f"did you mean {' or '.join(as_toml(zone) for zone in dict.fromkeys(likely[:3]))}?"


def path(folder: Path) -> Callable[[object], Path]:
    """A path; a relative one starts at `folder`, that of the configuration file."""

    def read(value: object) -> Path:
        written = text(value)
        if written.startswith("~"):
            raise WrongValueError(f"{as_toml(value)} starts with ~", "write the whole path: the service has no home")
        return folder / written

    return read


def globs(fewest: int) -> Callable[[object], tuple[str, ...]]:
    """A list of file name patterns such as "*.mp4", at least `fewest`."""

    def read(value: object) -> tuple[str, ...]:
        allowed = 'allowed is a list of file name patterns, such as ["*.mp4", "*.mov"]'
        if not isinstance(value, list):
            raise _wrong_type(value, allowed)
        for name in value:
            if not isinstance(name, str) or not name:
                raise WrongValueError(f"{as_toml(name)} in the list is no file name pattern", allowed)
        if len(value) < fewest:
            raise WrongValueError("the list is empty: no file would ever be taken", allowed)
        return tuple(value)

    return read


camera = integer(0, HIGHEST_CAMERA, "the camera's channel")


def cameras(value: object) -> dict[str, int]:
    """What a file name calls a camera, to the channel that the API knows."""
    if not isinstance(value, dict):
        raise _wrong_type(value, "allowed is a table of names and channels, such as { F = 1, R = 2 }")
    channels = {}
    for name, channel in value.items():
        try:
            channels[str(name)] = camera(channel)
        except WrongValueError as error:
            raise WrongValueError(f"camera {as_toml(name)}: {error.wrong}", error.allowed) from error
    return channels


def _wrong_type(value: object, allowed: str) -> WrongValueError:
    kind = _KINDS.get(type(value), "a date or a time")
    shown = "it" if isinstance(value, (list, dict)) else as_toml(value)
    return WrongValueError(f"{shown} is {kind}", allowed)


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
