"""The configuration as frozen values; everything past `agent.config` sees only these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo


class Secret:
    """A password that does not show itself in a log, a traceback or a repr."""

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
    base_url: str
    username: str
    password: Secret
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    timezone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    connect_timeout_seconds: float = 30.0
    stall_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Vehicle:
    registration: str | None = None
    camera: int | None = None


@dataclass(frozen=True, slots=True)
class FootageFolder:
    path: Path
    recursive: bool = True
    preset: str = "auto"
    pattern: re.Pattern[str] | None = None
    timezone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    cameras: Mapping[str, int] = field(default_factory=dict, hash=False)
    registration: str | None = None
    include: tuple[str, ...] = ("*.mp4", "*.mov", "*.ts", "*.avi", "*.mkv", "*.dav")
    exclude: tuple[str, ...] = (".*", "*.tmp", "*.part", "*_", "*~*", "FSCK*.REC")
    settle_seconds: float = 5.0
    rescan_seconds: float = 60.0
    after_delivery: Literal["keep", "delete"] = "keep"


@dataclass(frozen=True, slots=True)
class Limits:
    max_bytes: int = 50_000_000
    max_seconds: int = 300


@dataclass(frozen=True, slots=True)
class Conform:
    enabled: bool = True
    audio: Literal["keep", "drop"] = "keep"
    reencode: bool = False


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    directory: Path = Path("/var/lib/vision-ingest")
    max_bytes: int = 8_000_000_000
    min_free_bytes: int = 500_000_000
    remember_days: int = 30


@dataclass(frozen=True, slots=True)
class UploadSettings:
    mode: Literal["bulk", "single"] = "bulk"
    encoding: Literal["json", "multipart"] = "json"
    batch_clips: int = 20
    batch_bytes: int = 200_000_000
    request_seconds: float = 60.0
    vehicles: int = 1000
    linger_seconds: float = 2.0
    attempts: int = 5
    webhook_url: str | None = None
    confirm: Literal["auto", "poll", "answer"] = "auto"


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


@dataclass(frozen=True, slots=True)
class ClockSettings:
    trust: Literal["auto", "always"] = "auto"


@dataclass(frozen=True, slots=True)
class Config:
    file: Path
    api: Api
    vehicle: Vehicle
    footage: tuple[FootageFolder, ...]
    limits: Limits
    conform: Conform
    spool: SpoolSettings
    upload: UploadSettings
    log: LogSettings
    clock: ClockSettings = ClockSettings()
