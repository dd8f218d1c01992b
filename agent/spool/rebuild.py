"""A damaged queue is set aside, and the rows that SQLite can still read are copied into a new one.

The rest is restored otherwise: the names of the stored files contain all that delivery needs, and the scan finds the
footage. Only the memory of what was delivered is lost with a row: such a clip may be sent again, as an update.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from agent.device.durable import sync_directory
from agent.spool.clip_queue import ClipQueue
from agent.spool.files import read_name
from agent.spool.maintenance import Maintenance
from agent.spool.queries import COLUMNS, DATABASE, READY, SENDING, TABLE, as_text, decode
from agent.spool.records import Record, RowUnreadable
from agent.spool.store import ROW, check_layout, with_reserve

log = structlog.get_logger()

SET_ASIDE = f"{DATABASE}.damaged-"
# Enough to learn from; more would fill the card.
KEPT = 3
BATCH_ROWS = 500
# Assumed where the largest number cannot be read.
MAX_ROWS = 1 << 32
# After so many queries that failed, the rest of a damaged database is given up.
MAX_FAILURES = 20_000
# A database up to this size is checked at each start.
SMALL_BYTES = 16 << 20
# UnicodeDecodeError: Python cannot read the garbled name of a column.
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
# Errors of the device, in SQLite's words. They are no damage: the database stays where it is.
_DEVICE_ERRORS = ("locked", "is full", "I/O error", "unable to open", "out of memory")


def open_queue(
    directory: Path,
    clips_directory: Path,
    now: Callable[[], float],
    on_full: Callable[[], object],
    *,
    full_check: bool,
) -> ClipQueue:
    """Opens the queue. A damaged one is replaced, once: if the new one is damaged too, start-up fails.

    Args:
        full_check: check all of it, however large: the last run did not end in order.

    Raises:
        sqlite3.Error: it cannot be opened, or the new one cannot be used either.
        SpoolError: it is of a later version.
        OSError: the disk failed.
    """
    database = directory / DATABASE
    try:
        _check(database, full_check=full_check)
        return ClipQueue(directory, clips_directory, now, on_full)
    except UNREADABLE as exc:
        if not _is_damage(exc, database):
            raise
        reason = str(exc)
    aside = _set_aside(database, now())
    queue = ClipQueue(directory, clips_directory, now, on_full)
    copied, unreadable = _copy_rows(aside, Maintenance(queue))
    log.warning(
        "queue_damaged",
        reason=reason,
        set_aside=str(aside),
        rows_saved=copied,
        rows_unreadable=unreadable,
        effect="a new queue was made; the rest is restored from the stored files and the footage",
    )
    return queue


def is_small(database: Path) -> bool:
    """Whether a database is small enough to be checked at each start."""
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
        check_layout(connection)
        if full_check or is_small(database):
            (result,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if result != "ok":
                raise sqlite3.DatabaseError(result)


def _is_damage(error: Exception, database: Path) -> bool:
    message = str(error)
    if "readonly" in message:
        # A header that is damaged in the right place forbids writing too.
        return os.access(database, os.W_OK)
    return not any(device_error in message for device_error in _DEVICE_ERRORS)


def _set_aside(database: Path, now: float) -> Path:
    """Renames the database with its log; the log first, or SQLite would replay it into the new database."""
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


def _copy_rows(aside: Path, maintenance: Maintenance) -> tuple[int, int]:
    """Copies the rows that can still be read into the new queue.

    Returns:
        How many those are, and how many were found that are damaged themselves.
    """
    copied = unreadable = 0
    batch: list[tuple[Any, ...]] = []
    with closing(sqlite3.connect(f"{aside.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        connection.text_factory = as_text
        for row in _readable(connection):
            intact = _intact(row)
            if intact is None:
                unreadable += 1
                continue
            batch.append(intact)
            if len(batch) == BATCH_ROWS:
                copied += with_reserve(partial(maintenance.insert_rows, batch))
                batch = []
    return copied + with_reserve(partial(maintenance.insert_rows, batch)), unreadable


def _readable(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """The rows that SQLite still reads. Ranges that cannot be read are halved until only the damage is left out."""
    query = f"SELECT {','.join(ROW)} FROM {TABLE} WHERE _id BETWEEN ? AND ? ORDER BY _id LIMIT {BATCH_ROWS}"
    try:
        table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (TABLE,)).fetchone()
    except UNREADABLE:
        table = None
    if table is None:
        # No query for its rows will succeed.
        return
    try:
        last = connection.execute(f"SELECT MAX(_id) FROM {TABLE}").fetchone()[0] or 0
    except UNREADABLE:
        last = MAX_ROWS
    ranges = [(0, int(last))]
    failures = 0
    while ranges and failures < MAX_FAILURES:
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


def _intact(row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The row as it goes into the new queue; None if it is not what was once written."""
    values = dict(zip(ROW, row, strict=True))
    try:
        record = decode([values[name] for name in COLUMNS.split(", ")])
    except RowUnreadable:
        return None
    if values["identity"] is not None and values["identity"] != _identity(record):
        return None
    if values["status"] == SENDING:
        values["status"] = READY
    return tuple(values[name] for name in ROW)


def _identity(record: Record) -> str | None:
    """The identity of this record: that in the name of its stored file, else that of its footage."""
    if record.stored is None:
        return record.footage.identity
    named = read_name(record.stored.name)
    return named.identity if named else None
