"""The configuration as frozen values, and the one declaration of every key: type, default, reader, help and example.

A field of a section's class is a key of that section. The loader, the suggestions for unknown keys, the commented
config/vision-ingest.toml, the table in docs/configuration.md and the manual page are all made from these fields;
`packaging/reference.py` writes the last three.
"""

# ruff: noqa: RUF009  # the calls make fields, which dataclasses copy

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints
from zoneinfo import ZoneInfo

from agent.config import patterns, values
from agent.config.values import Reader

Schema: TypeAlias = Mapping[str, Mapping[str, Reader]]
Value = TypeVar("Value")

_GB, _TB = 10**9, 10**12

_COUNTRIES = "au bw es hk id ke kh me mw my mz na ng nz ph pl pt rw sa sg sw th tz vn za zm znz zw".split()  # noqa: SIM905
BASE_URLS: Mapping[str, str] = {
    country: f"https://fleetapi-{country}.{'karooooo' if country in ('ke', 'sa') else 'cartrack'}.com/rest"
    for country in _COUNTRIES
}
"""The base URL of the Fleet API by country (the vendor's public reference, spec 1.26.0622.1)."""


def key(read: Reader | None, help: str, example: str = "") -> dict[str, Any]:
    """What a field needs to be a key.

    Args:
        read: checks and converts what TOML holds; None if the field's type is a Literal: one of its words.
        help: the explanation in the documentation, of whole sentences; "{allowed}" stands for what the reader allows;
            empty hides the key.
        example: a value as TOML writes it, shown where there is no default.
    """
    return {"read": read, "help": help, "example": example}


def setting(
    default: Value, read: Callable[[object], Value] | None, help: str, example: str = "", **options: Any
) -> Value:
    """A key with a default; `options` are those of `dataclasses.field`. See `key` for the other arguments."""
    return field(default=default, metadata=key(read, help, example), **options)


