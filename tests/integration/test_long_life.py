"""After a million clips, a queue is as small and as fast as after a few thousand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.model import Clip, ClipKey, Footage, State, Upload, Verdict
from agent.spool.clip_queue import ClipQueue
from agent.spool.maintenance import Maintenance
from agent.spool.records import Record, Stored
from tests.conftest import Figure
from tests.support.spooling import add_records

CYCLES = 1_000_000
# Many clips in a transaction, so that the test measures the queue and not the disk's syncs.
BATCH = 500
REMEMBER_SECONDS = 10.0 * BATCH
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class Clock:
    seconds: float = 1_780_000_000.0

    def __call__(self) -> float:
        return self.seconds


def record(number: int) -> Record:
    footage = Footage(Path(f"/media/card/DCIM/{number // 1000}/ABC1234X_1_{number}.mp4"), 48_000_000, number)
    start = START + timedelta(seconds=60 * number)
    clip = Clip(footage, ClipKey("ABC1234X", 1, start, start + timedelta(seconds=60)), sources={"start": "file name"})
    stored = Stored(f"{footage.identity}-0.mp4", 48_000_000, number, "0" * 32)
    return Record.of_clip(clip, stored, State.WAITING, "", start)


def first(ready: Iterator[Upload]) -> list[Upload]:
    return [upload for _, upload in zip(range(BATCH), ready, strict=False)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_clip_life_cycles_leave_the_queue_small_and_quick(tmp_path: Path, figure: Figure) -> None:
    clock = Clock()
    queue = ClipQueue(tmp_path, tmp_path / "clips", clock)
    maintenance = Maintenance(queue)
    sizes: list[int] = []
    steps: list[int] = []
    started = time.process_time()

    def cycle(number: int) -> None:
        add_records(queue, (record(number + place) for place in range(BATCH)))
        taken, damaged = queue.claim(first)
        assert (len(taken), damaged) == (BATCH, [])
        settled, damaged = queue.settle({upload.id: Verdict(State.DELIVERED) for upload in taken})
        assert (len(settled), damaged) == (BATCH, [])
        clock.seconds += BATCH
        maintenance.prune(clock.seconds - REMEMBER_SECONDS, lambda _: True)

    def claim_steps() -> int:
        """The cost of a claim in steps of SQLite's virtual machine: the same on every computer."""
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        add_records(queue, [record(-1)])
        queue._connection.set_progress_handler(count, 1)
        taken, _ = queue.claim(first)
        queue._connection.set_progress_handler(None, 1)
        queue.delete(taken[0].id)
        return counted

    memory: list[int] = []
    for number in range(0, CYCLES, BATCH):
        cycle(number)
        if number % (CYCLES // 50) == 0 and number:
            sizes.append(sum(file.stat().st_size for file in tmp_path.glob("clips.db*")))
            steps.append(claim_steps())
            memory.append(resident_bytes())
    rows = sum(count.clips for count in queue.ledger.counts().values())
    queue.close()
    assert rows <= REMEMBER_SECONDS + 2 * BATCH
    assert max(sizes) <= 3 * sizes[0]
    assert max(steps) <= 3 * steps[0]
    assert max(memory) <= memory[0] + 20_000_000
    figure("clip life cycles on one queue", CYCLES)
    figure("bytes of the queue after the first 2 %", sizes[0], most=True)
    figure("bytes of the queue at most", max(sizes), most=True)
    figure("SQLite steps of a claim at most", max(steps), most=True)
    figure("CPU µs a life cycle", (time.process_time() - started) / CYCLES * 1e6, most=True)


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024
