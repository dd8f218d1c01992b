"""The idle daemon with 20,000 delivered files in the folder: memory, CPU time, wake-ups."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_most
from tests.benchmarks.sink import sink
from tests.benchmarks.stock import Stock

FILES = 20_000
SETTLING_SECONDS = 8.0
# A virtual machine may be made to give memory back that was not used for some seconds.
CACHE_SECONDS = 3.0


def measure(rounds: int) -> Iterable[Figure]:
    # One look through the whole folder falls into the time that is watched, as it does in each minute.
    seconds = 60 if rounds > 1 else 20
    with tempfile.TemporaryDirectory(prefix="vision-ingest-idling-") as directory, sink() as api:
        daemon = MeasuredDaemon(Path(directory), api, {"[footage]": f"rescan_seconds = {seconds}"})
        Stock(daemon.spool, daemon.footage).delivered(FILES, in_tree=FILES)
        with daemon, _in_cache(daemon.footage):
            time.sleep(SETTLING_SECONDS)
            before, started = daemon.effort(), time.monotonic()
            time.sleep(seconds)
            after, elapsed = daemon.effort(), time.monotonic() - started
            peak = daemon.peak_memory_bytes()
    share = 100 * (after.cpu_seconds - before.cpu_seconds) / elapsed
    goal = at_most(0.3) if seconds == 60 else None
    yield Figure(f"idle for {seconds} s, 20,000 files: processor", "% of a core", [share], goal)
    yield Figure("idle: wake-ups", "/s", [(after.wake_ups - before.wake_ups) / elapsed], at_most(2))
    yield Figure("peak memory, idle", "MiB", [peak / 2**20], at_most(40))


@contextmanager
def _in_cache(folder: Path) -> Iterator[None]:
    """Keep a folder in the kernel's cache: otherwise each wait for the disk would count as a wake-up."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(CACHE_SECONDS):
            for path in folder.rglob("*"):
                path.lstat()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
