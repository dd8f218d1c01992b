"""What the documents say is what the code does."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
import tomli

from agent import __version__
from agent.cli import COMMANDS, plugins

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tests/integration/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


@each_page
def test_every_relative_link_leads_to_a_page_and_a_heading_that_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    targets = [(page.parent / path if path else page, anchor) for path, anchor in links]
    assert [target for target, _ in targets if not target.is_file()] == []
    assert [anchor for target, anchor in targets if anchor and anchor not in anchors_of(target)] == []


@each_page
def test_every_path_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    roots = "agent|simulator|tests|docs|config|packaging|requirements|systemd"
    paths = re.findall(rf"`((?:{roots})/[\w./-]*)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@each_page
def test_a_page_uses_straight_quotes(page: Path) -> None:
    assert re.findall("[«»“”]", page.read_text()) == []


def test_the_readme_has_at_most_1200_words() -> None:
    assert len(README.split()) <= 1200


def test_the_readme_links_every_page_of_the_documentation() -> None:
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in README] == []


def test_the_architecture_lists_every_package() -> None:
    table = ARCHITECTURE.split("## Packages")[1].split("## ")[0]
    named = {
        name for cell in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    found = {path.stem for path in (ROOT / "agent").iterdir() if not path.name.startswith("__")}
    assert named - {"agent", "simulator"} == found


def test_the_architecture_shows_the_layers_that_are_enforced() -> None:
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    layers = contract["importlinter:contract:journey"]["layers"].split("\n")
    assert " > ".join(filter(None, layers)) in ARCHITECTURE


def test_the_documentation_explains_every_key_and_no_other() -> None:
    table = CONFIGURATION.split("<!-- keys:begin -->")[1].split("<!-- keys:end -->")[0]
    rows = set(re.findall(r"^\| `(\[+\w+\]+)` \| `(\w+)` \|", table, re.MULTILINE))
    assert rows == keys_of_the_commented_configuration()


def test_the_readme_names_every_command() -> None:
    commands = README.split("## Commands")[1].split("##")[0]
    assert [command for command in (*COMMANDS, *plugins()) if f"`{command}" not in commands] == []


def test_the_smallest_configuration_of_the_documentation_is_toml() -> None:
    example = CONFIGURATION.split("## The smallest configuration")[1].split("## ")[0]
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
