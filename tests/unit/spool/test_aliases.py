"""A recorder that locks a clip moves it to its event folder: the same footage, with priority from then on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.model import EVENT_PRIORITY, NORMAL_PRIORITY, Clip, ClipKey, Footage, State, Upload, Verdict
from agent.spool import Spool, Taken
from agent.spool.records import Record
from tests.support.spooling import take

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
DAY = 86_400.0


class Bench:
    """A spool, a recorder's folder and a clock that only the test moves."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.seconds = 1_780_000_000.0
        self.settings = SpoolSettings(place / "spool", min_free_bytes=0, remember_days=30)
        self.spool = Spool(self.settings, lambda: self.seconds)

    def record(self, number: int) -> Clip:
        path = self.place / "Movie" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture %d" % number * 10)
        start = START + timedelta(minutes=number)
        return Clip(Footage.from_stat(path, path.stat()), ClipKey("ABC1234X", 1, start, start + timedelta(seconds=60)))

    def lock(self, clip: Clip) -> Clip:
        """What the intake makes of a clip that the recorder moved into RO."""
        path = self.place / "Movie" / "RO" / clip.footage.path.name
        path.parent.mkdir(exist_ok=True)
        clip.footage.path.rename(path)
        return replace(
            clip,
            footage=Footage.from_stat(path, path.stat()),
            priority=EVENT_PRIORITY,
            comments="locked",
            sources={"event": "folder RO: locked"},
        )

    def take(self, clip: Clip) -> Taken:
        return take(self.spool, clip)

    def claim(self) -> list[Upload]:
        return self.spool.claim(list)

    def record_of(self, taken: Taken) -> Record:
        record = self.spool.ledger.record(taken.id)
        assert record is not None
        return record

    def stored(self) -> list[Path]:
        return list((self.settings.directory / "clips").iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.spool.close()


def test_a_waiting_clip_that_is_locked_gets_priority(bench: Bench) -> None:
    first, second = bench.record(1), bench.record(2)
    bench.take(first)
    taken = bench.take(second)
    locked = bench.lock(second)
    assert bench.take(locked) == Taken(taken.id, State.WAITING, again=True)
    assert [(upload.id, upload.comments) for upload in bench.claim()] == [(taken.id, "locked"), (1, "")]
    assert len(bench.stored()) == 2


def test_the_history_says_where_the_footage_is_and_why_it_has_priority(bench: Bench) -> None:
    clip = bench.record(1)
    taken = bench.take(clip)
    locked = bench.lock(clip)
    bench.take(locked)
    record = bench.record_of(taken)
    assert (record.footage, record.priority, record.reason) == (locked.footage, EVENT_PRIORITY, "")
    assert record.sources["event"] == "folder RO: locked"
    assert record.history[-1].reason.endswith("RO/1.mp4, which marks an event: it goes first now")
    assert bench.spool.state_of(clip.footage) is State.WAITING
    assert bench.spool.state_of(locked.footage) is State.WAITING


def test_a_clip_that_is_being_sent_is_not_disturbed(bench: Bench) -> None:
    clip = bench.record(1)
    taken = bench.take(clip)
    bench.claim()
    bench.take(bench.lock(clip))
    assert bench.record_of(taken).state is State.SENDING
    bench.spool.settle({taken.id: Verdict(State.DELIVERED)})
    assert bench.record_of(taken).state is State.DELIVERED
    assert bench.stored() == []


def test_a_delivered_clip_that_is_locked_is_not_sent_again(bench: Bench) -> None:
    clip = bench.record(1)
    taken = bench.take(clip)
    bench.claim()
    bench.spool.settle({taken.id: Verdict(State.DELIVERED)})
    locked = bench.lock(clip)
    assert bench.take(locked) == Taken(taken.id, State.DELIVERED, again=True)
    assert bench.claim() == []
    assert bench.stored() == []
    assert "goes first" not in bench.record_of(taken).history[-1].reason


def test_a_moved_clip_is_remembered_while_its_new_file_exists(bench: Bench) -> None:
    clip = bench.record(1)
    taken = bench.take(clip)
    bench.claim()
    bench.spool.settle({taken.id: Verdict(State.DELIVERED)})
    locked = bench.lock(clip)
    bench.take(locked)
    bench.seconds += 31 * DAY
    bench.spool.prune([bench.place])
    assert bench.spool.state_of(locked.footage) is State.DELIVERED


def test_a_clip_that_moves_back_keeps_its_priority(bench: Bench) -> None:
    clip = bench.record(1)
    taken = bench.take(clip)
    locked = bench.lock(clip)
    bench.take(locked)
    locked.footage.path.rename(clip.footage.path)
    assert bench.spool.state_of(clip.footage) is State.WAITING
    assert bench.record_of(taken).priority == EVENT_PRIORITY


def test_the_priority_survives_a_restart(bench: Bench) -> None:
    clip = bench.record(1)
    taken = bench.take(clip)
    bench.take(bench.lock(clip))
    bench.spool.close()
    bench.spool = Spool(bench.settings, lambda: bench.seconds)
    assert bench.spool.recover().adopted == 0
    assert bench.record_of(taken).priority == EVENT_PRIORITY


def test_with_the_database_lost_the_next_scan_restores_the_priority(bench: Bench) -> None:
    clip = bench.record(1)
    bench.take(clip)
    locked = bench.lock(clip)
    bench.take(locked)
    bench.spool.close()
    for file in bench.settings.directory.glob("clips.db*"):
        file.unlink()
    bench.spool = Spool(bench.settings, lambda: bench.seconds)
    assert bench.spool.recover().adopted == 1
    (adopted,) = bench.spool.ledger.records()
    assert adopted.priority == NORMAL_PRIORITY
    assert bench.spool.state_of(locked.footage) is None
    again = bench.take(locked)
    assert again == Taken(adopted.id, State.WAITING, again=True)
    assert bench.record_of(again).priority == EVENT_PRIORITY
    assert len(bench.stored()) == 1
