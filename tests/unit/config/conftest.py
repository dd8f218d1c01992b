from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from agent.config import Config, load
from agent.errors import ConfigError
from tests.support import unprivileged

Load: TypeAlias = Callable[..., Config]
ErrorsOf: TypeAlias = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Loads a text as a configuration file, with a password in the environment unless `environ` is given."""

    def read(text: str, **options: object) -> Config:
        file = tmp_path / "config.toml"
        file.write_text(text, encoding="utf-8")
        return load(file, **{"environ": {"VISION_INGEST_PASSWORD": "hunter2"}, **options})  # type: ignore[arg-type]

    return read


@pytest.fixture
def errors_of(read: Load, tmp_path: Path) -> ErrorsOf:
    """The messages about the mistakes in a text, without the name of the file at their start."""

    def errors_of(text: str, **options: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, **options)
        file = tmp_path / "config.toml"
        assert {problem.file for problem in caught.value.problems} == {str(file)}
        return [str(problem).removeprefix(f"{file}: ") for problem in caught.value.problems]

    return errors_of


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with unprivileged.open_folder() as folder:
        yield folder


@pytest.fixture
def ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    return unprivileged.ordinary_user
