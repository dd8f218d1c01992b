"""The daemon's memory while it sends 100 clips of 48 MB, as base64 in JSON, in requests of 192 MB."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from agent.model import State
from simulator.recorder import recording_blocks
from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_most
from tests.benchmarks.sender import START
from tests.benchmarks.sink import sink

CLIP_BYTES = 48_000_000


def measure(rounds: int) -> Iterable[Figure]:
    clips = 100 if rounds > 1 else 20
    with tempfile.TemporaryDirectory(prefix="vision-ingest-streaming-") as directory, sink() as api:
        place = Path(directory)
        daemon = MeasuredDaemon(place, api, {"upload": 'encoding = "json"'})
        recorded = place / "recorded.mp4"
        with recorded.open("wb") as file:
            for block in recording_blocks(60.0, size_bytes=CLIP_BYTES):
                file.write(block)
        for number in range(clips):
            start = START + timedelta(minutes=number)
            (daemon.footage / f"ABC1234X_1_{start:%Y%m%d_%H%M%S}.mp4").hardlink_to(recorded)
        with daemon:
            daemon.await_records(clips, State.DELIVERED, seconds=600)
            peak = daemon.peak_memory_bytes()
    yield Figure(f"peak memory while sending {clips} × 48 MB", "MiB", [peak / 2**20], at_most(48))
