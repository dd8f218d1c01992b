"""What is wrong with one configuration, collected over the whole reading of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.config.values import WrongValueError
from agent.errors import ConfigError, Problem


class Mistakes:
    """Collects every mistake of one file, so that one run shows them all."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self.problems: list[Problem] = []

    def add(self, key: str, wrong: str, allowed: str) -> None:
        self.problems.append(Problem(self._file, key, wrong, allowed))

    @contextmanager
    def noting(self, key: str) -> Iterator[None]:
        """A WrongValueError of the block becomes a mistake of this key."""
        try:
            yield
        except WrongValueError as error:
            self.add(key, error.wrong, error.allowed)

    def raise_any(self) -> None:
        """Raise ConfigError if there was any mistake."""
        if self.problems:
            raise ConfigError(self.problems)