class Secret:
    """A password that does not appear in logs, tracebacks or its repr."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The password itself: call this only where it goes into a request."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Api:
    """The account of the Fleet API, and how to reach it."""

    # Found by position after the required ones, but documented first.
    region: str | None = field(
        default=None,
        kw_only=True,
        metadata=key(
            values.one_of(BASE_URLS),
            "Country of the Fleet API account. Required, unless base_url is set. {allowed} The API answers a wrong "
            "country like a wrong password (HTTP 401).",
            '"za"',
        ),
    )
    base_url: str = field(
        metadata=key(
            values.base_url,
            "URL of the API, instead of region: for a country that is not listed, or for `vision-ingest simulate`. "
            "It must start with https://, except on this machine itself.",
            '"https://fleetapi-za.cartrack.com/rest"',
        )
    )
    username: str = field(
        metadata=key(values.username, "Username of the Fleet API account. Required.", '"YOUR-USERNAME"')
    )
    password: Secret = field(metadata=key(values.password, ""))
    password_file: Path | None = setting(
        None,
        values.path,
        "File that contains the password in one line, readable only by the service's user (mode 600). The password is "
        'taken from the first of these that exists: the systemd credential "api-password", this file, the environment '
        "variable VISION_INGEST_PASSWORD.",
        '"/etc/vision-ingest/api-password"',
    )
    ca_file: Path | None = setting(
        None,
        values.path,
        "CA certificates (one PEM file) to verify the API's certificate against, for networks with a certificate "
        "authority of their own. If not set: the system's CA certificates.",
        '"/etc/ssl/certs/ca-certificates.crt"',
    )
    proxy: str | None = setting(
        None,
        values.proxy,
        "HTTP proxy for all requests. If not set: none; the environment variable http_proxy is ignored.",
        '"http://10.0.0.1:3128"',
        repr=False,  # may contain a password
    )
    timezone: ZoneInfo = setting(ZoneInfo("UTC"), values.zone, "Time zone of the API's timestamps. {allowed}")
    connect_timeout_seconds: float = setting(
        30.0,
        values.seconds(1, 300),
        "Timeout for one attempt to connect to the API. {allowed} Below 30 seconds, slow links are given up too early.",
    )
    stall_timeout_seconds: float = setting(
        60.0,
        values.seconds(1, 3600),
        "A transfer is aborted when no data has moved for this time; a slow transfer that still moves goes on. "
        "{allowed}",
    )


@dataclass(frozen=True, slots=True)
class Vehicle:
    """The vehicle that this device is installed in."""

    registration: str | None = setting(
        None,
        values.text,
        "Registration of the vehicle as the account knows it, for footage that does not name one itself.",
        '"ABC1234X"',
    )
    camera: int | None = setting(
        None, values.camera, "Camera channel for footage that does not name one itself. {allowed}", "1"
    )


@dataclass(frozen=True, slots=True)
class FootageFolder:
    """A folder that cameras write to; repeat the section for further folders. At least one is required."""

    path: Path = field(
        metadata=key(
            values.path,
            "Folder that the camera writes to. Required. It need not exist when the service starts, for example on a "
            "card that is mounted later.",
            '"/media/card/DCIM"',
        )
    )
    recursive: bool = setting(True, values.flag, "Whether subfolders are watched too.")
    preset: str = setting(
        "auto",
        values.text,  # the loader allows the presets that the intake knows
        'How file names of this recorder are parsed: "auto" tries all presets, a name uses only that preset. {allowed} '
        "`vision-ingest inspect FOLDER` shows the result for a folder.",
    )
    pattern: re.Pattern[str] | None = setting(
        None,
        patterns.pattern,
        "Regular expression for file names that no preset parses, instead of preset. It matches anywhere in the path "
        "below the folder and ignores case. Named groups: registration, camera, start, event, and the time as Y (or "
        'y, two digits) m d H M S. The example parses "ABC1234X_F_20260301-081500.mp4", with cameras = { F = 1 }.',
        r"'(?P<registration>[A-Z0-9]+)_(?P<camera>[FR])_(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)"
        r"-(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)'",
    )
    timezone: ZoneInfo = setting(ZoneInfo("UTC"), values.zone, "Time zone of the camera's clock. {allowed}")
    cameras: Mapping[str, int] = field(
        default_factory=dict,
        hash=False,
        metadata=key(values.cameras, "Camera channel for each camera name that appears in file names. {allowed}"),
    )
    registration: str | None = setting(
        None,
        values.text,
        "Registration of the vehicle for footage of this folder that does not name one itself. If not set: the one of "
        "[vehicle].",
        '"ABC1234X"',
    )
    include: tuple[str, ...] = setting(
        ("*.mp4", "*.mov", "*.ts", "*.avi", "*.mkv", "*.dav"),
        values.globs(min_length=1),
        "File names to take, as patterns with * and ?, case-insensitive. Proxy files (small copies of a recording) "
        "that the preset knows are left out. *.dav is included so that such files are listed, with what to change on "
        "the recorder.",
    )
    exclude: tuple[str, ...] = setting(
        (".*", "*.tmp", "*.part", "*_", "*~*", "FSCK*.REC"),
        values.globs(min_length=0),
        "File names to leave alone although `include` matches them. The default excludes hidden, unfinished and "
        "repaired files.",
    )
    settle_seconds: float = setting(
        5.0,
        values.seconds(0, 3600),
        "A file is taken as finished when its size and modification time have not changed for this time. {allowed}",
    )
    rescan_seconds: float = setting(
        60.0,
        values.seconds(0.1, 86_400),
        "Interval between scans of the whole folder, which find what file system events missed. {allowed}",
    )
    after_delivery: Literal["keep", "delete"] = setting(
        "keep", None, 'What happens to a delivered file: "keep" leaves it to the recorder, "delete" deletes it.'
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest clip to deliver. The API accepts no clip beyond the defaults."""

    max_bytes: int = setting(50_000_000, values.size(1, 50_000_000), "Maximum size of a clip. {allowed}")
    max_seconds: int = setting(300, values.integer(1, 300), "Maximum duration of a clip, in seconds. {allowed}")


