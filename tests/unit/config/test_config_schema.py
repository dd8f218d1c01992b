from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from agent.config import (
    Api,
    Config,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    SpoolSettings,
    UploadSettings,
    Vehicle,
)
from agent.config.schema import schema

SCHEMA = schema(Path("/etc/vision-ingest"), ("auto",))


def test_every_field_of_the_configuration_is_a_section() -> None:
    assert set(SCHEMA) == {field.name for field in fields(Config)} - {"file"}


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("vehicle", Vehicle),
        ("footage", FootageFolder),
        ("limits", Limits),
        ("conform", Conform),
        ("spool", SpoolSettings),
        ("upload", UploadSettings),
        ("log", LogSettings),
    ],
)
def test_every_field_of_a_section_is_a_key(section: str, settings: type) -> None:
    assert set(SCHEMA[section]) == {field.name for field in fields(settings)}


def test_the_api_is_also_found_by_region_and_its_password_in_a_file() -> None:
    assert set(SCHEMA["api"]) == {field.name for field in fields(Api)} | {"region", "password_file"}
