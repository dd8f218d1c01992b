"""The database: what persist-queue does for it, one connection, durable commits, and its layout over versions."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from persistqueue import AckStatus

from agent.config import SpoolSettings
from agent.device.clock import ClockReading
from agent.errors import SpoolError
from agent.model import EVENT_PRIORITY, State, UntrustedClock, Upload, Verdict
from agent.spool import Recovery, Spool, queries, store
from agent.spool.rebuild import set_aside
from tests.support.spooling import Clock, claim, make_clip, take


def version(settings: SpoolSettings) -> int:
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def test_a_new_queue_has_the_current_version(spool: Spool, settings: SpoolSettings) -> None:
    assert version(settings) == store.VERSION == len(store.MIGRATIONS)


def test_a_queue_without_a_version_is_migrated(settings: SpoolSettings, clock: Clock, tmp_path: Path) -> None:
    spool = Spool(settings, clock)
    for number in (1, 2):
        take(spool, make_clip(tmp_path / "footage", number))
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool, 1)})
    spool.close()
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        database.execute("PRAGMA user_version = 0")
        database.execute("DROP INDEX clip_age")
        database.execute("DROP INDEX sighting_clip")
        database.execute("UPDATE spool_clips SET timestamp = 5")
        database.commit()
    spool = Spool(settings, clock)
    assert [record.state for record in spool.ledger.records()] == [State.DELIVERED, State.WAITING]
    spool.close()
    assert version(settings) == 1
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        delivered, waiting = (row[0] for row in database.execute("SELECT timestamp FROM spool_clips ORDER BY _id"))
        assert (delivered, waiting) == (clock.seconds, 5)
        assert database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'clip_age'").fetchone() == (1,)


def test_a_queue_of_a_newer_version_is_refused_and_left_as_it_is(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    spool = Spool(settings, clock)
    take(spool, make_clip(tmp_path / "footage", 1))
    spool.close()
    database_file = settings.directory / "clips.db"
    with closing(sqlite3.connect(database_file)) as database:
        database.execute("PRAGMA user_version = 7")
        database.execute(f"PRAGMA application_id = {store.APPLICATION + 7}")
    before = database_file.read_bytes()
    for _ in range(2):
        with pytest.raises(SpoolError, match=r"newer vision-ingest \(layout 7; this one knows layout 1\)"):
            Spool(settings, clock)
    assert database_file.read_bytes() == before
    assert set_aside(settings.directory) == []


def test_a_damaged_version_is_not_taken_for_a_newer_one(settings: SpoolSettings, clock: Clock, tmp_path: Path) -> None:
    """Otherwise the daemon would not start until a person repairs it."""
    spool = Spool(settings, clock)
    take(spool, make_clip(tmp_path / "footage", 1))
    spool.close()
    for number in (7, -3):
        with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
            database.execute(f"PRAGMA user_version = {number}")
        spool = Spool(settings, clock)
        assert [record.state for record in spool.ledger.records()] == [State.WAITING]
        spool.close()
    assert len(set_aside(settings.directory)) == 2


def test_persist_queue_creates_the_table_and_can_still_work_on_it(settings: SpoolSettings, clock: Clock) -> None:
    """Runs with the lowest and the newest version that is allowed: it holds what is used of the library."""
    Spool(settings, clock).close()
    with closing(store._AckQueue(str(settings.directory), name="clips", db_file_name="clips.db")) as queue:
        assert queue.put({"by": "the library"}) == 1
        assert queue.get(block=False) == {"by": "the library"}
        assert (queue.unack_count(), queue.ready_count(), queue.acked_count()) == (1, 0, 0)
    Spool(settings, clock).close()
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        # Its resume logic: what was in flight is ready again.
        assert database.execute("SELECT _id, status FROM spool_clips").fetchall() == [(1, queries.READY)]
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_codes_of_states_are_those_of_persist_queue() -> None:
    ours = (queries.DEFERRED, queries.READY, queries.SENDING, queries.DELIVERED, queries.REFUSED)
    theirs = (AckStatus.inited, AckStatus.ready, AckStatus.unack, AckStatus.acked, AckStatus.ack_failed)
    assert ours == tuple(map(int, theirs))


def test_nothing_of_the_queue_gives_access_to_the_librarys_own_operations(spool: Spool) -> None:
    """Each of them commits by itself, and not as durably."""
    assert not [name for name in ("put", "get", "ack", "nack", "ack_failed") if hasattr(spool._queue, name)]


def test_there_is_never_a_second_connection(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write and checkpoint at once can corrupt a database of SQLite 3.7.0 to 3.51.2."""
    connect = sqlite3.connect
    counts: list[int] = []

    class Counted(sqlite3.Connection):
        is_open = True

        def close(self) -> None:
            if self.is_open:
                self.is_open = False
                counts.append(counts[-1] - 1)
            super().close()

    def counted(*arguments: Any, **named: Any) -> sqlite3.Connection:
        counts.append(counts[-1] + 1 if counts else 1)
        return connect(*arguments, factory=Counted, **named)

    monkeypatch.setattr(sqlite3, "connect", counted)
    for _ in range(2):
        spool = Spool(settings, clock)
        spool.recover()
        take(spool, make_clip(tmp_path / "footage", 1))
        descriptors = [entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        assert descriptors.count(settings.directory / "clips.db") == 1
        spool.close()
    assert (max(counts), counts[-1]) == (1, 0)


def test_every_commit_is_synced(spool: Spool) -> None:
    assert spool._queue._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_only_a_claim_is_not_synced(spool: Spool, tmp_path: Path) -> None:
    """If a power cut undoes a claim, start-up would have undone it anyway. Everything else must survive."""
    synchronous: list[tuple[str, int]] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            synchronous.append((doing, queue._connection.execute("PRAGMA synchronous").fetchone()[0]))

    queue = spool._queue
    queue._connection.set_trace_callback(note)
    doing = "take in"
    take(spool, make_clip(tmp_path / "footage", 1))
    doing = "claim"
    (upload,) = claim(spool)
    doing = "settle"
    spool.settle({upload.id: Verdict(State.DELIVERED)})
    assert synchronous == [("take in", 2), ("claim", 1), ("settle", 2)]


def test_after_a_failed_claim_commits_are_synced(spool: Spool, tmp_path: Path) -> None:
    take(spool, make_clip(tmp_path / "footage", 1))

    def choose(_: object) -> list[Upload]:
        raise ValueError("no choice")

    with pytest.raises(ValueError, match="no choice"):
        spool.claim(choose)
    assert spool._queue._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def queue_of_revision_1853150(settings: SpoolSettings) -> None:
    """The database and the stored files that this revision left."""
    clips = settings.directory / "clips"
    clips.mkdir(parents=True, mode=0o700)
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript((Path(__file__).parent / "queue_of_1853150.sql").read_text())
        for (data,) in database.execute("SELECT data FROM spool_clips WHERE status NOT IN (5, 8) AND bytes > 0"):
            row = json.loads(data)
            name, size, modified_ns, sample = row["stored"]
            minute = int(row["video"][2][14:16])
            content = b"part %d of two" % row.get("piece", 0) * 10 if row.get("pieces") else b"%02d" % minute * 50
            (clips / name).write_bytes(content)
            os.utime(clips / name, ns=(modified_ns, modified_ns))
            assert size == len(content)
            assert hashlib.blake2b(content, digest_size=16).hexdigest() == sample


def test_a_queue_of_the_version_before_is_taken_over_and_delivered(settings: SpoolSettings, clock: Clock) -> None:
    queue_of_revision_1853150(settings)
    clock.seconds += 120.0
    spool = Spool(settings, clock)
    assert set_aside(settings.directory) == []
    assert spool.recover() == Recovery()
    records = {record.id: record for record in spool.ledger.records()}
    waiting, held, refused = State.WAITING, State.HELD, State.REFUSED
    assert [record.state for record in records.values()] == [
        *(waiting, State.DELIVERED, waiting, held, State.ACCEPTED, refused, State.LOST),
        *(waiting, waiting, held, waiting, waiting, waiting, refused),
    ]
    tried = records[3]
    assert (tried.attempts, tried.batch_failures, tried.max_batch_clips, tried.request_id) == (3, 2, 4, "request-3")
    assert (tried.reason, tried.due) == ("HTTP 500", 1_780_000_660.0)
    assert [(change.state, change.reason) for change in tried.history] == [(waiting, ""), (waiting, "HTTP 500")]
    assert (records[4].reason, records[4].due) == ("no contract for the vehicle", 1_780_003_660.0)
    assert (records[6].reason, records[6].attempts) == ("not an MP4", 1)
    event = records[9]
    assert (event.priority, event.comments) == (EVENT_PRIORITY, "Crash, front")
    assert event.sources == {"registration": "file name", "event": "its folder RO"}
    assert records[10].clock == UntrustedClock("b" * 32, 1_778_999_900, 2)
    assert [(records[id].piece, records[id].pieces) for id in (11, 12)] == [(0, 2), (1, 2)]
    assert records[13].footage.path == Path("/tmp/card/odd_\udcff.mp4")
    assert (records[14].key, records[14].reason) == (None, "it holds no video")
    # Row 1 was found again under another name: both stand for it.
    moved = records[1].footage
    first = replace(moved, path=Path("/tmp/card/ABC1234X_1_01.mp4"), modified_ns=1_779_000_001_000_000_000)
    assert spool.states_of([moved, first, records[2].footage, records[14].footage]) == {
        moved: waiting,
        first: waiting,
        records[2].footage: State.DELIVERED,
        records[14].footage: refused,
    }
    batch = claim(spool)
    assert [upload.id for upload in batch] == [9, 1, 8, 11, 12, 13]
    assert all(upload.file.stat().st_mtime_ns == upload.modified_ns for upload in batch)
    assert {upload.file.read_bytes()[:13] for upload in batch} >= {b"part 0 of two", b"part 1 of two"}
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in batch})
    clock.seconds += 600.0
    assert [(upload.id, upload.attempts) for upload in claim(spool)] == [(3, 3)]
    reading = ClockReading("b" * 32, 500.0, 1_780_001_000.0, trusted=True)
    assert [(record.id, record.state) for record in spool.correct_times(reading, lambda _: None)] == [(10, waiting)]
    spool.retry([4, 6])
    assert [upload.id for upload in claim(spool)] == [4, 6, 10]
    spool.close()
