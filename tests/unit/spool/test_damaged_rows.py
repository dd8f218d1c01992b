"""A damaged row stops nothing, and its clip is still delivered if anything of it can be recovered."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.config import SpoolSettings
from agent.model import EVENT_PRIORITY, State, Verdict
from agent.spool import Spool
from tests.support.spooling import Clock, claim, make_clip, stored, take

DAMAGE = {
    "no JSON": "data = X'FF00'",
    "other JSON": "data = '[1, 2]'",
    "nothing": "data = NULL",
    "text that is none": "data = CAST(X'FF7B' AS TEXT)",
    "very deep JSON": "data = '" + "[" * 100_000 + "'",
    "a number beyond all": """data = '{"path": "x", "size": 1e999, "modified_ns": 1, "reason": "", "history": []}'""",
    "an unknown state": "status = 77",
    "no state": "status = NULL",
    "a state that is text": "status = 'waiting'",
    "a due time that is text": "due = 'now'",
    "a priority that is text": "priority = 'high'",
    "a file elsewhere": """data = replace(data, '"stored": ["', '"stored": ["../')""",
}


def damage(settings: SpoolSettings, change: str, id: int = 1) -> None:
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        database.execute("UPDATE spool_clips SET " + change + " WHERE _id = ?", (id,))  # noqa: S608  # the tests' own
        database.commit()


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_row_is_restored_at_start_up(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, change: str
) -> None:
    spool = Spool(settings, clock)
    clips = [make_clip(tmp_path / "footage", number, b"%d" % number, priority=EVENT_PRIORITY) for number in (1, 2)]
    for clip in clips:
        take(spool, clip)
    spool.close()
    damage(settings, change)
    spool = Spool(settings, clock)
    assert len(list(spool.ledger.records())) == 2
    assert sum(count.clips for count in spool.ledger.counts().values()) == 2
    with capture_logs() as logged:
        recovery = spool.recover()
        assert (recovery.repaired_rows, recovery.lost) == (1, 0)
        spool.recover()
    assert [event["event"] for event in logged] == ["row_damaged"]
    batch = claim(spool)
    assert {upload.key for upload in batch} == {clip.key for clip in clips}
    assert {upload.file.read_bytes() for upload in batch} == {b"1", b"2"}
    assert spool.state_of(clips[0].footage) is State.SENDING
    spool.close()


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_row_that_is_damaged_at_run_time_stops_no_other(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, change: str
) -> None:
    spool = Spool(settings, clock)
    for number in (1, 2, 3):
        take(spool, make_clip(tmp_path / "footage", number))
    damage(settings, change)
    assert {upload.id for upload in claim(spool)} >= {2, 3}
    damage(settings, change, id=2)
    settled = spool.settle({2: Verdict(State.DELIVERED), 3: Verdict(State.DELIVERED)})
    assert [record.state for record in settled] == [State.DELIVERED, State.DELIVERED]
    spool.count_ready(10)
    assert spool.state_of(make_clip(tmp_path / "footage", 9).footage) is None
    spool.retry([1, 2, 3])
    spool.close()
    spool = Spool(settings, clock)
    spool.recover()
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool)})
    assert {State.DELIVERED} == {record.state for record in spool.ledger.records()}
    assert stored(settings) == []
    spool.close()


def test_a_row_that_is_damaged_in_flight_is_sent_again_if_it_was_not_delivered(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    claim(spool)
    damage(settings, "data = X'FF00'")
    assert spool.settle({1: Verdict(State.WAITING, "try again", retry_in_seconds=30)}) == []
    assert [upload.key for upload in claim(spool)] == [clip.key]


def test_a_damaged_row_without_a_stored_file_is_taken_in_again_from_its_footage(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    spool = Spool(settings, clock)
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    spool.close()
    row = {"path": str(clip.footage.path), "size": clip.footage.size_bytes, "modified_ns": clip.footage.modified_ns}
    damage(settings, f"data = '{json.dumps(row)}'")
    stored(settings)[0].unlink()
    spool = Spool(settings, clock)
    spool.recover()
    assert spool.state_of(clip.footage) is None
    assert list(spool.ledger.records()) == []
    spool.close()


def test_a_damaged_row_of_which_nothing_is_left_is_listed_as_lost(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    spool = Spool(settings, clock)
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    spool.close()
    damage(settings, "data = X'FF00'")
    stored(settings)[0].unlink()
    spool = Spool(settings, clock)
    spool.recover()
    (record,) = spool.ledger.records()
    assert (record.state, "damaged" in record.reason) == (State.LOST, True)
    assert spool.state_of(clip.footage) is None
    assert take(spool, clip).state is State.WAITING
    spool.close()


def test_a_damaged_state_is_restored_from_the_history(settings: SpoolSettings, clock: Clock, tmp_path: Path) -> None:
    spool = Spool(settings, clock)
    take(spool, make_clip(tmp_path / "footage", 1))
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool)})
    spool.close()
    damage(settings, "status = 77")
    spool = Spool(settings, clock)
    spool.recover()
    assert [record.state for record in spool.ledger.records()] == [State.DELIVERED]
    spool.close()


def test_footage_whose_refusal_has_expired_becomes_a_clip(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    spool.refuse(clip.footage, "no registration", "rules", 600)
    clock.seconds += 601
    assert spool.state_of(clip.footage) is None
    assert take(spool, clip).state is State.WAITING
    assert [record.state for record in spool.ledger.records()] == [State.WAITING]


def test_two_stored_files_with_one_key_are_not_both_sent_when_rows_are_lost(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    spool = Spool(settings, clock)
    take(spool, make_clip(tmp_path / "footage", 1))
    take(spool, make_clip(tmp_path / "other", 1, b"y" * 100))
    spool.close()
    (settings.directory / "clips.db").unlink()
    spool = Spool(settings, clock)
    assert spool.recover().adopted == 2
    assert [record.state for record in spool.ledger.records()] == [State.WAITING, State.REFUSED]
    spool.close()


@pytest.mark.parametrize("change", ["status = 5", "status = 8", """data = replace(data, '"stored"', '"stOred"')"""])
def test_a_damaged_row_that_says_delivered_does_not_remove_its_file(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, change: str
) -> None:
    spool = Spool(settings, clock)
    spool.recover()
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    clip.footage.path.unlink()
    spool.close()
    damage(settings, change)
    spool = Spool(settings, clock)
    spool.recover()
    assert [upload.key for upload in claim(spool)] == [clip.key]
    assert len(stored(settings)) == 1
    spool.close()
