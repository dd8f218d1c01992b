"""A spool in a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.spool import Spool
from tests.support.spooling import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> SpoolSettings:
    return SpoolSettings(tmp_path / "state" / "spool", max_bytes=10_000, min_free_bytes=0, remember_days=30)


@pytest.fixture
def spool(settings: SpoolSettings, clock: Clock) -> Iterator[Spool]:
    spool = Spool(settings, clock)
    yield spool
    spool.close()
