"""Clips that wait for this device's clock, on real files and a real database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.device.clock import ClockReading
from agent.model import Clip, ClipKey, Footage, State, UntrustedClock, Verdict
from agent.spool import Spool, Taken
from agent.spool.files import name_for, read_name
from agent.spool.records import Record
from tests.support.clocks import BOOT
from tests.support.spooling import take

RIGHT = 1_790_000_000
NEXT_BOOT = "c" * 32
UNSET = UntrustedClock(BOOT, boot_time=0, lag_seconds=2)
NOT_YET = ClockReading(BOOT, 300.0, 300.0, trusted=False)
SET = ClockReading(BOOT, 400.0, RIGHT + 400.0, trusted=True)
SET_IN_NEXT_BOOT = replace(SET, boot_id=NEXT_BOOT)


@pytest.fixture
def settings(tmp_path: Path) -> SpoolSettings:
    return SpoolSettings(tmp_path / "spool", max_bytes=10_000, min_free_bytes=0)


class Bench:
    """A spool that can be reopened, as after a power cut."""

    def __init__(self, settings: SpoolSettings, footage: Path) -> None:
        self.settings = settings
        self.footage = footage
        footage.mkdir()
        self.wall = 300.0
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(self.settings, lambda: self.wall)

    def reopen(self) -> Spool:
        self.spool.close()
        self.spool = self.open()
        self.spool.recover()
        return self.spool

    def clip(
        self, start: int, content: bytes = b"x" * 100, clock: UntrustedClock | None = UNSET, name: str = ""
    ) -> Clip:
        path = self.footage / (name or f"{start}-{len(content)}.mp4")
        path.write_bytes(content)
        os.utime(path, (start + 62, start + 62))
        begin = datetime.fromtimestamp(start, tz=timezone.utc)
        video = ClipKey("ABC1234X", 1, begin, begin + timedelta(seconds=60))
        return Clip(Footage.from_stat(path, path.stat()), video, sources={"start": "file name"}, clock=clock)

    def take(self, clip: Clip) -> Taken:
        return take(self.spool, clip)

    def correct_times(self, clock: ClockReading, doubt: str | None = None) -> list[Record]:
        return self.spool.correct_times(clock, lambda _: doubt)

    def record(self, id: int) -> Record:
        record = self.spool.ledger.record(id)
        assert record is not None
        return record

    def files(self) -> list[str]:
        return sorted(file.name for file in (self.settings.directory / "clips").iterdir())


@pytest.fixture
def bench(settings: SpoolSettings, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(settings, tmp_path / "footage")
    yield made
    made.spool.close()


def start_of(record: Record) -> int:
    assert record.key is not None
    return round(record.key.start.timestamp())


def test_a_clip_with_an_untrusted_time_is_held_and_never_claimed(bench: Bench) -> None:
    taken = bench.take(bench.clip(100))
    assert taken.state is State.HELD
    assert "clock not yet trusted" in taken.reason
    for wall in (300.0, 300.0 + 10 * 365 * 86_400):
        bench.wall = wall
        assert bench.spool.claim(list) == []
        assert bench.spool.ledger.next_due() is None


def test_it_stays_held_while_the_clock_is_not_trusted(bench: Bench) -> None:
    taken = bench.take(bench.clip(100))
    assert bench.correct_times(NOT_YET) == []
    assert bench.record(taken.id).state is State.HELD


def test_its_time_is_corrected_when_the_clock_is_set_in_the_same_boot(bench: Bench) -> None:
    clip = bench.clip(100)
    taken = bench.take(clip)
    dates = clip.footage.path.stat().st_mtime_ns
    (changed,) = bench.correct_times(SET)
    assert (changed.state, start_of(changed)) == (State.WAITING, RIGHT + 100)
    assert bench.record(taken.id) == changed
    assert "1970-01-01 00:01:40 UTC by this device's clock before it was set" in changed.sources["start"]
    (upload,) = bench.spool.claim(list)
    assert upload.key == changed.key
    assert upload.file.read_bytes() == b"x" * 100
    assert upload.file.stat().st_mtime_ns == dates == upload.modified_ns


def test_a_clock_that_was_right_all_along_releases_it_unchanged(bench: Bench) -> None:
    taken = bench.take(bench.clip(100))
    (changed,) = bench.correct_times(replace(NOT_YET, wall=301.0, trusted=True))
    assert (changed.id, changed.state, start_of(changed)) == (taken.id, State.WAITING, 100)


def test_its_time_is_corrected_after_a_restart_in_the_same_boot(bench: Bench) -> None:
    taken = bench.take(bench.clip(100))
    bench.reopen()
    assert bench.record(taken.id).clock == UNSET
    (changed,) = bench.correct_times(SET)
    assert start_of(changed) == RIGHT + 100


@pytest.mark.parametrize("clock", [SET_IN_NEXT_BOOT, replace(NOT_YET, boot_id=NEXT_BOOT)])
def test_after_another_boot_it_stays_held_and_says_what_to_do(bench: Bench, clock: ClockReading) -> None:
    taken = bench.take(bench.clip(100))
    bench.reopen()
    (changed,) = bench.correct_times(clock)
    assert changed.state is State.HELD
    assert "switched off before" in changed.reason
    assert "vision-ingest retry" in changed.reason
    assert bench.correct_times(clock) == []
    assert bench.spool.claim(list) == []
    bench.spool.retry([taken.id])
    (upload,) = bench.spool.claim(list)
    assert upload.key.start.timestamp() == 100
    assert upload.file.exists()


def test_a_camera_with_a_clock_of_its_own_is_released_unchanged_in_any_boot(bench: Bench) -> None:
    clock = replace(UNSET, lag_seconds=-9000)
    bench.take(bench.clip(RIGHT, clock=clock))
    assert bench.correct_times(NOT_YET) == []
    assert bench.correct_times(replace(NOT_YET, boot_id=NEXT_BOOT)) == []
    (changed,) = bench.correct_times(SET_IN_NEXT_BOOT)
    assert (changed.state, start_of(changed)) == (State.WAITING, RIGHT)


def test_a_corrected_time_that_cannot_be_right_is_refused_with_the_reason(bench: Bench) -> None:
    clock = replace(UNSET, lag_seconds=-9000)
    taken = bench.take(bench.clip(RIGHT + 86_400, clock=clock))
    (changed,) = bench.correct_times(SET, doubt="it is in the future")
    assert changed.state is State.REFUSED
    assert changed.reason.startswith("it is in the future")
    bench.spool.retry([taken.id])
    assert [upload.id for upload in bench.spool.claim(list)] == [taken.id]


def test_untrusted_times_of_different_boots_do_not_conflict(bench: Bench) -> None:
    first = bench.take(bench.clip(100, b"one"))
    second = bench.take(bench.clip(100, b"other", clock=replace(UNSET, boot_id=NEXT_BOOT)))
    assert (first.state, second.state) == (State.HELD, State.HELD)
    third = bench.take(bench.clip(100, b"another", clock=None))
    assert third.state is State.WAITING


def test_a_corrected_time_may_conflict_with_another_clip(bench: Bench) -> None:
    other = bench.take(bench.clip(RIGHT + 100, b"one", clock=None))
    held = bench.take(bench.clip(100, b"other"))
    (changed,) = bench.correct_times(SET)
    assert (changed.id, changed.state) == (held.id, State.REFUSED)
    assert f"clip {other.id}" in changed.reason
    assert len(bench.files()) == 2


def test_a_corrected_clip_may_be_a_duplicate(bench: Bench) -> None:
    first = bench.take(bench.clip(RIGHT + 100, b"same", clock=None))
    again = bench.clip(100, b"same", name="again.mp4")
    bench.take(again)
    assert bench.correct_times(SET) == []
    assert [record.id for record in bench.spool.ledger.records()] == [first.id]
    assert len(bench.files()) == 1
    assert bench.spool.state_of(again.footage) is State.WAITING


def test_two_clips_corrected_to_the_same_time_are_not_both_sent(bench: Bench) -> None:
    bench.take(bench.clip(100, b"one"))
    bench.take(bench.clip(100, b"other"))
    assert [record.state for record in bench.correct_times(SET)] == [State.WAITING, State.REFUSED]


def test_a_clip_that_was_retried_by_hand_meanwhile_is_left_alone(bench: Bench) -> None:
    taken = bench.take(bench.clip(100))
    bench.spool.retry([taken.id])
    (upload,) = bench.spool.claim(list)
    assert bench.correct_times(SET) == []
    assert upload.file.exists()
    assert start_of(bench.record(taken.id)) == 100


def test_the_name_of_a_stored_file_says_that_its_time_is_untrusted(bench: Bench) -> None:
    clip = bench.clip(100)
    said = read_name(name_for(clip))
    assert said is not None
    assert (said.key, said.clock, said.text) == (clip.key, UNSET, name_for(clip))


def test_a_held_clip_without_its_row_is_held_again(bench: Bench) -> None:
    """The power went between storing the file and writing its row, or the database was lost."""
    taken = bench.take(bench.clip(100))
    bench.spool._queue.delete(taken.id)
    bench.reopen()
    (record,) = bench.spool.ledger.records()
    assert (record.state, record.clock) == (State.HELD, UNSET)
    (changed,) = bench.correct_times(SET)
    assert start_of(changed) == RIGHT + 100
    assert [upload.file.name for upload in bench.spool.claim(list)] == bench.files()


def test_a_corrected_clip_keeps_its_time_when_its_row_is_lost(bench: Bench) -> None:
    taken = bench.take(bench.clip(100))
    bench.correct_times(SET)
    bench.spool._queue.delete(taken.id)
    bench.reopen()
    (record,) = bench.spool.ledger.records()
    assert (record.state, start_of(record)) == (State.WAITING, RIGHT + 100)


@pytest.mark.parametrize("boot", [BOOT, NEXT_BOOT])
def test_a_power_cut_between_rename_and_row_is_completed_at_start_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    taken = bench.take(bench.clip(100))
    other = bench.take(bench.clip(160, b"y" * 50))

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.spool._queue, "rewrite", power_cut)
    with pytest.raises(KeyboardInterrupt):
        bench.correct_times(SET)
    bench.reopen()
    record = bench.record(taken.id)
    assert (record.state, record.clock, start_of(record)) == (State.WAITING, None, RIGHT + 100)
    assert [upload.file.exists() for upload in bench.spool.claim(list)] == [True]
    assert bench.record(other.id).state is State.HELD
    (changed,) = bench.correct_times(replace(SET, boot_id=boot))
    assert changed.state is (State.WAITING if boot == BOOT else State.HELD)


def test_a_power_cut_before_a_duplicate_is_removed_leaves_no_second_clip(bench: Bench) -> None:
    first = bench.take(bench.clip(RIGHT + 100, b"same", clock=None))
    second = bench.take(bench.clip(100, b"same", name="again.mp4"))
    # What the power cut leaves: the row is gone, the file is still there.
    bench.spool._queue.replace_by_alias(second.id, first.id, bench.record(second.id).footage.identity)
    bench.reopen()
    assert bench.correct_times(SET) == []
    assert [record.id for record in bench.spool.ledger.records()] == [first.id]
    assert len(bench.files()) == 1


def test_a_held_clip_whose_bytes_are_gone_is_lost_not_held_forever(bench: Bench) -> None:
    clip = bench.clip(100)
    taken = bench.take(clip)
    (bench.settings.directory / "clips" / bench.files()[0]).unlink()
    clip.footage.path.unlink()
    bench.reopen()
    assert bench.record(taken.id).state is State.LOST
    assert bench.correct_times(SET) == []


def test_the_budget_counts_corrected_clips_once(bench: Bench) -> None:
    bench.take(bench.clip(100))
    bench.correct_times(SET)
    (upload,) = bench.spool.claim(list)
    bench.spool.settle({upload.id: Verdict(State.DELIVERED)})
    assert bench.spool._budget.stored_bytes == 0
    assert bench.files() == []


@pytest.mark.parametrize("years", [1, -1])
def test_a_clock_step_of_a_year_neither_delays_a_clip_nor_uses_its_attempts(bench: Bench, years: int) -> None:
    bench.wall = float(RIGHT)
    taken = bench.take(bench.clip(RIGHT - 100, clock=None))
    bench.spool.claim(list)
    bench.spool.settle({taken.id: Verdict(State.WAITING, "later", retry_in_seconds=600.0, attempts=2)})
    assert bench.spool.claim(list) == []
    bench.wall += years * 365 * 86_400.0
    (upload,) = bench.spool.claim(list)
    assert upload.attempts == 2
    bench.spool.settle({taken.id: Verdict(State.WAITING, "later", retry_in_seconds=600.0, attempts=3)})
    assert bench.spool.claim(list) == []


def test_a_clock_step_back_of_a_year_does_not_prolong_a_refusal(bench: Bench) -> None:
    bench.wall = float(RIGHT)
    footage = bench.clip(RIGHT).footage
    bench.spool.refuse(footage, "in the future", "rules", 3600.0)
    assert bench.spool.state_of(footage) is State.REFUSED
    bench.wall -= 365 * 86_400.0
    assert bench.spool.state_of(footage) is None
