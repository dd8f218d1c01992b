"""Real footage, each file made once in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ffmpeg import RECIPES

Footages = Callable[[str], Path]


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footages:
    """Makes a recording of `RECIPES` when it is first asked for; it must not be changed."""
    place = tmp_path_factory.mktemp("footage")

    def make(name: str) -> Path:
        path = place / name
        if not path.exists():
            RECIPES[name](path)
        return path

    return make
