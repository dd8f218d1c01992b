"""The package, built once per process, and a machine to install it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.server import Simulator
from tests.support.debian_machine import DebianMachine
from tests.support.package import build

SUITES = ("bookworm", "trixie")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def earlier_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program with a lower version, for upgrades."""
    return build(tmp_path_factory.mktemp("earlier"), "--version", "0.0.9")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DebianMachine]:
    """A booted machine with a fresh Debian; its /shared is tmp_path."""
    with DebianMachine(request.param, tmp_path) as machine:
        yield machine
