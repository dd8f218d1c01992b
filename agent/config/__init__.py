"""The configuration: TOML files become frozen values, once per start or reload."""

from __future__ import annotations

from agent.config.loading import default_file, load
from agent.config.password import secrets_of
from agent.config.settings import (
    Api,
    ClockSettings,
    Config,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    Secret,
    SpoolSettings,
    UploadSettings,
    Vehicle,
)

__all__ = [
    "Api",
    "ClockSettings",
    "Config",
    "Conform",
    "FootageFolder",
    "Limits",
    "LogSettings",
    "Secret",
    "SpoolSettings",
    "UploadSettings",
    "Vehicle",
    "default_file",
    "load",
    "secrets_of",
]
