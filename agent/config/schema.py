"""Every key that the configuration may hold, and how it is read. Defaults are those of `agent.config.settings`.

A new key is a field there and a line here; the commented `config/vision-ingest.toml` explains it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeAlias

from agent.config.patterns import pattern
from agent.config.regions import BASE_URLS
from agent.config.settings import ClockSettings, Conform, FootageFolder, LogSettings, UploadSettings
from agent.config.values import (
    Reader,
    base_url,
    camera,
    cameras,
    flag,
    globs,
    integer,
    literal,
    one_of,
    password,
    path,
    proxy,
    seconds,
    size,
    text,
    username,
    webhook_url,
    zone,
)

Schema: TypeAlias = Mapping[str, Mapping[str, Reader]]

TB = 10**12


def schema(folder: Path, presets: Collection[str]) -> Schema:
    """The readers of all keys, by section.

    Args:
        folder: where relative paths start.
        presets: the names that `footage.preset` may have.
    """
    return {
        "api": {
            "region": one_of(BASE_URLS),
            "base_url": base_url,
            "username": username,
            "password": password,
            "password_file": path(folder),
            "ca_file": path(folder),
            "proxy": proxy,
            "timezone": zone,
            "connect_timeout_seconds": seconds(1, 300),
            "stall_timeout_seconds": seconds(1, 3600),
        },
        "vehicle": {
            "registration": text,
            "camera": camera,
        },
        "footage": {
            "path": path(folder),
            "recursive": flag,
            "preset": one_of(presets),
            "pattern": pattern,
            "timezone": zone,
            "cameras": cameras,
            "registration": text,
            "include": globs(fewest=1),
            "exclude": globs(fewest=0),
            "settle_seconds": seconds(0, 3600),
            "rescan_seconds": seconds(0.1, 86_400),
            "after_delivery": literal(FootageFolder, "after_delivery"),
        },
        "limits": {
            "max_bytes": size(1, 50_000_000),
            "max_seconds": integer(1, 300, "seconds"),
        },
        "conform": {
            "enabled": flag,
            "audio": literal(Conform, "audio"),
            "reencode": flag,
        },
        "spool": {
            "directory": path(folder),
            "max_bytes": size(1, 100 * TB),
            "min_free_bytes": size(0, 100 * TB),
            "remember_days": integer(1, 3650, "days"),
        },
        "upload": {
            "mode": literal(UploadSettings, "mode"),
            "encoding": literal(UploadSettings, "encoding"),
            "batch_clips": integer(1, 100, "clips in one request"),
            "batch_bytes": size(1, 10 * 10**9),
            "request_seconds": seconds(1, 3600),
            "vehicles": integer(1, 1_000_000, "vehicles"),
            "linger_seconds": seconds(0, 3600),
            "attempts": integer(1, 100, "attempts"),
            "webhook_url": webhook_url,
            "confirm": literal(UploadSettings, "confirm"),
        },
        "clock": {
            "trust": literal(ClockSettings, "trust"),
        },
        "log": {
            "level": literal(LogSettings, "level"),
            "format": literal(LogSettings, "format"),
        },
    }
