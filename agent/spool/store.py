"""The database of one spool: persist-queue makes it, and one connection of our own does every transaction.

What is used of persist-queue, held by tests/unit/spool/test_store.py:

* `SQLiteAckQueue(path, name, db_file_name, serializer)` creates the file, sets WAL mode, creates the table and makes
  what was in flight when the last run ended ready again (its resume logic); `close()` then ends its connections.
* `_TABLE_NAME` and `_SQL_CREATE` declare our table to it, as they do in its own `UniqueAckQ`. No method is overridden.
* `serializers.json` writes the rows' `data`, and the status codes of `AckStatus` are ours too (agent.spool.queries).

Its `put`, `get` and `ack` are not reachable from here: each commits by itself, with the durability that SQLite was
compiled with, in the order of insertion, and reports no full disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from agent.errors import SpoolError, SpoolFull
from agent.model import State
from agent.spool.queries import (
    AWAITING_CLOCK,
    CODES,
    COLUMNS,
    DATABASE,
    DEFERRED,
    DELIVERED,
    LOST,
    READY,
    TABLE,
    Ledger,
    as_text,
    translated,
)
from agent.spool.records import Record, key_text, to_json

_Result = TypeVar("_Result")

LOCK_TIMEOUT_SECONDS = 10.0

# The layout's version, in `PRAGMA user_version`. A database without one is older than versions: 0.
VERSION = 1
# `PRAGMA application_id` holds the version once more, so that a damaged number is not taken for a newer version.
APPLICATION = 0x56490000
ROW = ("_id", "data", "timestamp", "status", "due", "priority", "bytes", "identity", "piece", "video", "rules")
# Rows that are only remembered, no longer worked on: those that pruning looks at.
REMEMBERED = f"(status IN ({DELIVERED}, {LOST}) OR rules IS NOT NULL)"
_LAYOUT = (
    # The next batch. Holds only what is ready, so that a claim costs the same behind a million other rows.
    f"CREATE INDEX IF NOT EXISTS clip_ready ON {TABLE} (priority DESC, _id) WHERE status = {READY}",
    # What is due, and the sums that `status` shows, without reading the rows.
    f"CREATE INDEX IF NOT EXISTS clip_tally ON {TABLE} (status, due, bytes)",
    f"CREATE UNIQUE INDEX IF NOT EXISTS clip_identity ON {TABLE} (identity, piece)",
    f"CREATE INDEX IF NOT EXISTS clip_video ON {TABLE} (video)",
    # What may be deleted next.
    f"CREATE INDEX IF NOT EXISTS clip_age ON {TABLE} (timestamp) WHERE {REMEMBERED}",
    # Aliases: the same footage under another name or time stamp (moved, locked, touched).
    "CREATE TABLE IF NOT EXISTS sighting (identity TEXT PRIMARY KEY, clip INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS sighting_clip ON sighting (clip)",
)
# Element n turns version n into version n + 1. Columns may only be added: an older program must not lose data.
MIGRATIONS = (
    # Until then the time stamp of a delivered row was that of its creation.
    (f"UPDATE {TABLE} SET timestamp = due WHERE status = {DELIVERED}",),
)


class _AckQueue(SQLiteAckQueue):
    """Declares our table to the library."""

    _TABLE_NAME = "spool"
    _SQL_CREATE = (
        "CREATE TABLE IF NOT EXISTS {table_name} ({key_column} INTEGER PRIMARY KEY AUTOINCREMENT,"
        # timestamp: Unix seconds when the row was last written.
        " data BLOB, timestamp FLOAT, status INTEGER,"
        " due REAL NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,"
        " identity TEXT, piece INTEGER NOT NULL DEFAULT 0, video TEXT, rules TEXT)"
    )


class Store:
    """Rows and transactions. All methods may be called from any thread.

    `_lock` guards the connection: it is held for each transaction and each query, and never while another lock is
    taken. What is passed a `db` must be called within a transaction.

    Args:
        directory: where the database lies; it must exist and be locked (agent.spool.lock).
        now: Unix seconds.
        on_full: called without the lock when the disk had no room for a transaction, before that is raised.

    Attributes:
        ledger: reads the rows, through the same connection.
        revision: grows whenever a row changes. Written under the lock; a stale value only makes its reader read again.

    Raises:
        sqlite3.Error: the database cannot be opened.
    """

    def __init__(self, directory: Path, now: Callable[[], float], on_full: Callable[[], object] = lambda: None) -> None:
        self.now = now
        self._on_full = on_full
        self._lock = threading.Lock()
        self._connection = open_database(directory)
        self.revision = self._connection.total_changes
        self.ledger = Ledger(self._connection, self._lock)

    def close(self) -> None:
        """Closes the connection; closing twice is allowed."""
        self._connection.close()

    def utc(self) -> datetime:
        """Now, for the histories."""
        return datetime.fromtimestamp(self.now(), tz=timezone.utc)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Everything that is done within the context is done or not.

        Args:
            durable: on the disk when the context ends; else with the next transaction that is. After a power cut the
                database is as it was at some commit: SQLite reads its log up to the first frame that is not whole.

        Raises:
            SpoolFull: the disk is full.
            SpoolError: the disk or the database failed.
        """
        try:
            with self._lock, translated(), self._durability(durable), self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                finally:
                    self.revision = self._connection.total_changes
        except SpoolFull:
            self._on_full()
            raise

    @contextmanager
    def _durability(self, durable: bool) -> Iterator[None]:
        """In WAL mode only FULL syncs each commit. NORMAL still syncs what a checkpoint relies on."""
        if durable:
            yield
            return
        self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA synchronous=FULL")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query outside a transaction."""
        with self._lock, translated():
            return self._connection.execute(query, values).fetchall()

    @staticmethod
    def row(db: sqlite3.Connection, id: int) -> Any:
        return db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE _id = ?", (id,)).fetchone()

    def insert(
        self, db: sqlite3.Connection, record: Record, *, rules: str | None = None, identity: str | None = None
    ) -> int:
        """Adds a row and returns its number.

        Args:
            rules: fingerprint of the settings that refused the footage, if it did not become a clip.
            identity: of the footage, where the record does not know the footage itself.
        """
        cursor = db.execute(
            f"INSERT INTO {TABLE} (data, timestamp, status, due, priority, bytes, video, identity, piece, rules)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*self._values(record), identity or record.footage.identity, record.piece, rules),
        )
        return int(cursor.lastrowid or 0)

    def rewrite(self, db: sqlite3.Connection, record: Record, *, release_identity: bool = False) -> None:
        """Replaces the row of a record.

        Args:
            release_identity: the row no longer stands for its footage: if that is seen again, it is new.
        """
        db.execute(
            f"UPDATE {TABLE} SET data = ?, timestamp = ?, status = ?, due = ?, priority = ?, bytes = ?, video = ?"
            " WHERE _id = ?",
            (*self._values(record), record.id),
        )
        if release_identity:
            db.execute(f"UPDATE {TABLE} SET identity = NULL WHERE _id = ?", (record.id,))
            db.execute("DELETE FROM sighting WHERE clip = ?", (record.id,))

    @staticmethod
    def rewrite_states(db: sqlite3.Connection, records: Iterable[Record], at: float) -> None:
        """The same, and faster, for records of which only the state and what belongs to it has changed.

        Args:
            at: Unix seconds.
        """
        db.executemany(
            f"UPDATE {TABLE} SET data = ?, timestamp = ?, status = ?, due = ? WHERE _id = ?",
            [(json_serializer.dumps(to_json(r)), at, _code(r), r.due, r.id) for r in records],
        )

    def set_state(self, db: sqlite3.Connection, id: int, state: State) -> None:
        """Changes the state of a row whose other columns cannot be read."""
        db.execute(f"UPDATE {TABLE} SET status = ?, timestamp = ? WHERE _id = ?", (CODES[state], self.now(), id))

    @staticmethod
    def delete_where(db: sqlite3.Connection, condition: str, values: Sequence[Any]) -> int:
        return int(db.execute(f"DELETE FROM {TABLE} WHERE {condition}", values).rowcount)

    def _values(self, record: Record) -> tuple[Any, ...]:
        """Of data, timestamp, status, due, priority, bytes, video."""
        return (
            json_serializer.dumps(to_json(record)),
            self.now(),
            _code(record),
            record.due,
            record.priority,
            record.stored.size_bytes if record.stored else 0,
            key_text(record.key) if record.key else None,
        )


