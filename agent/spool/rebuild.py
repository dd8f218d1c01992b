"""A damaged queue is set aside, and what SQLite still reads of it is put into a new one.

What cannot be read comes back otherwise: the names of the stored files say all that delivery needs, and the scan finds
the footage. Only the memory of what was delivered is lost with a row: such a clip may be sent again, as an update.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import structlog

from agent.device.durable import sync_directory
from agent.errors import SpoolFull
from agent.spool import schema
from agent.spool.clip_queue import ClipQueue
from agent.spool.files import read_name
from agent.spool.maintenance import Maintenance
from agent.spool.queries import COLUMNS, DATABASE, READY, SENDING, TABLE, as_text, decode
from agent.spool.records import Record, RowUnreadable

log = structlog.get_logger()

SET_ASIDE = f"{DATABASE}.damaged-"
# Enough to learn from; more would fill the card.
KEPT = 3
BATCH_ROWS = 500
# Where the largest number cannot be read any more.
MOST_ROWS = 1 << 32
# So many vain questions are asked of a damaged database before the rest of it is given up.
MOST_FAILURES = 20_000
# A database that is not larger is checked at each start.
SMALL_BYTES = 16 << 20
# Python cannot read the garbled name of a column.
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
# What is wrong with the device, not with the database: these words of SQLite's never set a database aside.
_OF_THE_DEVICE = ("locked", "is full", "I/O error", "unable to open", "out of memory")


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged queue.

    Args:
        set_aside: the name of the damaged database now.
        reason: what is wrong with it, in SQLite's words.
        rows: how many rows were put into the new queue.
        unreadable: how many rows were met that are damaged themselves.
    """

    set_aside: str
    reason: str
    rows: int
    unreadable: int


def open_queue(
    directory: Path,
    clips_directory: Path,
    now: Callable[[], float],
    on_full: Callable[[], object],
    *,
    full_check: bool,
) -> tuple[ClipQueue, Salvage | None]:
    """Opens the queue; a damaged one is replaced, once: if the new one is damaged too, that ends the start.

    Args:
        thorough: check all of it, however large: the last run did not end in order.

    Raises:
        sqlite3.Error: it cannot be opened, or the new one cannot be used either.
        SpoolError: it is of a later version.
        OSError: the disk failed.
    """
    database = directory / DATABASE
    try:
        _check(database, full_check=full_check)
        return ClipQueue(directory, clips_directory, now, on_full), None
    except UNREADABLE as exc:
        if not _is_damage(exc, database):
            raise
        reason = str(exc)
    aside = _set_aside(database, now())
    queue = ClipQueue(directory, clips_directory, now, on_full)
    salvage = Salvage(aside.name, reason, *_save_rows(aside, queue))
    log.warning(
        "queue_damaged",
        reason=reason,
        set_aside=str(aside),
        rows_saved=salvage.rows,
        rows_unreadable=salvage.unreadable,
        effect="a new queue was made; the rest comes back from the stored files and the footage",
    )
    return queue, salvage


def is_small(database: Path) -> bool:
    """Whether a database costs so little to check that it is done at each start."""
    return database.stat().st_size <= SMALL_BYTES


def set_aside(directory: Path) -> list[Path]:
    """The damaged databases that are kept, oldest first."""
    return sorted(path for path in directory.glob(f"{SET_ASIDE}*") if not path.name.endswith(("-wal", "-shm")))


def _check(database: Path, *, full_check: bool) -> None:
    """Raises sqlite3.DatabaseError if the database is damaged, SpoolError if it is of a later version."""
    if not database.exists():
        return
    if database.stat().st_size == 0:
        raise sqlite3.DatabaseError("it is empty")
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = as_text
        schema.check_version(connection)
        schema.check_columns(connection)
        if full_check or is_small(database):
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(said)


def _is_damage(error: Exception, database: Path) -> bool:
    words = str(error)
    if "readonly" in words:
        # A header that is damaged in the right place forbids writing too.
        return os.access(database, os.W_OK)
    return not any(of_the_device in words for of_the_device in _OF_THE_DEVICE)


def _set_aside(database: Path, now: float) -> Path:
    """Renames the database with its log; the log first, which SQLite would else play into the new database."""
    directory = database.parent
    stamp = f"{datetime.fromtimestamp(now, tz=timezone.utc):%Y%m%dT%H%M%SZ}"
    aside = directory / f"{SET_ASIDE}{stamp}"
    number = 1
    while aside.exists():
        number += 1
        aside = directory / f"{SET_ASIDE}{stamp}-{number}"
    (directory / f"{DATABASE}-shm").unlink(missing_ok=True)
    wal = directory / f"{DATABASE}-wal"
    if wal.exists():
        wal.rename(f"{aside}-wal")
    database.rename(aside)
    sync_directory(directory)
    # By their names, but never the new one: the clock may have been set back.
    for old in [kept for kept in set_aside(directory) if kept != aside][: -(KEPT - 1)]:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{old}{suffix}").unlink(missing_ok=True)
    return aside


def _save_rows(aside: Path, queue: ClipQueue) -> tuple[int, int]:
    """Puts the rows that can still be read into the new queue.

    Returns:
        How many those are, and how many were met that are damaged themselves.
    """
    saved = unreadable = 0
    maintenance = Maintenance(queue)
    batch: list[tuple[Any, ...]] = []
    with closing(sqlite3.connect(f"{aside.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        connection.text_factory = as_text
        for row in _readable(connection):
            sound = _sound(row)
            if sound is None:
                unreadable += 1
                continue
            batch.append(sound)
            if len(batch) == BATCH_ROWS:
                saved += _put_back(maintenance, batch)
                batch = []
    return saved + _put_back(maintenance, batch), unreadable


def _put_back(maintenance: Maintenance, rows: Sequence[tuple[Any, ...]]) -> int:
    try:
        return maintenance.insert_rows(rows)
    except SpoolFull:
        # The reserve has been freed by that: now there is room.
        return maintenance.insert_rows(rows)


def _readable(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """The rows that SQLite still gives: ranges that cannot be read are halved until only the damage is left out."""
    query = f"SELECT {','.join(schema.ROW)} FROM {TABLE} WHERE _id BETWEEN ? AND ? ORDER BY _id LIMIT {BATCH_ROWS}"
    try:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (TABLE,)).fetchone()
    except UNREADABLE:
        there = None
    if there is None:
        # No question about its rows will be answered.
        return
    try:
        last = connection.execute(f"SELECT MAX(_id) FROM {TABLE}").fetchone()[0] or 0
    except UNREADABLE:
        last = MOST_ROWS
    ranges = [(0, int(last))]
    failures = 0
    while ranges and failures < MOST_FAILURES:
        low, high = ranges.pop()
        try:
            page = connection.execute(query, (low, high)).fetchall()
        except UNREADABLE:
            failures += 1
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]
            continue
        yield from page
        if len(page) == BATCH_ROWS:
            ranges.append((page[-1][0] + 1, high))


def _sound(row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The row as it goes into the new queue; None if it is not what was once written."""
    values = dict(zip(schema.ROW, row, strict=True))
    try:
        record = decode([values[name] for name in COLUMNS.split(", ")])
    except RowUnreadable:
        return None
    if values["identity"] is not None and values["identity"] != _identity(record):
        return None
    if values["status"] == SENDING:
        values["status"] = READY
    return tuple(values[name] for name in schema.ROW)


def _identity(record: Record) -> str | None:
    """The identity that belongs to this record: what its stored file's name says, else that of its footage."""
    if record.stored is None:
        return record.footage.identity
    said = read_name(record.stored.name)
    return said.identity if said else None