@dataclass(frozen=True, slots=True)
class Conform:
    """What to do with footage that does not fit. All of it needs ffmpeg (sudo apt install ffmpeg)."""

    enabled: bool = setting(
        True,
        values.flag,
        "Whether footage that is too large, too long or not MP4 is cut or repacked into clips that fit, without "
        "re-encoding the video. If false, such footage is refused.",
    )
    audio: Literal["keep", "drop"] = setting(
        "keep", None, 'Audio that MP4 cannot contain, such as PCM: "keep" converts it to AAC, "drop" removes it.'
    )
    reencode: bool = setting(
        False,
        values.flag,
        "Whether video that the API does not accept, such as H.265, is re-encoded as H.264. If false, such footage is "
        "refused. Re-encoding needs many times the CPU time of everything else and costs quality: better set the "
        "camera to H.264.",
    )


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where clips wait for delivery."""

    directory: Path = setting(
        Path("/var/lib/vision-ingest"),
        values.path,
        "Directory for waiting clips, used by nothing but this service. On the file system of the footage, clips take "
        "no additional space, because they are hard links.",
    )
    max_bytes: int = setting(
        8 * _GB,
        values.size(1, 100 * _TB),
        "Maximum space for waiting clips, at least limits.max_bytes. {allowed}",
    )
    min_free_bytes: int = setting(
        500_000_000, values.size(0, 100 * _TB), "Space that always stays free on the spool's disk. {allowed}"
    )
    remember_days: int = setting(
        30,
        values.integer(1, 3650),
        "How many days a delivered clip is remembered after its footage is gone. {allowed}",
    )


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """How clips are sent."""

    mode: Literal["bulk", "single"] = setting(
        "bulk", None, '"bulk" sends several clips in one request, "single" sends one.'
    )
    encoding: Literal["json", "multipart"] = setting(
        "json",
        None,
        'Format of a bulk request: "json" is what the API\'s reference describes, "multipart" saves the third that '
        "base64 adds.",
    )
    batch_clips: int = setting(20, values.integer(1, 100), "Maximum number of clips in one request. {allowed}")
    batch_bytes: int = setting(
        200_000_000,
        values.size(1, 10 * _GB),
        "Maximum total size of the clips in one request, at least limits.max_bytes. {allowed}",
    )
    request_seconds: float = setting(
        60.0,
        values.seconds(1, 3600),
        "Target duration of one request: the batch adapts to the speed of the link, from one clip up to the two limits "
        "above, so that a broken link loses no more than this time. {allowed}",
    )
    vehicles: int = setting(
        1000,
        values.integer(1, 1_000_000),
        "Number of vehicles that share the account, and with it the API's limit of 1000 requests a minute. After an "
        "outage, or when the API reports too many requests, each vehicle keeps to its share. {allowed}",
    )
    linger_seconds: float = setting(
        2.0, values.seconds(0, 3600), "How long a new clip waits for others to share its request. {allowed}"
    )
    attempts: int = setting(
        5,
        values.integer(1, 100),
        "A clip is refused after this number of failures of its own; a bad link never counts. {allowed}",
    )
    webhook_url: str | None = setting(
        None,
        values.webhook_url,
        "URL that the API calls with the result of each clip. It must be reachable from the internet.",
        '"https://fleet.example.com/vision-results"',
    )
    confirm: Literal["auto", "poll", "answer"] = setting(
        "auto",
        None,
        'What counts as delivered: the "answer" to the upload, a later "poll" of the API, or "auto": a poll only where '
        "the answer does not mention a clip.",
    )


@dataclass(frozen=True, slots=True)
class ClockSettings:
    """The clock of this device."""

    trust: Literal["auto", "always"] = setting(
        "auto",
        None,
        'When times from this device\'s clock are trusted. "auto": once it is synchronised over the network, or was '
        "set from a battery-backed clock that agrees; until then, footage recorded by this clock is held, and its "
        'times are corrected when the clock is set. "always": for devices whose clock is right by other means, such '
        "as a GPS receiver.",
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", None, 'Lowest level of the messages to log: "debug", "info", "warning" or "error".'
    )
    format: Literal["auto", "json", "console"] = setting(
        "auto",
        None,
        'Format of messages: "console" for people, "json" for programs, "auto" depends on the output.',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration: a field for each section, in the order of the documentation."""

    file: Path
    api: Api
    vehicle: Vehicle = Vehicle()
    footage: tuple[FootageFolder, ...]
    limits: Limits = Limits()
    conform: Conform = Conform()
    spool: SpoolSettings = SpoolSettings()
    upload: UploadSettings = UploadSettings()
    clock: ClockSettings = ClockSettings()
    log: LogSettings = LogSettings()


SECTIONS: Mapping[str, type] = {
    name: (*get_args(hint), hint)[0] for name, hint in get_type_hints(Config).items() if name != "file"
}
"""The class of each section by its name."""


def schema(presets: Collection[str]) -> Schema:
    """The readers of all keys, by section.

    Args:
        presets: the allowed values of `footage.preset`.
    """
    readers = {name: _readers(section) for name, section in SECTIONS.items()}
    readers["footage"]["preset"] = values.one_of(presets)
    return readers


def _readers(section: type) -> dict[str, Reader]:
    hints = get_type_hints(section)
    return {key.name: key.metadata["read"] or values.one_of(get_args(hints[key.name])) for key in fields(section)}