def with_reserve(action: Callable[[], _Result]) -> _Result:
    """Runs an action that writes, and once more if the disk is full: `on_full` has freed the reserve by then.

    Raises:
        SpoolFull: there is still no room.
    """
    try:
        return action()
    except SpoolFull:
        return action()


def open_database(directory: Path) -> sqlite3.Connection:
    """The one connection to the database of a spool, which is created or migrated if need be.

    There is never a second one: in SQLite 3.7.0 to 3.51.2, two that write and checkpoint at once can corrupt the
    database. The library's is closed before ours is opened, and the spool's lock keeps other processes out.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    _AckQueue(str(directory), name="clips", db_file_name=DATABASE, serializer=json_serializer).close()
    connection = sqlite3.connect(directory / DATABASE, timeout=LOCK_TIMEOUT_SECONDS, check_same_thread=False)
    try:
        connection.text_factory = as_text
        # The default is a compile-time choice of whoever built SQLite; see `Store._durability`.
        connection.execute("PRAGMA synchronous=FULL")
        # In KiB. The kernel caches the file anyway; without a limit, SQLite would keep 2 MB of it a second time.
        connection.execute("PRAGMA cache_size=-512")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def check_layout(connection: sqlite3.Connection) -> None:
    """Nothing is written to a database that a later version of this program made.

    Raises:
        SpoolError: it is of a later version.
        sqlite3.DatabaseError: its version is damaged, or its table is not ours.
    """
    version = _version(connection)
    if version > VERSION and connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION + version:
        raise SpoolError(
            f"its queue was written by a newer vision-ingest (layout {version}; this one knows layout {VERSION}). "
            f"Install that version again; nothing was changed"
        )
    if not 0 <= version <= VERSION:
        raise sqlite3.DatabaseError(f"its version is {version}")
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")}
    if columns and not columns.issuperset(ROW):
        raise sqlite3.DatabaseError(f"its table lacks {', '.join(sorted(set(ROW) - columns))}")


def migrate(db: sqlite3.Connection) -> None:
    """Turns an older layout into the present one; call it within a transaction."""
    for steps in MIGRATIONS[_version(db) :]:
        for step in steps:
            db.execute(step)
    for statement in _LAYOUT:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute(f"PRAGMA application_id = {APPLICATION + VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _code(record: Record) -> int:
    if record.state is State.HELD and record.clock is not None:
        return AWAITING_CLOCK
    deferred = record.state is State.WAITING and record.due > 0
    return DEFERRED if deferred else CODES[record.state]
