"""When settled files go into the spool, that wait for others which share the syncs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.config import FootageFolder
from agent.intake.handover import MAX_BYTES, MAX_FILES, MAX_WAIT_SECONDS, Item, PendingBatch
from agent.model import Clip, ClipKey, Footage

FOLDER = FootageFolder(Path("/card"))
START = datetime(2026, 7, 28, tzinfo=timezone.utc)


def item(number: int, size_bytes: int = 1000) -> Item:
    footage = Footage(Path(f"/card/{number}.mp4"), size_bytes, 0)
    return Item(FOLDER, Clip(footage, ClipKey("ABC1234X", 1, START, START + timedelta(minutes=1))))


def test_a_group_without_members_is_never_due() -> None:
    group = PendingBatch()
    assert not group.is_due(0.0)
    assert not group.is_due(1e6)
    assert group.drain() == []


def test_a_group_is_due_when_it_has_many_files() -> None:
    group = PendingBatch()
    for number in range(MAX_FILES):
        assert not group.is_due(0.0)
        group.add(item(number), 0.0)
    assert group.is_due(0.0)


def test_a_group_is_due_when_its_files_are_large() -> None:
    group = PendingBatch()
    group.add(item(1, MAX_BYTES - 1), 0.0)
    assert not group.is_due(0.0)
    group.add(item(2, 1), 0.0)
    assert group.is_due(0.0)


def test_a_group_is_due_when_its_first_file_has_waited_for_long() -> None:
    group = PendingBatch()
    group.add(item(1), 100.0)
    group.add(item(2), 100.0 + MAX_WAIT_SECONDS / 2)
    assert not group.is_due(100.0 + MAX_WAIT_SECONDS / 2)
    assert group.is_due(100.0 + MAX_WAIT_SECONDS)


def test_after_all_have_left_a_new_group_begins() -> None:
    group = PendingBatch()
    first, second = item(1), item(2)
    group.add(first, 0.0)
    assert first.clip.footage in group
    assert group.drain() == [first]
    assert first.clip.footage not in group
    group.add(second, 50.0)
    assert not group.is_due(50.0)
    assert group.drain() == [second]
