"""How the time to claim and to deliver a clip grows with the number of waiting clips."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from agent.config import Api, Secret, SpoolSettings, UploadSettings
from agent.delivery.batching import BatchLimits, fill_batch
from agent.delivery.dispatcher import Dispatcher
from agent.spool import Spool
from agent.vision.client import VisionClient
from tests.benchmarks.figures import Figure, at_most
from tests.benchmarks.simulated import be_quiet
from tests.benchmarks.sink import sink
from tests.benchmarks.stock import Stock

WAITING = (1_000, 10_000, 100_000, 1_000_000)
UPLOAD = UploadSettings(encoding="multipart", linger_seconds=0.0, confirm="answer")
BATCHES = 25
CLIPS = BATCHES * UPLOAD.batch_clips
# What else the machine does only adds to a time: the shortest of so many comes nearest.
PASSES = 3


class FullSpool:
    """A spool with waiting clips, of which only the first CLIPS have a stored file.

    Args:
        place: an empty directory.
        waiting: how many.
    """

    def __init__(self, place: Path, waiting: int) -> None:
        self._directory = place / "spool"
        self._kept = place / "kept"
        self._stock = Stock(self._directory, place / "footage")
        (place / "footage").mkdir(parents=True)
        self._stock.waiting(CLIPS)
        self._stock.multiply_waiting(waiting - CLIPS)
        shutil.copytree(self._directory / "clips", self._kept, copy_function=os.link)

    def measure(self, client: VisionClient) -> tuple[float, float]:
        """Claim and release the first CLIPS, then deliver them. Afterwards they wait again.

        Returns:
            Seconds per clip.
        """
        settings = SpoolSettings(self._directory, max_bytes=10**12, min_free_bytes=0)
        with closing(Spool(settings, time.time)) as spool:
            claimed = _claim_seconds(spool)
            delivered = _deliver_seconds(spool, client)
        self._stock.wait_again()
        shutil.copytree(self._kept, self._directory / "clips", copy_function=os.link, dirs_exist_ok=True)
        return claimed, delivered


def measure(rounds: int) -> Iterable[Figure]:
    be_quiet()
    claims: list[list[float]] = []
    deliveries: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="vision-ingest-growth-") as directory, sink() as api:
        spools = [FullSpool(Path(directory) / str(waiting), waiting) for waiting in WAITING]
        with closing(VisionClient(Api(api.base_url, "bench", Secret("bench"), ca_file=api.ca_file))) as client:
            for _ in range(rounds):
                # One after the other, so that whatever disturbs the machine meanwhile disturbs all of them.
                passes = [[spool.measure(client) for spool in spools] for _ in range(PASSES)]
                best = [tuple(map(min, zip(*times, strict=True))) for times in zip(*passes, strict=True)]
                claims.append([claimed for claimed, _ in best])
                deliveries.append([delivered for _, delivered in best])
    sizes = f"{WAITING[0]:,} to {WAITING[-1]:,} waiting"
    yield _growth(f"time to claim a clip, {sizes}: worst by best", claims)
    yield _growth(f"time to deliver a clip, {sizes}: worst by best", deliveries)


def _growth(name: str, rounds: list[list[float]]) -> Figure:
    middle = sorted(rounds, key=lambda seconds: max(seconds) / min(seconds))[len(rounds) // 2]
    detail = ", ".join(f"{1e6 * seconds / CLIPS:.0f}" for seconds in middle)
    return Figure(name, "×", [max(seconds) / min(seconds) for seconds in rounds], at_most(1.3), f"{detail} µs a clip")


def _claim_seconds(spool: Spool) -> float:
    limits = BatchLimits(UPLOAD.batch_clips, UPLOAD.batch_bytes)
    started = time.monotonic()
    batches = [spool.claim(lambda ready: fill_batch(ready, limits)) for _ in range(BATCHES)]
    seconds = time.monotonic() - started
    claimed = [upload.id for batch in batches for upload in batch]
    assert len(claimed) == CLIPS
    spool.release(claimed)
    return seconds


def _deliver_seconds(spool: Spool, client: VisionClient) -> float:
    dispatcher = Dispatcher(spool, client, UPLOAD, threading.Event())
    client.videos_status()  # so that its connection is there
    started = time.monotonic()
    for _ in range(BATCHES):
        dispatcher.step()
    return time.monotonic() - started
