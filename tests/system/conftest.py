"""The package, built once for all tests of a process, and a machine to install it in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.simulator.simulator import Simulator
from tests.support.debian_machine import DebianMachine

ROOT = Path(__file__).parents[2]
SUITES = ("bookworm", "trixie")


def build(target: Path, *options: str) -> Path:
    """The package, as `make deb` builds it."""
    built = subprocess.run(
        [sys.executable, ROOT / "packaging" / "build-deb", target, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (package,) = target.glob("*.deb")
    return package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def earlier_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program as an earlier version, for upgrades."""
    return build(tmp_path_factory.mktemp("earlier"), "--version", "0.0.9")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DebianMachine]:
    """A freshly installed Debian, booted; /shared in it is tmp_path here."""
    with DebianMachine(request.param, tmp_path) as machine:
        yield machine
