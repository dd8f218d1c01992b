#!/usr/bin/env python3
"""Documents every configuration key where users look for it: packaging/reference.py [--check]

Writes config/vision-ingest.toml and the table in docs/configuration.md from the declarations in
agent/config/settings.py; the manual page is made of the same entries when the package is built. With --check nothing
is written, and files that are not up to date are an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent.config.settings import SECTIONS, schema  # noqa: E402  # found by the line above
from agent.config.values import Reader, WrongValueError, size_text  # noqa: E402
from agent.intake.identify.presets import AUTO, PRESETS  # noqa: E402

COMMENTED = ROOT / "config" / "vision-ingest.toml"
PAGE = ROOT / "docs" / "configuration.md"
TABLE_BEGIN, TABLE_END = "<!-- keys:begin -->\n", "<!-- keys:end -->"

NO_DEFAULT = "# No default; an example:\n"
INTRODUCTION = """\
The configuration of vision-ingest: every key with its meaning, unit and default.

A line "# key = value" shows a key at its default; to change it, remove the "# ". Where a key has no default, the value
is an example. After a change run `sudo vision-ingest check`, which reports every mistake and how to correct it, then
`sudo systemctl reload vision-ingest`.

Three keys are required: api.region, api.username, and the path of one [[footage]] section. Every file config.d/*.toml
beside this file is read after it, in the order of the file names: its keys override those in this file, and its
[[footage]] sections add folders. `vision-ingest setup` writes config.d/setup.toml and does not change this file.

Sizes are bytes: 50000000, "50 MB" (millions) or "50 MiB" (1,048,576 each). Relative paths start at the folder of this
file. The password does not belong here: see password_file.
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """A key as users see it; `default` is empty if it has none."""

    name: str
    explanation: str
    default: str
    example: str

    @property
    def is_required(self) -> bool:
        return "Required" in self.explanation

    @property
    def is_example(self) -> bool:
        return not self.default and not self.is_required

    @property
    def line(self) -> str:
        return f"{self.name} = {self.default or self.example}"


@dataclasses.dataclass(frozen=True)
class Section:
    header: str
    explanation: str
    keys: list[Key]


def sections() -> Iterator[Section]:
    """Every section with its keys, in the order in which they are declared."""
    readers = schema((AUTO, *PRESETS))
    for name, section in SECTIONS.items():
        keys = [_key(field, readers[name][field.name]) for field in dataclasses.fields(section)]
        header = "[[footage]]" if name == "footage" else f"[{name}]"
        yield Section(header, inspect.getdoc(section) or "", [key for key in keys if key.explanation])


def _key(field: dataclasses.Field[Any], read: Reader) -> Key:
    explanation = field.metadata["help"].replace("{allowed}", f"Allowed: {_allowed(read)}.")
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    shown = "" if default in (None, dataclasses.MISSING) else _toml(field.name, default)
    return Key(field.name, explanation, shown, field.metadata["example"])


def _allowed(read: Reader) -> str:
    """What a reader says that it allows, when it is given what no TOML file can contain."""
    try:
        read(object())
    except WrongValueError as error:
        return error.allowed.removeprefix("allowed: ")
    raise AssertionError(f"{read} accepts anything")


def _toml(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return json.dumps(size_text(value))
    return json.dumps(value if isinstance(value, (bool, int, float, list, tuple, dict)) else str(value))


def commented_toml() -> str:
    """The configuration file that explains every key and sets none."""
    blocks = [_comment(paragraph) for paragraph in INTRODUCTION.split("\n\n")]
    text = "\n#\n".join(blocks) + "\n"
    for section in sections():
        header = f"# {section.header}" if section.header == "[[footage]]" else section.header
        text += f"\n{_comment(section.explanation)}\n{header}\n"
        for key in section.keys:
            text += f"\n{_comment(key.explanation)}\n{NO_DEFAULT if key.is_example else ''}# {key.line}\n"
    return text


def _comment(text: str) -> str:
    """The text as comment lines; an inline table such as { F = 1 } is never split."""
    unsplit = re.sub(r"\{.*?\}", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(unsplit, 118, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines).replace("\0", " ")


def markdown_table() -> str:
    rows = ["| section | key | default | meaning |", "|---|---|---|---|"]
    for section in sections():
        for key in section.keys:
            default = f"`{key.default}`" if key.default else "required" if key.is_required else "–"
            explanation = key.explanation.replace("|", r"\|").replace("*", r"\*")
            rows.append(f"| `{section.header}` | `{key.name}` | {default} | {explanation} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Document every configuration key.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    args = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    generated = {COMMENTED: commented_toml(), PAGE: before + TABLE_BEGIN + markdown_table() + TABLE_END + after}
    outdated = {file: text for file, text in generated.items() if file.read_text(encoding="utf-8") != text}
    if args.check and outdated:
        names = ", ".join(str(file.relative_to(ROOT)) for file in outdated)
        sys.exit(f"not up to date: {names} (run packaging/reference.py)")
    for file, text in outdated.items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
