"""Sections of the configuration: known keys are read, unknown ones reported with the key that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.config.schema import Schema
from agent.config.values import WrongValueError, as_toml, closest_match
from agent.errors import ConfigError, Problem


class ErrorCollector:
    """Collects every mistake, so that one run shows them all.

    Args:
        file: where a mistake stands if `origins` names no other file.
        origins: the file of a section or key, such as "api.username" or "footage[1]".
    """

    def __init__(self, file: Path, origins: Mapping[str, Path] | None = None) -> None:
        self._file = file
        self._origins = origins or {}
        self.problems: list[Problem] = []

    def add(self, key: str, wrong: str, allowed: str) -> None:
        place = key
        while place not in self._origins and "." in place:
            place = place.rpartition(".")[0]
        self.problems.append(Problem(str(self._origins.get(place, self._file)), key, wrong, allowed))

    @contextmanager
    def collect(self, key: str) -> Iterator[None]:
        """A WrongValueError of the block becomes a mistake of this key."""
        try:
            yield
        except WrongValueError as error:
            self.add(key, error.wrong, error.allowed)

    def raise_any(self) -> None:
        """Raise ConfigError if there was any mistake."""
        if self.problems:
            raise ConfigError(self.problems)


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def check_sections(document: dict[str, Any], schema: Schema, errors: ErrorCollector) -> None:
    """Report whatever stands at the top of the file and is no section."""
    for name, value in document.items():
        if name in schema:
            continue
        if not isinstance(value, (dict, list)):
            errors.add(_written(name), "stands outside of every section", _where_it_belongs(name, schema))
            continue
        near = closest_match(name, schema)
        meant = f"did you mean [{near}]? " if near else ""
        sections = ", ".join(f"[{section}]" for section in schema)
        errors.add(_written(name), f"there is no section [{_written(name)}]", f"{meant}allowed: {sections}")


def section(document: dict[str, Any], name: str, errors: ErrorCollector) -> dict[str, Any]:
    """The section `name` as it was written; empty if there is none."""
    value = document.get(name, {})
    if isinstance(value, dict):
        return value
    errors.add(name, "is not a section", f"write [{name}] in a line of its own, with single brackets")
    return value[0] if value and _are_tables(value) else {}


def sections(document: dict[str, Any], name: str, errors: ErrorCollector) -> list[dict[str, Any]]:
    """All sections [[name]], which may stand in the file several times."""
    value = document.get(name, [])
    if _are_tables(value):
        return list(value)
    errors.add(name, "is not a list of sections", f"write [[{name}]] in a line of its own, with double brackets")
    return [value] if isinstance(value, dict) else []


def read_section(
    written: dict[str, Any], name: str, schema: Schema, errors: ErrorCollector, *, label: str | None = None
) -> dict[str, Any]:
    """Read every key that can be read and report the others.

    Args:
        written: the section as TOML holds it.
        name: the section's name in the schema.
        label: how messages call the section, such as "footage[0]"; None means like its name.

    Returns:
        The values of the good keys only: what is missing gets the default of its type.
    """
    values = {}
    for key, value in written.items():
        place = f"{label or name}.{_written(key)}"
        read = schema[name].get(key)
        if read is None:
            errors.add(place, "there is no such key", _meant(key, name, schema))
            continue
        with errors.collect(place):
            values[key] = read(value)
    return values


def _meant(key: str, name: str, schema: Schema) -> str:
    allowed = [known for known in schema[name] if known != "password"]  # that key is there only to be refused
    near = closest_match(key, allowed)
    if near is None and any(key in keys for keys in schema.values()):
        return _where_it_belongs(key, schema)
    meant = f'did you mean "{near}"? ' if near else ""
    return f"{meant}allowed: {', '.join(allowed)}"


def _where_it_belongs(key: str, schema: Schema) -> str:
    if key == "password":
        return "a password never stands in this file: api.password_file names the file that holds it"
    homes = [_header(name) for name, keys in schema.items() if key in keys]
    if not homes:
        return f"remove it, or move it below the section that it belongs to: {', '.join(map(_header, schema))}"
    return f"move it below {' or '.join(homes)}"


def _header(name: str) -> str:
    return "[[footage]]" if name == "footage" else f"[{name}]"


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _written(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else as_toml(key)
