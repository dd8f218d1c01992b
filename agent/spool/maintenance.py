"""What the rows need beside the journey itself: repair, giving up for space, forgetting what is long done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.model import State
from agent.spool import schema
from agent.spool.queries import (
    ACCEPTED,
    COLUMNS,
    DEFERRED,
    HELD,
    PAGE_ROWS,
    READY,
    REFUSED,
    STATES,
    TABLE,
    UNTIMED,
    codes_of,
    decode,
    decode_lenient,
)
from agent.spool.records import Record, RowUnreadable, Stored
from agent.spool.store import ClipTable

# What holds bytes and is in nobody's hands.
IDLE = (DEFERRED, READY, ACCEPTED, HELD, UNTIMED, REFUSED)


class Maintenance:
    """Works on a queue's rows beside the queue.

    Args:
        table: the queue.
    """

    def __init__(self, table: ClipTable) -> None:
        self._table = table

    def write(self, record: Record, *, release_identity: bool = False) -> None:
        """Puts a record in the place of its row.

        Args:
            release_identity: the row no longer stands for its footage: if that is seen again, it is new.
        """
        with self._table.transaction() as db:
            self._table.rewrite(db, record, release_identity=release_identity)

    def give_up(self, record: Record, *, forget: bool, release_identity: bool = False) -> bool:
        """Lets go of a clip as `write` does, or forgets it, unless it has been claimed or settled meanwhile."""
        with self._table.transaction() as db:
            row = self._table.row(db, record.id)
            if row is None or row[2] not in IDLE:
                return False
            if forget:
                self._table.forget_where(db, "_id = ?", (record.id,))
            else:
                self._table.rewrite(db, record, release_identity=release_identity)
        return True

    def insert_rows(self, rows: Iterable[Sequence[Any]]) -> int:
        """Puts back rows of an earlier database, in the order of `schema.ROW`; those that are here already stay.

        Returns:
            How many were put back.
        """
        marks = ",".join("?" * len(schema.ROW))
        with self._table.transaction() as db:
            before = db.total_changes
            db.executemany(f"INSERT OR IGNORE INTO {TABLE} ({','.join(schema.ROW)}) VALUES ({marks})", rows)
            return db.total_changes - before

    def raw(self, id: int) -> tuple[Any, ...] | None:
        """A row as it is, damaged or not, in the order of `schema.ROW`."""
        rows = self._table.rows(f"SELECT {','.join(schema.ROW)} FROM {TABLE} WHERE _id = ?", (id,))
        return tuple(rows[0]) if rows else None

    def damaged(self, states: Iterable[State]) -> list[int]:
        """The numbers of the rows in these states that cannot be read, and of those whose state cannot."""
        known = ",".join(map(str, STATES))
        found = [
            id for (id,) in self._table.rows(f"SELECT _id FROM {TABLE} WHERE status IS NULL OR status NOT IN ({known})")
        ]
        found += [row[0] for row in self._table.ledger.rows_in(states, COLUMNS) if not _is_readable(row)]
        return found

    def eviction_candidates(self) -> list[tuple[Record, Stored]]:
        """The clips that may be given up for space, with their stored files; those first that are missed least.

        What cannot be sent as things stand goes first (refused, then held), then what waits, lowest priority and
        oldest first; last what the API has taken already and only has to confirm.
        """
        rank = f"CASE WHEN status = {REFUSED} THEN 0 WHEN status IN ({HELD}, {UNTIMED}) THEN 1"
        rank += f" WHEN status = {ACCEPTED} THEN 3 ELSE 2 END"
        rows = self._table.rows(
            f"SELECT {COLUMNS} FROM {TABLE} WHERE status IN ({','.join(map(str, IDLE))})"
            f" AND bytes > 0 ORDER BY {rank}, priority, _id"
        )
        return [(record, record.stored) for record in map(decode_lenient, rows) if record.stored is not None]

    def of_piece(self, identity: str, piece: int) -> Record | None:
        """The clip that a stored file's name speaks of; None if it has no row."""
        condition = "identity = ? AND piece = ? AND rules IS NULL"
        rows = self._table.rows(f"SELECT {COLUMNS} FROM {TABLE} WHERE {condition}", (identity, piece))
        return decode_lenient(rows[0]) if rows else None

    def stored_names(self, states: Iterable[State]) -> Iterator[str]:
        """The names of the files that the rows in these states should have, as `named_by_rows` understands a row."""
        for identity, piece, data in self._table.ledger.rows_in(
            states, "identity, piece, CASE WHEN rules IS NULL AND bytes > 0 THEN data END"
        ):
            name = _name_in(data) if isinstance(data, bytes) else ""
            if name.endswith(f"_{identity}-{piece}.mp4"):
                yield name

    def named_by_rows(self, names: Mapping[tuple[str, int], str], states: Iterable[State]) -> set[str]:
        """Which of these stored files, given by identity and piece, belong to a row in one of these states.

        A row that does not name the file as its own does not count: damage has changed it, and left it readable.
        """
        marks = ",".join("?" * len(names))
        rows = self._table.rows(
            # The + keeps SQLite from going through all rows of these states instead of the few identities.
            f"SELECT identity, piece, data FROM {TABLE} WHERE identity IN ({marks}) AND rules IS NULL AND bytes > 0"
            f" AND +status IN ({codes_of(states)})",
            [identity for identity, _ in names],
        )
        found = ((names.get((identity, piece)), data) for identity, piece, data in rows)
        return {name for name, data in found if name and isinstance(data, bytes) and _name_in(data) == name}

    def count_stored(self, states: Iterable[State]) -> int:
        """How many clips in these states should have a stored file."""
        query = f"SELECT COUNT(*) FROM {TABLE} WHERE status IN ({codes_of(states)}) AND bytes > 0"
        return int(self._table.rows(query)[0][0])

    def prune(self, before: float, gone: Callable[[Record], bool]) -> tuple[int, bool]:
        """Forgets the oldest of the rows that are only remembered, at most a page of them.

        A row whose footage is not gone is looked at again when it has become as old once more.

        Args:
            before: Unix seconds; rows that were written later are left alone.
            gone: tells whether the footage of a row is gone, so that no scan can take it in again.

        Returns:
            How many were forgotten, and whether there may be more to look at.
        """
        query = f"SELECT {COLUMNS} FROM {TABLE} WHERE {schema.REMEMBERED} AND timestamp < ? ORDER BY timestamp LIMIT ?"
        page = [decode_lenient(row) for row in self._table.rows(query, (before, PAGE_ROWS))]
        if not page:
            return 0, False
        old = [(record.id,) for record in page if gone(record)]
        kept = [(self._table.now(), record.id) for record in page if (record.id,) not in set(old)]
        with self._table.transaction() as db:
            db.executemany("DELETE FROM sighting WHERE clip = ?", old)
            db.executemany(f"DELETE FROM {TABLE} WHERE _id = ?", old)
            db.executemany(f"UPDATE {TABLE} SET timestamp = ? WHERE _id = ?", kept)
        return len(old), len(page) == PAGE_ROWS


def _is_readable(row: Sequence[Any]) -> bool:
    try:
        decode(row)
    except RowUnreadable:
        return False
    return True


def _name_in(data: bytes) -> str:
    """The stored file that a row's JSON, which is not decoded for this, names as its own; empty if there is none."""
    said = data.partition(b'"stored": ["')[2].partition(b'"')[0]
    try:
        return str(json.loads(b'"%s"' % said)) if b"\\" in said else said.decode("ascii")
    except ValueError:
        return ""
