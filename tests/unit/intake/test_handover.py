"""When settled files go into the spool, that wait for others which share the syncs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.config import FootageFolder
from agent.intake.handover import LONGEST_SECONDS, MOST_BYTES, MOST_FILES, Group, Member
from agent.model import Clip, ClipKey, Footage

FOLDER = FootageFolder(Path("/card"))
START = datetime(2026, 7, 28, tzinfo=timezone.utc)


def member(number: int, size_bytes: int = 1000) -> Member:
    footage = Footage(Path(f"/card/{number}.mp4"), size_bytes, 0)
    return Member(FOLDER, Clip(footage, ClipKey("ABC1234X", 1, START, START + timedelta(minutes=1))))


def test_a_group_without_members_is_never_due() -> None:
    group = Group()
    assert not group.is_due(0.0)
    assert not group.is_due(1e6)
    assert group.leave() == []


def test_a_group_is_due_when_it_has_many_files() -> None:
    group = Group()
    for number in range(MOST_FILES):
        assert not group.is_due(0.0)
        group.add(member(number), 0.0)
    assert group.is_due(0.0)


def test_a_group_is_due_when_its_files_are_large() -> None:
    group = Group()
    group.add(member(1, MOST_BYTES - 1), 0.0)
    assert not group.is_due(0.0)
    group.add(member(2, 1), 0.0)
    assert group.is_due(0.0)


def test_a_group_is_due_when_its_first_file_has_waited_for_long() -> None:
    group = Group()
    group.add(member(1), 100.0)
    group.add(member(2), 100.0 + LONGEST_SECONDS / 2)
    assert not group.is_due(100.0 + LONGEST_SECONDS / 2)
    assert group.is_due(100.0 + LONGEST_SECONDS)


def test_after_all_have_left_a_new_group_begins() -> None:
    group = Group()
    first, second = member(1), member(2)
    group.add(first, 0.0)
    assert first.clip.footage in group
    assert group.leave() == [first]
    assert first.clip.footage not in group
    group.add(second, 50.0)
    assert not group.is_due(50.0)
    assert group.leave() == [second]
