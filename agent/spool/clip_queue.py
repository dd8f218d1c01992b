"""The durable queue: persist-queue's SQLiteAckQueue with a due time, priorities, and many clips a transaction.

The library commits once per operation, serves strictly in order of insertion and never forgets a row: its subclass
adds what a batch upload needs, the way the library's own subclasses do, through the _SQL_* attributes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from agent.clip import Clip, Footage, State, Upload, Verdict
from agent.spool.ledger import (
    CODES,
    COLUMNS,
    DATABASE,
    DEFERRED,
    DELIVERED,
    HELD,
    LOST,
    READY,
    SENDING,
    STATES,
    TABLE,
    UNTIMED,
    Ledger,
    decode,
)
from agent.spool.records import Record, RowUnreadable, to_json, video_key

# No retry is ever set further ahead than this. A due time beyond it was written under a clock that has since been
# set back, and would otherwise hold the clip for as long as the clock was wrong.
MAX_DUE_SECONDS = 2 * 3600.0
# The same for footage that was refused and is to be looked at again.
MAX_LOOK_AGAIN_SECONDS = 2 * 86_400.0
# A query takes 999 values in the oldest SQLite, and each identity is two of them.
IDENTITIES_AT_ONCE = 400


class ClipQueue(SQLiteAckQueue):
    """The clips of one spool.

    All methods may be called from any thread; each is one transaction, durable when it returns.

    Args:
        directory: where the database lies; it must exist and be locked: this must be the only writing connection
            (two of them, checkpointing at once, can corrupt a database of SQLite 3.7.0 to 3.51.2).
        clips_directory: where the stored files lie.
        now: Unix seconds.
    """

    _TABLE_NAME = "spool"
    _SQL_CREATE = (
        "CREATE TABLE IF NOT EXISTS {table_name} ({key_column} INTEGER PRIMARY KEY AUTOINCREMENT,"
        " data BLOB, timestamp FLOAT, status INTEGER,"
        " due REAL NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,"
        " identity TEXT, piece INTEGER NOT NULL DEFAULT 0, video TEXT, rules TEXT)"
    )
    _SQL_SELECT = (
        "SELECT {key_column}, data, timestamp, status FROM {table_name} "
        f"WHERE {{key_column}} > {{rowid}} AND status IN ({DEFERRED}, {READY}) "
        "ORDER BY priority DESC, {key_column} ASC LIMIT 1"
    )
    _INDEXES = (
        # The next batch; holds only what is ready, so that a claim costs the same behind a million other rows.
        f"CREATE INDEX IF NOT EXISTS clip_ready ON {TABLE} (priority DESC, _id) WHERE status = {READY}",
        # What is due, and the sums that `status` shows, without reading the rows.
        f"CREATE INDEX IF NOT EXISTS clip_tally ON {TABLE} (status, due, bytes)",
        f"CREATE UNIQUE INDEX IF NOT EXISTS clip_identity ON {TABLE} (identity, piece)",
        f"CREATE INDEX IF NOT EXISTS clip_video ON {TABLE} (video)",
        # The same footage under another name or time stamp (moved, locked, touched).
        "CREATE TABLE IF NOT EXISTS sighting (identity TEXT PRIMARY KEY, clip INTEGER NOT NULL) WITHOUT ROWID",
    )

    def __init__(self, directory: Path, clips_directory: Path, now: Callable[[], float]) -> None:
        self._clips_directory = clips_directory
        self._now = now
        super().__init__(
            str(directory), name="clips", db_file_name=DATABASE, multithreading=True, serializer=json_serializer
        )
        self.ledger = Ledger(self._db, self.tran_lock)

    def _new_db_connection(self, path: str, multithreading: bool, timeout: float) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._new_db_connection(path, multithreading, timeout)
        # In WAL mode only FULL syncs each commit; the default is a compile-time choice of whoever built SQLite.
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _init(self) -> None:
        super()._init()
        # The library opens one connection for putting and one for getting. One is enough, and must be (see above).
        self._conn.close()
        self._db: sqlite3.Connection = self._putter  # type: ignore[assignment]  # declared as None by the library
        self._conn = self._db
        self._getter = self._putter
        with self._transaction() as db:
            for statement in self._INDEXES:
                db.execute(statement)

    @property
    def size(self) -> int:
        """How many clips wait: counted, where the library keeps a number that drifts."""
        return self.ledger.tallies()[State.WAITING].clips

    def add(self, records: Iterable[Record], identity: str | None = None) -> list[int]:
        """Adds the clips of one piece of footage, all or none.

        Args:
            identity: the footage's identity, where the record no longer knows the footage itself.

        Returns:
            Their numbers.

        Raises:
            sqlite3.IntegrityError: one of them is there already.
        """
        with self._transaction() as db:
            return [self._insert(db, record, identity=identity) for record in records]

    def refuse_footage(self, footage: Footage, reason: str, rules: str, look_again_seconds: float | None) -> None:
        """Lists footage that did not become a clip, with the reason.

        Args:
            rules: digest of the settings that led to the refusal: with others, the footage is looked at anew.
            look_again_seconds: when the refusal lapses by itself; None for never.
        """
        now = self._now()
        due = now + look_again_seconds if look_again_seconds is not None else 0.0
        record = Record(0, State.REFUSED, footage, None, None, due=due)
        with self._transaction() as db:
            self._forget(db, "identity = ? AND rules IS NOT NULL", (footage.identity,))
            self._insert(db, record.changed(State.REFUSED, reason, _utc(now)), rules=rules)

    def note_sighting(self, identity: str, clip: int) -> None:
        """Remembers that footage of this identity is a clip that the spool knows already."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO sighting VALUES (?, ?)", (identity, clip))

    def seen_again(self, clip: Clip, id: int) -> None:
        """Notes that footage holds a clip that the spool knows already: the recorder moved, locked or touched it.

        Args:
            clip: what was made of the footage now.
            id: the clip that the spool has of it.
        """
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO sighting VALUES (?, ?)", (clip.footage.identity, id))
            row = db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE _id = ?", (id,)).fetchone()
            self._update(db, decode(row).seen_again(clip, _utc(self._now())))

    def states_of(self, identities: Sequence[str]) -> dict[str, State]:
        """What became of pieces of footage, of each the state that is furthest from delivered.

        A footage-level refusal that has lapsed counts as never seen; so does one that lies further ahead than any is
        set: the clock was set back since. Footage that is to be inspected is not in what is returned.
        """
        now = self._now()
        found: dict[str, set[int]] = {}
        for first in range(0, len(identities), IDENTITIES_AT_ONCE):
            page = identities[first : first + IDENTITIES_AT_ONCE]
            marks = ",".join("?" * len(page))
            query = (
                f"SELECT identity, status FROM {TABLE} WHERE identity IN ({marks})"
                " AND NOT (rules IS NOT NULL AND due > 0 AND (due <= ? OR due > ?))"
                f" UNION ALL SELECT sighting.identity, status FROM sighting JOIN {TABLE} ON _id = clip"
                f" WHERE sighting.identity IN ({marks})"
            )
            values = (*page, now, now + MAX_LOOK_AGAIN_SECONDS, *page)
            with self.tran_lock:
                for identity, code in self._db.execute(query, values):
                    found.setdefault(identity, set()).add(code)
        return {identity: STATES[min(codes - {DELIVERED} or codes)] for identity, codes in found.items()}

    @property
    def changes(self) -> int:
        """A number that grows whenever a row changes: what was read from the rows holds as long as it stays."""
        return self._db.total_changes

    def has_refusal_lapsed(self, after: float, until: float) -> bool:
        """Whether the refusal of a piece of footage lapsed in this time, in Unix seconds; see `states_of`."""
        query = f"SELECT 1 FROM {TABLE} WHERE status = ? AND (due > ? AND due <= ? OR due > ?) LIMIT 1"
        values = (CODES[State.REFUSED], after, until, until + MAX_LOOK_AGAIN_SECONDS)
        with self.tran_lock:
            return self._db.execute(query, values).fetchone() is not None

    def claim(self, choose: Callable[[Iterator[Upload]], Sequence[Upload]]) -> list[Upload]:
        """Takes the next batch: its clips are SENDING when this returns.

        Args:
            choose: given the clips that are ready, most urgent first, says which to take; it need not read them all.
        """
        with self._transaction() as db:
            self._promote(db)
            damaged: list[int] = []
            taken = list(choose(self._ready(db, damaged)))
            db.executemany(f"UPDATE {TABLE} SET status = {SENDING} WHERE _id = ?", [(u.id,) for u in taken])
            db.executemany(f"UPDATE {TABLE} SET status = {LOST} WHERE _id = ?", [(id,) for id in damaged])
        return taken

    def count_ready(self, most: int) -> int:
        """How many clips could be claimed now; counting ends at `most`."""
        with self._transaction() as db:
            self._promote(db)
            query = f"SELECT COUNT(*) FROM (SELECT 1 FROM {TABLE} WHERE status = {READY} LIMIT ?)"
            return int(db.execute(query, (most,)).fetchone()[0])

    def release(self, ids: Iterable[int]) -> None:
        """Gives clips back untouched, as if they had never been claimed."""
        with self._transaction() as db:
            db.executemany(
                f"UPDATE {TABLE} SET status = {READY} WHERE _id = ? AND status = {SENDING}", [(id,) for id in ids]
            )

    def release_all(self) -> None:
        """Gives back whatever is in flight: for a stop that cannot wait for the sender."""
        with self._transaction() as db:
            db.execute(f"UPDATE {TABLE} SET status = {READY} WHERE status = {SENDING}")

    def settle(self, verdicts: Mapping[int, Verdict]) -> list[Record]:
        """Carries out the verdicts of one batch, all or none.

        Returns:
            The clips as they are now.
        """
        now = self._now()
        settled = []
        with self._transaction() as db:
            for id, verdict in verdicts.items():
                row = db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE _id = ?", (id,)).fetchone()
                record = decode(row)
                due = now if verdict.state is State.DELIVERED else _due(now, verdict.retry_in_seconds)
                record = record.after(verdict, _utc(now), due)
                self._update(db, record)
                settled.append(record)
        return settled

    def retry(self, ids: Iterable[int]) -> list[Record]:
        """Makes refused, held and deferred clips ready again, with all their attempts; forgets refused footage.

        Returns:
            The clips that were changed: WAITING, or REFUSED for footage that the next scan will inspect anew.
        """
        changed = []
        with self._transaction() as db:
            for id in ids:
                row = db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE _id = ?", (id,)).fetchone()
                if row is None:
                    continue
                record = decode(row)
                if record.state not in (State.REFUSED, State.HELD, State.WAITING):
                    continue
                if record.stored is None:
                    self._forget(db, "_id = ?", (id,))
                else:
                    again = record.changed(State.WAITING, "asked for by hand", _utc(self._now()))
                    record = replace(again, due=0.0, attempts=0, strikes=0, companions=None, clock=None)
                    self._update(db, record)
                changed.append(record)
        return changed

    def decide_untimed(self, record: Record, prepare: Callable[[], None]) -> bool:
        """Writes a clip that was held for its time as it is now.

        Args:
            prepare: called before its row is written, while nobody else can take or change the clip.

        Returns:
            Whether it was still held; if not, nothing was done.
        """
        with self._transaction() as db:
            query = f"SELECT 1 FROM {TABLE} WHERE _id = ? AND status = {UNTIMED}"
            if db.execute(query, (record.id,)).fetchone() is None:
                return False
            prepare()
            self._update(db, record)
        return True

    def forget(self, id: int) -> None:
        """Drops a row: the scan will take its footage for new."""
        with self._transaction() as db:
            self._forget(db, "_id = ?", (id,))

    def state_of_piece(self, identity: str, piece: int) -> State | None:
        """The state of the clip that a stored file's name speaks of; None if it has no row."""
        query = f"SELECT status FROM {TABLE} WHERE identity = ? AND piece = ? AND rules IS NULL"
        with self.tran_lock:
            row = self._db.execute(query, (identity, piece)).fetchone()
        return STATES[row[0]] if row else None

    def count_stored(self, states: Iterable[State]) -> int:
        """How many clips in these states should have a stored file."""
        codes = [code for code, state in STATES.items() if state in set(states)]
        query = f"SELECT COUNT(*) FROM {TABLE} WHERE status IN ({','.join('?' * len(codes))}) AND rules IS NULL"
        with self.tran_lock:
            return int(self._db.execute(query, codes).fetchone()[0])

    def forget_refusals_of_other_rules(self, rules: Iterable[str]) -> int:
        """Forgets footage that was refused under other settings than these, so that the scan inspects it anew.

        Returns:
            How many were forgotten.
        """
        current = list(rules)
        marks = ",".join("?" * len(current))
        with self._transaction() as db:
            return self._forget(db, f"rules IS NOT NULL AND rules NOT IN ({marks})", current)

    def forget_delivered(self, before: float, gone: Callable[[Record], bool]) -> int:
        """Prunes the ledger of delivered clips whose footage is gone, so that no scan can take it in again.

        Args:
            before: Unix seconds; clips delivered later are remembered whatever became of their footage.
            gone: tells whether the footage of a clip is gone for good.
        """
        forgotten = 0
        for record in self.ledger.records([State.DELIVERED]):
            if record.due < before and gone(record):
                with self._transaction() as db:
                    db.execute("DELETE FROM sighting WHERE clip = ?", (record.id,))
                    forgotten += self._forget(db, "_id = ?", (record.id,))
        return forgotten

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self.tran_lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db

    def _promote(self, db: sqlite3.Connection) -> None:
        now = self._now()
        db.execute(
            f"UPDATE {TABLE} SET status = {READY}, due = 0 WHERE status IN ({DEFERRED}, {HELD})"
            " AND (due <= ? OR due > ?)",
            (now, now + MAX_DUE_SECONDS),
        )

    def _ready(self, db: sqlite3.Connection, damaged: list[int]) -> Iterator[Upload]:
        rows = db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE status = {READY} ORDER BY priority DESC, _id")
        for row in rows:
            try:
                yield decode(row).upload(self._clips_directory)
            except RowUnreadable:
                damaged.append(row[0])

    def _insert(
        self, db: sqlite3.Connection, record: Record, *, rules: str | None = None, identity: str | None = None
    ) -> int:
        cursor = db.execute(
            f"INSERT INTO {TABLE} (data, timestamp, status, due, priority, bytes, identity, piece, video, rules)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                json_serializer.dumps(to_json(record)),
                self._now(),
                _code(record),
                record.due,
                record.priority,
                record.stored.size_bytes if record.stored else 0,
                identity or record.footage.identity,
                record.piece,
                video_key(record.video) if record.video else None,
                rules,
            ),
        )
        return int(cursor.lastrowid or 0)

    def _update(self, db: sqlite3.Connection, record: Record) -> None:
        db.execute(
            f"UPDATE {TABLE} SET data = ?, status = ?, due = ?, priority = ?, video = ? WHERE _id = ?",
            (
                json_serializer.dumps(to_json(record)),
                _code(record),
                record.due,
                record.priority,
                video_key(record.video) if record.video else None,
                record.id,
            ),
        )

    @staticmethod
    def _forget(db: sqlite3.Connection, condition: str, values: Sequence[Any]) -> int:
        return int(db.execute(f"DELETE FROM {TABLE} WHERE {condition}", values).rowcount)


def _code(record: Record) -> int:
    if record.state is State.HELD and record.clock is not None:
        return UNTIMED
    deferred = record.state is State.WAITING and record.due > 0
    return DEFERRED if deferred else CODES[record.state]


def _due(now: float, retry_in_seconds: float) -> float:
    return now + retry_in_seconds if retry_in_seconds > 0 else 0.0


def _utc(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, tz=timezone.utc)
