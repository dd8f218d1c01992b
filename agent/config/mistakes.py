"""What is wrong with one configuration, collected over the whole reading of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent.config.values import WrongValueError
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
