"""Group commit: when the files that are ready go into the spool."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.config import FootageFolder
from agent.device.safe_open import OpenFootage, open_footage
from agent.intake.handover import MAX_BYTES, MAX_FILES, MAX_WAIT_SECONDS, Item, PendingBatch
from agent.intake.tracked import Tracked
from agent.model import Clip, ClipKey, Footage

FOLDER = FootageFolder(Path("/card"))
START = datetime(2026, 7, 28, tzinfo=timezone.utc)


def item(number: int, size_bytes: int = 1000, source: OpenFootage | None = None) -> Item:
    footage = Footage(Path(f"/card/{number}.mp4"), size_bytes, 0)
    clip = Clip(footage, ClipKey("ABC1234X", 1, START, START + timedelta(minutes=1)))
    return Item(Tracked.found(FOLDER, footage, closed=True, now=0.0), [(clip, source or footage.path)])


def drain(batch: PendingBatch) -> list[Item]:
    with batch.drain() as items:
        return list(items)


def test_an_empty_batch_is_never_due() -> None:
    batch = PendingBatch()
    assert not batch.is_due(0.0)
    assert not batch.is_due(1e6)
    assert drain(batch) == []


def test_a_batch_is_due_when_it_has_many_files() -> None:
    batch = PendingBatch()
    for number in range(MAX_FILES):
        assert not batch.is_due(0.0)
        batch.add(item(number), 0.0)
    assert batch.is_due(0.0)


def test_a_batch_is_due_when_its_files_are_large() -> None:
    batch = PendingBatch()
    batch.add(item(1, MAX_BYTES - 1), 0.0)
    assert not batch.is_due(0.0)
    batch.add(item(2, 1), 0.0)
    assert batch.is_due(0.0)


def test_a_batch_is_due_when_its_first_file_has_waited_long_enough() -> None:
    batch = PendingBatch()
    batch.add(item(1), 100.0)
    batch.add(item(2), 100.0 + MAX_WAIT_SECONDS / 2)
    assert not batch.is_due(100.0 + MAX_WAIT_SECONDS / 2)
    assert batch.is_due(100.0 + MAX_WAIT_SECONDS)


def test_draining_begins_a_new_batch() -> None:
    batch = PendingBatch()
    batch.add(item(1, MAX_BYTES), 0.0)
    assert drain(batch) == [item(1, MAX_BYTES)]
    batch.add(item(2), 50.0)
    assert not batch.is_due(50.0)
    assert drain(batch) == [item(2)]


def test_files_stay_open_until_the_batch_is_drained_and_are_closed_on_errors_too(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"footage")
    batch = PendingBatch()
    opened = [open_footage(path) for _ in range(2)]
    for number, footage in enumerate(opened):
        batch.add(item(number, source=footage), 0.0)

    def fail() -> None:
        with batch.drain():
            assert not any(footage.file.closed for footage in opened)
            raise RuntimeError("the disk failed")

    with pytest.raises(RuntimeError, match="the disk failed"):
        fail()
    assert all(footage.file.closed for footage in opened)
    assert drain(batch) == []
