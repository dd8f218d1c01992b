"""Cards for the tests: real filesystems that are mounted, pulled and put in again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Cards:
    """Mounts a card in memory at a place; whatever becomes of the test, none stays mounted."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def put_in(self, place: Path) -> None:
        """An empty card; each time, the kernel gives it the numbers that the last one had."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "card", str(place)], check=True, capture_output=True)
        self._mounted.append(place)

    def pull(self, place: Path) -> None:
        """Takes it out, also while it is in use, as a hand does."""
        subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)
        self._mounted.remove(place)

    def pull_all(self) -> None:
        for place in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


@pytest.fixture
def cards(tmp_path: Path) -> Iterator[Cards]:
    """Cards that can be mounted below the test's directory."""
    made = Cards()
    probe = tmp_path / "probe"
    probe.mkdir()
    try:
        made.put_in(probe)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"mounting is not allowed here: {exc}")
    try:
        made.pull(probe)
        yield made
    finally:
        made.pull_all()
