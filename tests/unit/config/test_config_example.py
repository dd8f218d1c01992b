"""The commented `config/vision-ingest.toml` tells the truth about the code."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest
import tomli

from agent.config import (
    Api,
    ClockSettings,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    SpoolSettings,
    UploadSettings,
    Vehicle,
    load,
)
from agent.config.regions import BASE_URLS
from agent.config.schema import schema

EXAMPLE = Path(__file__).parents[3] / "config" / "vision-ingest.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
KEY = re.compile(r"^(?P<inactive># )?(?P<key>[a-z_]+) = (?P<value>.+)$")

SECTIONS: dict[str, type] = {
    "api": Api,
    "vehicle": Vehicle,
    "footage": FootageFolder,
    "limits": Limits,
    "conform": Conform,
    "spool": SpoolSettings,
    "upload": UploadSettings,
    "clock": ClockSettings,
    "log": LogSettings,
}
SCHEMA = schema(EXAMPLE.parent, ("auto",))
KEYS = [(section, key) for section, keys in SCHEMA.items() for key in keys if key != "password"]


def uncommented() -> dict[str, Any]:
    document = tomli.loads(activated(KEY))
    return {**document, "footage": document["footage"][0]}


def activated(lines: re.Pattern[str]) -> str:
    """The file as it is when the "# " before such lines, and before [[footage]], is removed."""
    return "\n".join(
        line.removeprefix("# ") if line == "# [[footage]]" or lines.match(line) else line for line in TEXT.splitlines()
    )


def explanation_of(section: str, key: str) -> str:
    """The comment lines right above the key."""
    below_header = TEXT.partition(f"[{section}]")[2]
    block = next(block for block in below_header.split("\n\n") if re.search(rf"^(# )?{key} = ", block, re.MULTILINE))
    lines = [line for line in block.splitlines() if not KEY.match(line)]
    return " ".join(line.removeprefix("# ") for line in lines)


def default_of(section: str, key: str) -> Any:
    known: dict[str, Field[Any]] = {field.name: field for field in fields(SECTIONS[section])}
    field = known.get(key)
    if field is None:
        return MISSING
    return field.default if field.default_factory is MISSING else field.default_factory()


def test_the_example_is_a_configuration_once_its_required_keys_are_active(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(activated(re.compile("# (region|username|path) = ")))
    config = load(file, environ={"VISION_INGEST_PASSWORD": "hunter2"})
    assert config.footage == (FootageFolder(path=Path("/media/card/DCIM")),)
    assert config.upload == UploadSettings()


def test_the_example_shows_every_key_once_and_no_other() -> None:
    shown = [(section, key) for section, keys in uncommented().items() for key in keys]
    assert sorted(shown) == sorted(KEYS)
    assert len(list(filter(KEY.match, TEXT.splitlines()))) == len(KEYS)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_each_key_shows_its_default_or_says_that_it_has_none(section: str, key: str) -> None:
    shown = SCHEMA[section][key](uncommented()[section][key])
    default = default_of(section, key)
    required = (section, key) in {("api", "region"), ("api", "username"), ("footage", "path")}
    without_default = default is None or default is MISSING
    assert ("Required" in explanation_of(section, key)) == required
    assert ("Example, no default" in explanation_of(section, key)) == (without_default and not required)
    if not without_default:
        assert shown == default
        assert type(shown) is type(default)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_each_key_is_explained_by_a_sentence(section: str, key: str) -> None:
    explanation = explanation_of(section, key)
    assert re.match(r"[A-Z][^.]{20,}", explanation)
    assert explanation.endswith(".")


@pytest.mark.parametrize(("section", "key"), [place for place in KEYS if place[1].endswith("_seconds")])
def test_each_duration_names_its_unit(section: str, key: str) -> None:
    assert "in seconds" in explanation_of(section, key)


def test_nothing_in_the_example_is_active() -> None:
    assert all(value == {} for value in tomli.loads(TEXT).values())


def test_the_regions_are_listed() -> None:
    assert f"One of {' '.join(BASE_URLS)}." in explanation_of("api", "region")


def test_the_words_that_a_key_may_be_are_in_its_explanation() -> None:
    for place, words in {
        ("upload", "mode"): ("bulk", "single"),
        ("upload", "encoding"): ("json", "multipart"),
        ("upload", "confirm"): ("auto", "poll", "answer"),
        ("footage", "after_delivery"): ("keep", "delete"),
        ("clock", "trust"): ("auto", "always"),
        ("log", "level"): ("debug", "info", "warning", "error"),
        ("log", "format"): ("auto", "json", "console"),
    }.items():
        assert all(f'"{word}"' in explanation_of(*place) for word in words)


def test_the_pattern_of_the_example_reads_the_name_of_the_example() -> None:
    shown = SCHEMA["footage"]["pattern"](uncommented()["footage"]["pattern"])
    assert isinstance(shown, re.Pattern)
    name = re.search(r'reads "([^"]+)"', explanation_of("footage", "pattern"))
    assert name is not None
    found = shown.search(name[1])
    assert found is not None
    assert found.groupdict() == {
        "registration": "ABC1234X",
        "camera": "F",
        **{"Y": "2026", "m": "03", "d": "01", "H": "08", "M": "15", "S": "00"},
    }
