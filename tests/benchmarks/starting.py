"""Start-up with a full spool: 100,000 waiting and 100,000 delivered clips, 20,000 files in the folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_most, ratio
from tests.benchmarks.stock import Stock

CLIPS = 100_000
# After its start the daemon looks through the folder, for the first time; that belongs to its peak memory.
FIRST_SCAN_SECONDS = 5.0


def measure(rounds: int) -> Iterable[Figure]:
    with tempfile.TemporaryDirectory(prefix="vision-ingest-starting-") as directory:
        place = Path(directory)
        daemon = MeasuredDaemon(place, None)
        stock = Stock(daemon.spool, daemon.footage)
        clips = CLIPS if rounds > 1 else CLIPS // 5
        stock.waiting(clips)
        stock.delivered(clips, in_tree=clips // 5)
        _start(daemon)  # brings the files into the kernel's cache
        starts = [_start(daemon) for _ in range(rounds)]
        yield Figure(
            f"start until ready: {clips:,} waiting and delivered, {clips // 5:,} files", "s", starts, at_most(3.0)
        )
        daemon.start()
        time.sleep(FIRST_SCAN_SECONDS)
        peak = daemon.peak_memory_bytes()
        daemon.stop()
        yield Figure(f"peak memory with {clips:,} waiting", "MiB", [peak / 2**20], at_most(45))
        if rounds == 1:
            return  # to fill the larger ledger would take longer than all the rest
        yield Figure("start after a power cut", "s", [_start_after_kill(daemon)])
        stock.multiply_delivered(10)
        _start(daemon)
        larger = [_start(daemon) for _ in range(rounds)]
        yield ratio(
            "start with 1,000,000 delivered", larger, starts, unit="s", peer="100,000 delivered", goal=at_most(1.2)
        )


def _start(daemon: MeasuredDaemon) -> float:
    seconds = daemon.start_timed()
    daemon.stop()
    return seconds


def _start_after_kill(daemon: MeasuredDaemon) -> float:
    """Start after a kill, which checks the whole queue for damage."""
    daemon.start()
    daemon.process.kill()
    daemon.process.wait()
    return _start(daemon)
