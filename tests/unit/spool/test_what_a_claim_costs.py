"""The cost of a claim in steps of SQLite's virtual machine: the same on every computer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.model import Clip, ClipKey, Footage, State, Upload, Verdict
from agent.spool.clip_queue import ClipQueue
from agent.spool.records import Record, Stored
from tests.support.spooling import START, Clock, add_records

BATCH = 20


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ClipQueue]:
    queue = ClipQueue(tmp_path, tmp_path / "clips", Clock())
    yield queue
    queue.close()


def records(first: int, count: int) -> Iterator[Record]:
    for number in range(first, first + count):
        start = START + timedelta(minutes=number)
        clip = Clip(Footage(Path(f"/card/{number}.mp4"), 100, number), ClipKey("ABC1234X", 1, start, start))
        yield Record.of_clip(clip, Stored(f"{number}.mp4", 100, number, "0" * 32), State.WAITING, "", start)


def few(ready: Iterator[Upload]) -> list[Upload]:
    return [upload for _, upload in zip(range(BATCH), ready, strict=False)]


def steps_of(queue: ClipQueue, work: Callable[[], object]) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    queue._connection.set_progress_handler(count, 1)
    work()
    queue._connection.set_progress_handler(None, 1)
    return counted


def claim_and_release(queue: ClipQueue) -> int:
    """The cost of counting what is ready and of claiming a batch."""
    taken: list[Upload] = []

    def claim() -> None:
        queue.count_ready(BATCH)
        taken.extend(queue.claim(few)[0])

    steps = steps_of(queue, claim)
    assert len(taken) == BATCH
    queue.release(upload.id for upload in taken)
    return steps


def test_a_claim_costs_the_same_however_many_clips_wait(queue: ClipQueue) -> None:
    add_records(queue, records(0, 2 * BATCH))
    before = claim_and_release(queue)
    add_records(queue, records(2 * BATCH, 1000))
    assert claim_and_release(queue) == before


def test_a_claim_costs_the_same_however_many_clips_are_deferred(queue: ClipQueue) -> None:
    def put_off(first: int, count: int) -> None:
        for place, state in enumerate((State.WAITING, State.HELD)):
            ids = add_records(queue, records(first + place * count, count))
            queue.settle({id: Verdict(state, "later", retry_in_seconds=60) for id in ids})

    add_records(queue, records(0, BATCH))
    put_off(BATCH, 1)
    before = claim_and_release(queue)
    put_off(BATCH + 2, 500)
    assert claim_and_release(queue) == before
