"""A database that is damaged as a whole is set aside, and nothing that can be recovered is lost with it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.config import SpoolSettings
from agent.errors import SpoolError
from agent.model import State, Verdict
from agent.spool import Spool, rebuild, store
from agent.spool.queries import open_ledger
from agent.spool.rebuild import KEPT, set_aside
from tests.support.spooling import Clock, claim, make_clip, take, take_all

Damage = Callable[[Path], None]
ROUNDS = 150


def fill(settings: SpoolSettings, clock: Clock, folder: Path, *, clips: int = 12) -> None:
    """Every third clip delivered, every third refused, the others waiting."""
    spool = Spool(settings, clock)
    take_all(spool, (make_clip(folder, number, b"%3d" % number * 30) for number in range(clips)))
    verdicts = {}
    for upload in claim(spool):
        if upload.id % 3 == 0:
            verdicts[upload.id] = Verdict(State.DELIVERED)
        elif upload.id % 3 == 1:
            verdicts[upload.id] = Verdict(State.REFUSED, "the API refuses the file")
    spool.settle(verdicts)
    spool.release_all()
    spool.close()


def rebuilt(settings: SpoolSettings, clock: Clock) -> tuple[Spool, int]:
    """Opens a spool whose queue is damaged: the spool, and how many rows were copied into the new queue."""
    with capture_logs() as logged:
        spool = Spool(settings, clock)
    (event,) = [event for event in logged if event["event"] == "queue_damaged"]
    assert Path(event["set_aside"]).exists()
    return spool, event["rows_saved"]


def truncated(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def of_zero_length(database: Path) -> None:
    os.truncate(database, 0)


def garbled_at_its_head(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(random.Random(1).randbytes(4096))


def garbled_in_the_middle(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 3)
        file.write(random.Random(1).randbytes(8192))


def with_another_table(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE spool_clips (_id INTEGER PRIMARY KEY, something TEXT)")


def text(database: Path) -> None:
    database.write_text("this is no database, and long enough to be looked at as one\n" * 20)


@pytest.mark.parametrize(
    "damage", [truncated, of_zero_length, garbled_at_its_head, garbled_in_the_middle, with_another_table, text]
)
def test_a_damaged_queue_is_set_aside_and_every_clip_is_still_known(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, damage: Damage
) -> None:
    fill(settings, clock, tmp_path / "footage")
    files = {file.name for file in (settings.directory / "clips").iterdir()}
    damage(settings.directory / "clips.db")
    with capture_logs() as logged:
        spool = Spool(settings, clock)
    assert [event["event"] for event in logged if event["log_level"] == "warning"] == ["queue_damaged"]
    recovery = spool.recover()
    assert recovery.lost == 0
    assert {record.stored.name for record in spool.ledger.records() if record.stored} >= files
    assert len(set_aside(settings.directory)) == 1
    assert [event["set_aside"] for event in logged if "set_aside" in event] == list(
        map(str, set_aside(settings.directory))
    )
    spool.close()
    Spool(settings, clock).close()
    assert len(set_aside(settings.directory)) == 1


def test_rows_that_can_still_be_read_keep_number_state_and_reason(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    """Otherwise what was delivered would be sent again, and what was refused too."""
    fill(settings, clock, tmp_path / "footage", clips=90)
    before = {id: (state, reason) for id, state, reason in rows(settings)}
    garbled_in_the_middle(settings.directory / "clips.db")
    spool, saved = rebuilt(settings, clock)
    after = {id: (state, reason) for id, state, reason in rows(settings)}
    assert 0 < len(after) == saved < 90
    assert after.items() <= before.items()
    spool.close()


def test_a_missing_log_of_the_database_loses_no_clip(settings: SpoolSettings, clock: Clock, tmp_path: Path) -> None:
    """SQLite opens such a database without an error, with fewer rows."""
    fill(settings, clock, tmp_path / "footage", clips=3)
    spool = Spool(settings, clock)
    take_all(spool, (make_clip(tmp_path / "footage", number) for number in range(10, 20)))
    power_cut(settings, without_log=True)
    spool.close()
    copy = Spool(replace_directory(settings), clock)
    assert len(list(copy.ledger.records())) == 3
    assert copy.recover().adopted == 10
    assert copy.ledger.counts()[State.WAITING].clips == 11
    copy.close()


@pytest.mark.parametrize("kept_bytes", [0, 20, 5000, 60_000])
def test_a_torn_log_of_the_database_loses_no_clip(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, kept_bytes: int
) -> None:
    spool = Spool(settings, clock)
    take_all(spool, (make_clip(tmp_path / "footage", number) for number in range(20)))
    power_cut(settings, log_bytes=kept_bytes)
    spool.close()
    copy = Spool(replace_directory(settings), clock)
    copy.recover()
    assert copy.ledger.counts()[State.WAITING].clips == 20
    copy.close()


def test_a_delivered_clip_that_a_restored_backup_lists_as_waiting_is_sent_again(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    spool = Spool(settings, clock)
    take(spool, clip)
    spool.close()
    old = (settings.directory / "clips.db").read_bytes()
    spool = Spool(settings, clock)
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool)})
    spool.close()
    (settings.directory / "clips.db").write_bytes(old)
    spool = Spool(settings, clock)
    assert spool.recover().requeued == 1
    assert spool.state_of(clip.footage) is None
    spool.close()


def test_only_a_few_damaged_databases_are_kept(settings: SpoolSettings, clock: Clock) -> None:
    settings.directory.mkdir(parents=True)
    for number in range(KEPT + 2):
        clock.seconds -= number
        text(settings.directory / "clips.db")
        spool, _ = rebuilt(settings, clock)
        spool.close()
    assert len(set_aside(settings.directory)) == KEPT


def test_a_start_fails_if_the_new_queue_is_damaged_too(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, clock, tmp_path / "footage", clips=1)
    text(settings.directory / "clips.db")

    def fail(_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(store, "migrate", fail)
    with pytest.raises(SpoolError, match="malformed"):
        Spool(settings, clock)
    assert len(set_aside(settings.directory)) == 1
    monkeypatch.undo()
    Spool(settings, clock).close()


def test_an_io_error_sets_no_queue_aside(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, clock, tmp_path / "footage", clips=1)

    def fail(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(rebuild, "check_layout", fail)
    with pytest.raises(SpoolError, match="disk I/O error"):
        Spool(settings, clock)
    assert set_aside(settings.directory) == []


def test_a_large_queue_is_checked_completely_only_after_a_crash(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, clock, tmp_path / "footage", clips=90)
    monkeypatch.setattr("agent.spool.rebuild.SMALL_BYTES", 0)
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        # An index vanishes and its pages do not: only a check of the whole file can detect that.
        database.execute("PRAGMA writable_schema = ON")
        database.execute("DELETE FROM sqlite_master WHERE name = 'clip_video'")
        database.commit()
    spool = Spool(settings, clock)
    assert set_aside(settings.directory) == []
    spool.close(clean=False)
    spool, saved = rebuilt(settings, clock)
    assert saved == 90
    spool.close()


@pytest.mark.slow
def test_no_random_damage_to_the_database_prevents_the_start_or_loses_a_clip(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, figure: Callable[..., None]
) -> None:
    fill(settings, clock, tmp_path / "footage", clips=60)
    sound = (settings.directory / "clips.db").read_bytes()
    files = {file.name for file in (settings.directory / "clips").iterdir()}
    shutil.copytree(settings.directory / "clips", tmp_path / "sound clips")
    rng = random.Random(20_260_728)
    for round_ in range(ROUNDS):
        damaged = bytearray(sound)
        kind = rng.choice(["bytes", "head", "block", "truncate", "zeros"])
        if kind == "bytes":
            for _ in range(rng.choice([1, 3, 30])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        elif kind == "head":
            damaged[rng.randrange(100)] = rng.randrange(256)
        elif kind == "truncate":
            del damaged[rng.randrange(len(damaged)) :]
        else:
            start, size = rng.randrange(len(damaged)), rng.choice([100, 512, 4096])
            filling = rng.randbytes(size) if kind == "block" else bytes(size)
            damaged[start : start + size] = filling[: len(damaged) - start]
        shutil.rmtree(settings.directory / "clips")
        shutil.copytree(tmp_path / "sound clips", settings.directory / "clips")
        for left in settings.directory.glob("clips.db*"):
            left.unlink()
        (settings.directory / "clips.db").write_bytes(damaged)
        spool = Spool(settings, clock)
        recovery = spool.recover()
        while batch := claim(spool):
            spool.settle({upload.id: Verdict(State.DELIVERED) for upload in batch})
        list(spool.ledger.records())
        spool.ledger.counts()
        present = {file.name for file in (settings.directory / "clips").iterdir()}
        listed = {record.stored.name for record in spool.ledger.records() if record.stored}
        assert files <= listed, f"round {round_}, {kind}: {recovery}"
        assert present <= listed
        spool.close()
    figure("damaged databases started with", ROUNDS)


def rows(settings: SpoolSettings) -> list[tuple[int, State, str]]:
    with open_ledger(settings.directory) as ledger:
        return [(record.id, record.state, record.reason) for record in ledger.records()]


def power_cut(settings: SpoolSettings, *, without_log: bool = False, log_bytes: int | None = None) -> None:
    """Copies the spool as a power cut leaves it, beside the running one, with damage to the database's log."""
    copy = replace_directory(settings).directory
    shutil.copytree(settings.directory, copy)
    wal = copy / "clips.db-wal"
    assert wal.stat().st_size > 0
    (copy / "clips.db-shm").unlink()
    if without_log:
        wal.unlink()
    elif log_bytes is not None:
        os.truncate(wal, min(log_bytes, wal.stat().st_size))


def replace_directory(settings: SpoolSettings) -> SpoolSettings:
    return SpoolSettings(settings.directory.parent / "after the cut", max_bytes=10_000, min_free_bytes=0)
