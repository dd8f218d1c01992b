"""The declarations of the keys, and what is generated from them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import tomli

from agent.config import Config, FootageFolder, UploadSettings, load
from agent.config.settings import BASE_URLS, SECTIONS, schema

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "config/vision-ingest.toml").read_text(encoding="utf-8")
KEY_LINE = re.compile(r"^# (?P<key>[a-z_]+) = (?P<value>.+)$")
SCHEMA = schema(("auto",))
FIELDS = {
    (section, field.name): field
    for section, settings in SECTIONS.items()
    for field in fields(settings)
    if field.name != "password"
}
each_key = pytest.mark.parametrize(("section", "key"), FIELDS)


def uncommented(lines: re.Pattern[str]) -> str:
    """The commented file with these lines, and [[footage]], made active."""
    return "\n".join(
        line.removeprefix("# ") if line == "# [[footage]]" or lines.match(line) else line for line in TEXT.splitlines()
    )


def shown_values() -> dict[str, Any]:
    document = tomli.loads(uncommented(KEY_LINE))
    return {**document, "footage": document["footage"][0]}


def help_of(section: str, key: str) -> str:
    return str(FIELDS[section, key].metadata["help"])


def default_of(section: str, key: str) -> Any:
    field = FIELDS[section, key]
    return field.default if field.default_factory is MISSING else field.default_factory()


def test_every_field_of_the_configuration_but_the_file_is_a_section() -> None:
    assert ["file", *SECTIONS] == [field.name for field in fields(Config)]
    assert SECTIONS["footage"] is FootageFolder


def test_the_commented_file_and_the_table_of_keys_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "packaging/reference.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_commented_file_shows_every_key_once_and_no_other() -> None:
    shown = [(section, key) for section, keys in shown_values().items() for key in keys]
    assert sorted(shown) == sorted(FIELDS)
    assert len(list(filter(KEY_LINE.match, TEXT.splitlines()))) == len(FIELDS)


def test_the_commented_file_sets_nothing() -> None:
    assert all(value == {} for value in tomli.loads(TEXT).values())


def test_the_commented_file_is_valid_once_its_required_keys_are_active(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(uncommented(re.compile("# (region|username|path) = ")))
    config = load(file, environ={"VISION_INGEST_PASSWORD": "hunter2"})
    assert config.footage == (FootageFolder(path=Path("/media/card/DCIM")),)
    assert config.upload == UploadSettings()


@each_key
def test_a_default_is_what_the_reader_makes_of_its_line_in_the_file(section: str, key: str) -> None:
    shown = SCHEMA[section][key](shown_values()[section][key])
    default = default_of(section, key)
    if default is not MISSING and default is not None:
        assert shown == default
        assert type(shown) is type(default)


@each_key
def test_a_key_has_a_default_or_an_example(section: str, key: str) -> None:
    has_default = default_of(section, key) not in (MISSING, None)
    assert has_default == (FIELDS[section, key].metadata.get("example") == "")


def test_the_required_keys_say_so() -> None:
    required = {place for place in FIELDS if "Required" in help_of(*place)}
    assert required == {("api", "region"), ("api", "username"), ("footage", "path")}


@each_key
def test_a_key_is_explained_by_whole_sentences(section: str, key: str) -> None:
    explanation = help_of(section, key).replace("{allowed}", "Allowed: something.")
    assert re.match(r'["A-Z][^.]{20,}', explanation)
    assert explanation.endswith(".")


@pytest.mark.parametrize(
    ("section", "key"), [place for place in FIELDS if place[1].endswith(("_seconds", "_bytes", "_days"))]
)
def test_a_key_with_a_unit_states_its_range(section: str, key: str) -> None:
    assert "{allowed}" in help_of(section, key)


@pytest.mark.parametrize(("section", "key"), [place for place in FIELDS if "Literal" in str(FIELDS[place].type)])
def test_every_word_that_a_key_allows_is_explained(section: str, key: str) -> None:
    words = re.findall(r"['\"](\w+)['\"]", str(FIELDS[section, key].type))
    assert len(words) >= 2
    assert [word for word in words if f'"{word}"' not in help_of(section, key)] == []


def test_the_example_of_a_pattern_parses_the_file_name_in_its_explanation() -> None:
    pattern = SCHEMA["footage"]["pattern"](shown_values()["footage"]["pattern"])
    assert isinstance(pattern, re.Pattern)
    name = re.search(r'parses "([^"]+)"', help_of("footage", "pattern"))
    assert name is not None
    found = pattern.search(name[1])
    assert found is not None
    assert found.groupdict() == {
        "registration": "ABC1234X",
        "camera": "F",
        **{"Y": "2026", "m": "03", "d": "01", "H": "08", "M": "15", "S": "00"},
    }


def test_every_published_region_has_its_base_url() -> None:
    published = "au bw es hk id ke kh me mw my mz na ng nz ph pl pt rw sa sg sw th tz vn za zm znz zw"
    assert " ".join(BASE_URLS) == published
    assert BASE_URLS["ke"] == "https://fleetapi-ke.karooooo.com/rest"
    assert BASE_URLS["sa"] == "https://fleetapi-sa.karooooo.com/rest"
    assert BASE_URLS["za"] == "https://fleetapi-za.cartrack.com/rest"
    assert BASE_URLS["znz"] == "https://fleetapi-znz.cartrack.com/rest"
    assert sum("cartrack" in url for url in BASE_URLS.values()) == len(BASE_URLS) - 2
