"""Builds the Debian package as `make deb` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(target: Path, *options: str) -> Path:
    """Build the package into an empty directory."""
    command = [sys.executable, str(ROOT / "packaging" / "build-deb"), str(target), *options]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (package,) = target.glob("*.deb")
    return package
