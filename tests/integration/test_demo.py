"""`vision-ingest demo`, as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_proves_that_what_arrived_is_what_was_recorded(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    demo = subprocess.run(
        [sys.executable, "-m", "agent.cli", "demo", "--keep", str(place)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "7 delivered byte for byte, 1 refused with a reason, none lost" in " ".join(demo.stdout.split())
    log = (place / "daemon.log").read_text()
    assert '"cause": "link down"' in log
    assert '"event": "clip_deferred"' in log
    assert len(list((place / "received").glob("*.mp4"))) == 7
