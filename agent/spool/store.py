"""The spool's table on persist-queue's database: one connection, whole transactions, and how a record becomes a row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from agent.errors import SpoolFull
from agent.model import State
from agent.spool import schema
from agent.spool.queries import CODES, COLUMNS, DATABASE, DEFERRED, READY, TABLE, UNTIMED, Ledger, as_text, translated
from agent.spool.records import Record, to_json, video_key


class ClipTable(SQLiteAckQueue):
    """The rows of one spool.

    Args:
        directory: where the database lies; it must exist and be locked: this must be the only writing connection
            (two of them, checkpointing at once, can corrupt a database of SQLite 3.7.0 to 3.51.2).
        clips_directory: where the stored files lie.
        now: Unix seconds.
        on_full: called when the disk had no room for a transaction, before that is raised.
    """

    _TABLE_NAME = "spool"
    _SQL_CREATE = schema.CREATE
    _SQL_SELECT = (
        "SELECT {key_column}, data, timestamp, status FROM {table_name} "
        f"WHERE {{key_column}} > {{rowid}} AND status IN ({DEFERRED}, {READY}) "
        "ORDER BY priority DESC, {key_column} ASC LIMIT 1"
    )

    # For the library's own end of an object whose making failed.
    _getter = _putter = None

    def __init__(
        self,
        directory: Path,
        clips_directory: Path,
        now: Callable[[], float],
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        self._clips_directory = clips_directory
        self.now = now
        self._on_full = on_full
        super().__init__(
            str(directory), name="clips", db_file_name=DATABASE, multithreading=True, serializer=json_serializer
        )
        self.ledger = Ledger(self._db, self.tran_lock)

    def _new_db_connection(self, path: str, multithreading: bool, timeout: float) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._new_db_connection(path, multithreading, timeout)
        # The default is a compile-time choice of whoever built SQLite; see `_durability`.
        connection.execute("PRAGMA synchronous=FULL")
        # In KiB. The kernel caches the file anyway; without a limit this would keep 2 MB of it a second time.
        connection.execute("PRAGMA cache_size=-512")
        return connection

    def _init(self) -> None:
        super()._init()
        # The library opens one connection for putting and one for getting. One is enough, and must be (see above).
        self._conn.close()
        self._db: sqlite3.Connection = self._putter  # type: ignore[assignment]  # declared as None by the library
        self._conn = self._db
        self._getter = self._putter
        self._db.text_factory = as_text
        self._db.execute("BEGIN IMMEDIATE")
        schema.migrate(self._db)
        self._db.commit()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All that is done within is done or not.

        Args:
            durable: it is on the disk when the context ends; else only with the next transaction that is. Whenever
                the power goes, what is left is what was committed up to some instant: SQLite's log is read to the
                first frame that is not whole.
        """
        try:
            with self.tran_lock, translated(), self._durability(durable), self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except SpoolFull:
            self._on_full()
            raise

    @contextmanager
    def _durability(self, durable: bool) -> Iterator[None]:
        """In WAL mode only FULL syncs each commit, and NORMAL still syncs what a checkpoint relies on."""
        if durable:
            yield
            return
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.tran_lock, translated():
            return self._db.execute(query, values).fetchall()

    @staticmethod
    def row(db: sqlite3.Connection, id: int) -> Any:
        return db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE _id = ?", (id,)).fetchone()

    def insert(
        self, db: sqlite3.Connection, record: Record, *, rules: str | None = None, identity: str | None = None
    ) -> int:
        cursor = db.execute(
            f"INSERT INTO {TABLE} (data, timestamp, status, due, priority, bytes, identity, piece, video, rules)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                json_serializer.dumps(to_json(record)),
                self.now(),
                _code(record),
                record.due,
                record.priority,
                record.stored.size_bytes if record.stored else 0,
                identity or record.footage.identity,
                record.piece,
                video_key(record.key) if record.key else None,
                rules,
            ),
        )
        return int(cursor.lastrowid or 0)

    def rewrite(self, db: sqlite3.Connection, record: Record, *, release_identity: bool = False) -> None:
        """Puts a record in the place of its row.

        Args:
            release_identity: the row no longer stands for its footage: if that is seen again, it is new.
        """
        db.execute(
            f"UPDATE {TABLE} SET data = ?, timestamp = ?, status = ?, due = ?, priority = ?, bytes = ?,"
            " video = ? WHERE _id = ?",
            (
                json_serializer.dumps(to_json(record)),
                self.now(),
                _code(record),
                record.due,
                record.priority,
                record.stored.size_bytes if record.stored else 0,
                video_key(record.key) if record.key else None,
                record.id,
            ),
        )
        if release_identity:
            db.execute(f"UPDATE {TABLE} SET identity = NULL WHERE _id = ?", (record.id,))
            db.execute("DELETE FROM sighting WHERE clip = ?", (record.id,))

    @staticmethod
    def rewrite_states(db: sqlite3.Connection, records: Iterable[Record], at: float) -> None:
        """The same for records in which nothing but their state has changed, with what belongs to it, and faster.

        Args:
            at: Unix seconds.
        """
        db.executemany(
            f"UPDATE {TABLE} SET data = ?, timestamp = ?, status = ?, due = ? WHERE _id = ?",
            [(json_serializer.dumps(to_json(r)), at, _code(r), r.due, r.id) for r in records],
        )

    def set_state(self, db: sqlite3.Connection, id: int, state: State) -> None:
        """Changes the state of a row of which no more can be read."""
        db.execute(f"UPDATE {TABLE} SET status = ?, timestamp = ? WHERE _id = ?", (CODES[state], self.now(), id))

    @staticmethod
    def forget_where(db: sqlite3.Connection, condition: str, values: Sequence[Any]) -> int:
        return int(db.execute(f"DELETE FROM {TABLE} WHERE {condition}", values).rowcount)


def _code(record: Record) -> int:
    if record.state is State.HELD and record.clock is not None:
        return UNTIMED
    deferred = record.state is State.WAITING and record.due > 0
    return DEFERRED if deferred else CODES[record.state]
