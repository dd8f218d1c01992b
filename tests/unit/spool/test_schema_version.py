"""The layout of the database has a version: an older one is brought up to date, a newer one is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.errors import SpoolError
from agent.model import State, Verdict
from agent.spool import Spool, schema
from agent.spool.rebuild import set_aside
from tests.support.spooling import Clock, claim, make_clip, take


def version(settings: SpoolSettings) -> int:
    with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def test_a_new_queue_has_the_present_version(spool: Spool, settings: SpoolSettings) -> None:
    assert version(settings) == schema.VERSION == len(schema.MIGRATIONS)


def test_a_queue_without_a_version_is_brought_up_to_date(settings: SpoolSettings, clock: Clock, tmp_path: Path) -> None:
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
        database.execute(f"PRAGMA application_id = {schema.APPLICATION + 7}")
    before = database_file.read_bytes()
    for _ in range(2):
        with pytest.raises(SpoolError, match=r"newer vision-ingest \(layout 7; this one knows layout 1\)"):
            Spool(settings, clock)
    assert database_file.read_bytes() == before
    assert set_aside(settings.directory) == []


def test_a_version_that_is_damaged_is_not_taken_for_a_newer_one(
    settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    """It would keep the daemon from starting until somebody comes."""
    spool = Spool(settings, clock)
    take(spool, make_clip(tmp_path / "footage", 1))
    spool.close()
    for number in (7, -3):
        with closing(sqlite3.connect(settings.directory / "clips.db")) as database:
            database.execute(f"PRAGMA user_version = {number}")
        spool = Spool(settings, clock)
        assert spool.salvage is not None
        assert spool.salvage.rows == 1
        spool.close()
