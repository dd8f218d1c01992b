"""`vision-ingest demo`, as `make demo` runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.daemon


@pytest.mark.slow
def test_the_demo_proves_that_what_arrived_is_what_was_recorded(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    demo = subprocess.run(
        [sys.executable, "-m", "agent.cli", "demo", "--keep", str(place)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    cut = "1 cut into clips with every frame unchanged, " if shutil.which("ffmpeg") else ""
    said = " ".join(demo.stdout.split())
    assert f"7 delivered byte for byte, {cut}1 refused with a reason, none lost" in said
    log = (place / "daemon.log").read_text()
    assert '"cause": "link down"' in log
    assert '"event": "clip_deferred"' in log
    received = list((place / "received").glob("*.mp4"))
    assert len(received) == 9 if cut else 7
    assert all(file.stat().st_size <= 50_000_000 for file in received)
