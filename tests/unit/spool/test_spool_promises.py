"""What the spool promises, on real files and a real database."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.config import SpoolSettings
from agent.errors import FootageGone, FootageRefused, SpoolError, SpoolFull, SpoolLocked
from agent.model import EVENT_PRIORITY, ClipKey, Footage, State, Verdict
from agent.spool import Recovery, Spool, Taken
from agent.spool.files import name_for, read_name
from agent.spool.queries import open_ledger
from agent.spool.records import Record, RowUnreadable, Stored, from_json, to_json
from tests.support.spooling import START, Clock, claim, make_clip, reopen, stored, take


def test_a_clip_is_a_hard_link_of_its_footage(spool: Spool, settings: SpoolSettings, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    (file,) = stored(settings)
    assert file.stat().st_ino == clip.footage.path.stat().st_ino


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_a_link_is_impossible_the_clip_is_a_copy(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", refuse)
    clip = make_clip(tmp_path / "footage", 1, os.urandom(3000))
    take(spool, clip)
    (file,) = stored(settings)
    assert file.stat().st_ino != clip.footage.path.stat().st_ino
    assert file.read_bytes() == clip.footage.path.read_bytes()
    assert file.stat().st_mtime_ns == clip.footage.modified_ns


def test_a_copy_needs_space_and_a_full_spool_takes_nothing(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpoolFull, match=r"spool\.max_bytes"):
        take(spool, make_clip(tmp_path / "footage", 1, b"x" * 10_001))
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EXDEV, "other card")))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50))
    with pytest.raises(SpoolFull, match="no room for a copy"):
        take(spool, make_clip(tmp_path / "footage", 2))
    assert stored(settings) == []
    assert list(spool.ledger.records()) == []


def test_footage_on_a_failing_card_is_refused_and_inspected_again(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> Callable[..., int]:
        def call(*_: object, **__: object) -> int:
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "link", fail(errno.EXDEV))
    monkeypatch.setattr(os, "sendfile", fail(errno.EIO))
    with pytest.raises(FootageRefused, match="card may be failing") as refusal:
        take(spool, make_clip(tmp_path / "footage", 1))
    assert refusal.value.retry_after_seconds == 600
    assert stored(settings) == []


def test_footage_that_changed_since_its_inspection_is_not_taken(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    clip.footage.path.write_bytes(b"other, and longer than before" * 10)
    with pytest.raises(FootageGone):
        take(spool, clip)
    clip.footage.path.unlink()
    with pytest.raises(FootageGone):
        take(spool, clip)
    assert stored(settings) == []


def test_a_stored_name_contains_all_that_delivery_needs(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "footage", 1, key=ClipKey("A_B /Ü-9", 12, START, START + timedelta(seconds=7)))
    said = read_name(name_for(clip))
    assert said is not None
    assert (said.key, said.identity, said.piece) == (clip.key, clip.footage.identity, 0)
    assert read_name("notes.txt") is None
    assert read_name(name_for(clip).replace("20260728", "20261399")) is None


def test_urgent_clips_are_claimed_first_and_each_only_once(spool: Spool, tmp_path: Path) -> None:
    for number in (1, 2):
        take(spool, make_clip(tmp_path / "footage", number))
    take(spool, make_clip(tmp_path / "footage", 3, priority=EVENT_PRIORITY))
    assert [upload.id for upload in claim(spool)] == [3, 1, 2]
    assert claim(spool) == []


def test_clips_in_flight_come_back_after_a_crash(
    spool: Spool, settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    assert len(claim(spool)) == 1
    spool = reopen(spool, settings, clock)
    assert spool.recover() == Recovery()
    assert len(claim(spool)) == 1
    spool.close()


def test_release_gives_clips_back_untouched(spool: Spool, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    before = claim(spool)
    spool.release([before[0].id])
    assert claim(spool) == before
    spool.release_all()
    assert claim(spool) == before


def test_only_the_file_of_a_delivered_or_lost_clip_is_removed(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    states = [state for state in State if state is not State.SENDING]
    for number, state in enumerate(states):
        take(spool, make_clip(tmp_path / "footage", number))
        (upload,) = claim(spool)
        spool.settle({upload.id: Verdict(state, "so it was decided", retry_in_seconds=60)})
    kept = {read_name(file.name) for file in stored(settings)}
    assert len(kept) == len(states) - 2
    assert spool.ledger.counts()[State.DELIVERED].clips == 1


def test_a_deferred_clip_waits_until_it_is_due(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    claim(spool)
    spool.settle({1: Verdict(State.WAITING, "try again", retry_in_seconds=30, attempts=1)})
    assert spool.count_ready(10) == 0
    assert spool.ledger.next_due() == clock.seconds + 30
    clock.seconds += 31
    assert spool.count_ready(10) == 1
    assert claim(spool)[0].attempts == 1


def test_a_clock_that_is_set_back_by_a_year_does_not_hold_a_clip(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    claim(spool)
    spool.settle({1: Verdict(State.HELD, "no contract", retry_in_seconds=3600)})
    clock.seconds -= 365 * 86_400
    assert len(claim(spool)) == 1


def test_a_held_clip_is_tried_again(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    claim(spool)
    spool.settle({1: Verdict(State.HELD, "no contract", retry_in_seconds=3600)})
    clock.seconds += 3601
    assert len(claim(spool)) == 1


def test_retry_by_hand_gives_a_refused_clip_all_its_attempts_again(spool: Spool, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    claim(spool)
    spool.settle({1: Verdict(State.REFUSED, "gave up", attempts=5, batch_failures=4, max_batch_clips=1)})
    assert [record.state for record in spool.retry([1])] == [State.WAITING]
    (upload,) = claim(spool)
    assert (upload.attempts, upload.batch_failures, upload.max_batch_clips) == (0, 0, None)
    assert spool.retry([1]) == []
    assert spool.retry([999]) == []


def test_refused_footage_is_inspected_again_only_for_a_reason(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    footage = make_clip(tmp_path / "footage", 1).footage
    spool.refuse(footage, "no registration", "rules-1", None)
    assert spool.state_of(footage) is State.REFUSED
    assert spool.drop_outdated_refusals(["rules-1"]) == 0
    assert spool.drop_outdated_refusals(["rules-2"]) == 1
    assert spool.state_of(footage) is None
    spool.refuse(footage, "from the future", "rules-2", 3600)
    spool.refuse(footage, "from the future", "rules-2", 3600)
    assert [record.reason for record in spool.ledger.records()] == ["from the future"]
    clock.seconds += 3601
    assert spool.state_of(footage) is None
    spool.refuse(footage, "still", "rules-2", None)
    (record,) = spool.ledger.records()
    spool.retry([record.id])
    assert spool.state_of(footage) is None


def test_the_states_of_many_pieces_of_footage_are_read_at_once(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    clips = [make_clip(tmp_path / "footage", number) for number in range(3)]
    take(spool, clips[0])
    claim(spool)
    spool.settle({1: Verdict(State.DELIVERED)})
    take(spool, clips[1])
    moved = make_clip(tmp_path / "footage" / "locked", 1)
    assert take(spool, moved).again
    unknown = [Footage(tmp_path / "footage" / f"{number}", number, number) for number in range(1200)]
    assert spool.states_of([*unknown, *(clip.footage for clip in (*clips, moved))]) == {
        clips[0].footage: State.DELIVERED,
        clips[1].footage: State.WAITING,
        moved.footage: State.WAITING,
    }


def test_the_revision_grows_only_when_a_row_changes(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    before = spool.revision
    spool.state_of(clip.footage)
    assert spool.revision == before
    take(spool, clip)
    assert spool.revision > before
    begin = clock.seconds
    spool.refuse(make_clip(tmp_path / "footage", 2).footage, "unreadable", "rules", 600)
    spool.refuse(make_clip(tmp_path / "footage", 3).footage, "no name", "rules", None)
    assert not spool.has_refusal_expired(begin, begin + 599)
    assert spool.has_refusal_expired(begin + 599, begin + 600)
    assert not spool.has_refusal_expired(begin + 600, begin + 6000)


def test_footage_on_an_unplugged_card_is_not_gone(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    card = tmp_path / "footage"
    clip = make_clip(card, 1)
    take(spool, clip)
    claim(spool)
    spool.settle({1: Verdict(State.DELIVERED)})
    clock.seconds += 31 * 86_400
    card.rename(tmp_path / "pulled")
    spool.prune([])
    spool.prune([card])
    (tmp_path / "pulled").rename(card)
    assert spool.state_of(clip.footage) is State.DELIVERED
    make_clip(card, 2)
    clip.footage.path.unlink()
    clock.seconds += 31 * 86_400
    spool.prune([card])
    assert list(spool.ledger.records()) == []


def test_the_same_recording_under_another_name_is_not_sent_twice(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    first = take(spool, clip)
    (tmp_path / "locked").mkdir()
    moved = clip.footage.path.rename(tmp_path / "locked" / "1.mp4")
    again = replace(clip, footage=Footage.from_stat(moved, moved.stat()))
    assert take(spool, again) == Taken(first.id, State.WAITING, again=True)
    assert len(stored(settings)) == 1
    assert spool.state_of(again.footage) is State.WAITING


def test_a_conflicting_recording_is_refused_and_can_be_sent_by_hand(spool: Spool, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    conflicting = take(spool, make_clip(tmp_path / "other", 1, b"y" * 100))
    assert conflicting.state is State.REFUSED
    assert "same registration, camera and times" in conflicting.reason
    spool.retry([conflicting.id])
    assert {upload.id for upload in claim(spool)} == {1, conflicting.id}


def test_new_footage_under_a_used_name_is_new(spool: Spool, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    clip.footage.path.unlink()
    clip.footage.path.write_bytes(b"new" * 50)
    assert spool.state_of(Footage.from_stat(clip.footage.path, clip.footage.path.stat())) is None


def test_a_stored_file_without_a_row_is_adopted_with_all_its_values(
    spool: Spool, settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "footage", 1, priority=EVENT_PRIORITY)
    take(spool, clip)
    spool.close()
    for file in settings.directory.glob("clips.db*"):
        file.unlink()
    clip.footage.path.unlink()
    spool = Spool(settings, clock)
    assert spool.recover() == Recovery(adopted=1)
    (upload,) = claim(spool)
    assert upload.key == clip.key
    assert upload.file.read_bytes() == b"x" * 100
    assert spool.state_of(clip.footage) is State.SENDING
    spool.close()


def test_the_file_of_a_delivered_clip_that_a_crash_left_is_removed(
    spool: Spool, settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    take(spool, clip)
    (file,) = stored(settings)
    claim(spool)
    spool.settle({1: Verdict(State.DELIVERED)})
    os.link(clip.footage.path, file)
    spool = reopen(spool, settings, clock)
    assert spool.recover() == Recovery(removed=1)
    assert stored(settings) == []
    spool.close()


def test_a_clip_whose_file_is_gone_is_taken_in_again_or_lost(
    spool: Spool, settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    with_footage, without = make_clip(tmp_path / "footage", 1), make_clip(tmp_path / "footage", 2)
    take(spool, with_footage)
    take(spool, without)
    for file in stored(settings):
        file.unlink()
    without.footage.path.unlink()
    spool = reopen(spool, settings, clock)
    assert spool.recover() == Recovery(requeued=1, lost=1)
    assert spool.state_of(with_footage.footage) is None
    (record,) = spool.ledger.records([State.LOST])
    assert "neither the spool nor the footage" in record.reason
    spool.close()


def test_delivered_clips_are_pruned_only_when_their_footage_is_gone(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    gone, there = make_clip(tmp_path / "footage", 1), make_clip(tmp_path / "footage", 2)
    for clip in (gone, there):
        take(spool, clip)
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool)})
    gone.footage.path.unlink()
    spool.prune([tmp_path / "footage"])
    assert len(list(spool.ledger.records())) == 2
    clock.seconds += 31 * 86_400
    spool.prune([tmp_path / "footage"])
    assert [record.footage for record in spool.ledger.records()] == [there.footage]


def test_a_path_that_is_not_valid_text_survives(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "footage").mkdir()
    path = tmp_path / "footage" / os.fsdecode(b"odd\xff\n\x1b[31m.mp4")
    path.write_bytes(b"x")
    clip = replace(make_clip(tmp_path / "footage", 1), footage=Footage.from_stat(path, path.stat()))
    take(spool, clip)
    (record,) = spool.ledger.records()
    assert record.footage == clip.footage


def test_a_second_process_is_kept_out_and_told_the_first_ones_id(spool: Spool, settings: SpoolSettings) -> None:
    code = (
        "import sys, time; from pathlib import Path; from agent.config import SpoolSettings; from agent.spool import "
        "Spool; Spool(SpoolSettings(Path(sys.argv[1])), time.time)"
    )
    second = subprocess.run(
        [sys.executable, "-c", code, str(settings.directory)], capture_output=True, text=True, check=False
    )
    assert "SpoolLocked" in second.stderr
    assert f"process {os.getpid()}" in second.stderr
    with pytest.raises(SpoolLocked):
        Spool(settings, Clock())


def test_only_the_owner_may_enter_the_directories(spool: Spool, settings: SpoolSettings) -> None:
    assert settings.directory.stat().st_mode & 0o777 == 0o700
    assert (settings.directory / "clips").stat().st_mode & 0o777 == 0o700


def test_the_ledger_can_be_read_beside_the_daemon_or_says_why_not(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    with open_ledger(settings.directory) as ledger:
        assert [record.id for record in ledger.records()] == [1]
    with pytest.raises(SpoolError, match="holds no spool yet"), open_ledger(tmp_path):
        pass
    (tmp_path / "clips.db").write_bytes(b"this is no database, and long enough to be looked at as one" * 20)
    with pytest.raises(SpoolError, match="cannot be read"), open_ledger(tmp_path):
        pass


def test_commands_that_only_read_cannot_write(spool: Spool, settings: SpoolSettings, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))
    with open_ledger(settings.directory) as ledger:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            ledger._connection.execute("DELETE FROM spool_clips")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            ledger._connection.execute("PRAGMA user_version = 7")


def test_a_directory_that_cannot_be_a_spool_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="file/spool"):
        Spool(SpoolSettings(tmp_path / "file" / "spool"), Clock())


@pytest.mark.parametrize("letter", ["\u0e01", "\u8c61", "\U00020000"], ids=["Thai", "Chinese", "rare Chinese"])
def test_a_registration_in_any_script_fits_into_the_stored_name(spool: Spool, tmp_path: Path, letter: str) -> None:
    clip = make_clip(tmp_path / "footage", 1, key=ClipKey(letter * 20, 255, START, START + timedelta(seconds=7)))
    take(spool, clip)
    said = read_name(name_for(clip))
    assert said is not None
    assert said.key == clip.key


@pytest.mark.parametrize("odd", ["\u0661", "9" * 100])
def test_a_file_name_with_odd_digits_is_not_a_stored_clip(tmp_path: Path, odd: str) -> None:
    name = name_for(make_clip(tmp_path / "footage", 1))
    assert read_name(name.replace("_1_p", f"_{odd}_p")) is None
    assert read_name(name.replace("-0.mp4", f"-{odd}.mp4")) is None


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", ".", "", "a\0b"])
def test_a_row_whose_file_name_leaves_the_clips_directory_is_unreadable(name: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    row = to_json(Record.of_clip(clip, Stored("clip.mp4", 1, 1, "00"), State.WAITING, "", START))
    assert from_json(1, State.WAITING, 0.0, 0, row).stored == Stored("clip.mp4", 1, 1, "00")
    row["stored"][0] = name
    with pytest.raises(RowUnreadable):
        from_json(1, State.WAITING, 0.0, 0, row)


def test_a_row_with_an_infinite_number_is_unreadable(tmp_path: Path) -> None:
    row = to_json(Record.of_clip(make_clip(tmp_path / "f", 1), Stored("c.mp4", 1, 1, "0"), State.WAITING, "", START))
    with pytest.raises(RowUnreadable):
        from_json(1, State.WAITING, 0.0, 0, row | {"size": float("inf")})
