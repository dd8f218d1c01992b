"""Cards: real filesystems that are mounted, removed and mounted again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Cards:
    """Mounts cards in memory; none stays mounted after the test."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def put_in(self, place: Path) -> None:
        """Insert an empty card; the kernel gives it the same inode numbers each time."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "card", str(place)], check=True, capture_output=True)
        self._mounted.append(place)

    def pull(self, place: Path) -> None:
        """Remove it, even while it is in use."""
        subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)
        self._mounted.remove(place)

    def pull_all(self) -> None:
        for place in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


@pytest.fixture
def cards(tmp_path: Path) -> Iterator[Cards]:
    """Cards to mount below the directory of the test."""
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
