"""Sections of the configuration: known keys are read, unknown ones reported with the key that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.config.settings import Schema
from agent.config.values import WrongValueError, as_toml, closest_match, suggestion
from agent.errors import ConfigError, Problem

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ErrorCollector:
    """Collects all mistakes of a configuration, so that one run reports every one.

    Args:
        file: the file of a mistake, unless `origins` names another one.
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
        """Catch a WrongValueError of the block and add it as a mistake of this key."""
        try:
            yield
        except WrongValueError as error:
            self.add(key, error.wrong, error.allowed)

    def raise_any(self) -> None:
        """Raise ConfigError if there was any mistake."""
        if self.problems:
            raise ConfigError(self.problems)


class SectionReader:
    """Reads the sections of a configuration, and reports what is wrong with them.

    Args:
        tables: the sections as TOML holds them.
        schema: the readers of all keys.
        folder: where relative paths start.
    """

    def __init__(self, tables: Mapping[str, Any], schema: Schema, folder: Path, errors: ErrorCollector) -> None:
        self._tables = tables
        self._schema = schema
        self._folder = folder
        self._errors = errors

    def check_names(self) -> None:
        """Report everything at the top level of the file that is not a known section."""
        for name, value in self._tables.items():
            if name in self._schema:
                continue
            if not isinstance(value, (dict, list)):
                self._errors.add(_quoted(name), "is not in a section", self._right_section(name))
                continue
            allowed = suggestion(name, self._schema, ", ".join(map(_header, self._schema)))
            self._errors.add(_quoted(name), f"there is no section [{_quoted(name)}]", allowed)

    def section(self, name: str) -> dict[str, Any]:
        """The section [name] as TOML holds it; empty if there is none."""
        value = self._tables.get(name, {})
        if isinstance(value, dict):
            return value
        self._errors.add(name, "is not a section", f"write [{name}] on a line of its own, with single brackets")
        return value[0] if value and _are_tables(value) else {}

    def sections(self, name: str) -> list[dict[str, Any]]:
        """All sections [[name]] as TOML holds them."""
        value = self._tables.get(name, [])
        if _are_tables(value):
            return list(value)
        self._errors.add(
            name, "is not a list of sections", f"write [[{name}]] on a line of its own, with double brackets"
        )
        return [value] if isinstance(value, dict) else []

    def values(self, written: Mapping[str, Any], name: str, label: str | None = None) -> dict[str, Any]:
        """The values of the valid keys only: the section's class has the defaults of the others.

        Args:
            written: the section as TOML holds it.
            name: the section's name in the schema.
            label: the section's name in messages, such as "footage[0]"; None if it is the same.
        """
        values = {}
        for key, value in written.items():
            place = f"{label or name}.{_quoted(key)}"
            read = self._schema[name].get(key)
            if read is None:
                self._errors.add(place, "there is no such key", self._suggested_key(key, name))
                continue
            with self._errors.collect(place):
                result = read(value)
                values[key] = self._folder / result if isinstance(result, Path) else result
        return values

    def _suggested_key(self, key: str, name: str) -> str:
        allowed = [known for known in self._schema[name] if known != "password"]  # a key only in order to be refused
        if closest_match(key, allowed) is None and any(key in keys for keys in self._schema.values()):
            return self._right_section(key)
        return suggestion(key, allowed)

    def _right_section(self, key: str) -> str:
        if key == "password":
            return "the password must not be in this file: api.password_file names the file that contains it"
        found = [_header(name) for name, keys in self._schema.items() if key in keys]
        if not found:
            return f"remove it, or move it below the right section: {', '.join(map(_header, self._schema))}"
        return f"move it below {' or '.join(found)}"


def _header(name: str) -> str:
    return "[[footage]]" if name == "footage" else f"[{name}]"


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _quoted(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else as_toml(key)
