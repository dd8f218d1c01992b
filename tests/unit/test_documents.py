"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import tomli

from agent import __version__
from agent.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def keys_of_the_commented_configuration() -> set[tuple[str, str]]:
    section, keys = "", set()
    for line in (ROOT / "config/vision-ingest.toml").read_text().splitlines():
        header = re.fullmatch(r"(?:# )?(\[+\w+\]+)", line)
        key = re.match(r"(?:# )?([a-z_]+) = ", line)
        if header:
            section = header[1]
        elif key and section:
            keys.add((section, key[1]))
    return keys


def test_the_readme_explains_every_key_and_no_other() -> None:
    rows = set(re.findall(r"^\| `(\[+\w+\]+)` \| `(\w+)` \|", README, re.MULTILINE))
    assert rows == keys_of_the_commented_configuration()


def test_the_readme_names_every_command() -> None:
    commands = README.split("## Commands")[1].split("##")[0]
    assert [command for command in COMMANDS if f"`{command}" not in commands] == []


def test_the_smallest_configuration_of_the_readme_is_toml() -> None:
    example = README.split("The smallest configuration:")[1].split("## ")[0]
    assert set(tomli.loads(example.replace("\n    ", "\n"))) == {"api", "vehicle", "footage"}


def test_the_changelog_knows_this_version() -> None:
    assert f"## {__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["simulator"]]
    allowed = dict(re.findall(r"^([a-z0-9-]+)>=([\d.]+)", "\n".join(bounds), re.MULTILINE))
    lowest = dict(re.findall(r"^([a-z0-9-]+)==([\d.]+)$", (ROOT / "requirements/lowest.txt").read_text(), re.MULTILINE))
    as_numbers = {name: tuple(map(int, version.split("."))) for name, version in lowest.items()}
    for name, version in allowed.items():
        bound = tuple(map(int, version.split(".")))
        assert as_numbers[name][: len(bound)] == bound
        assert not any(as_numbers[name][len(bound) :])
