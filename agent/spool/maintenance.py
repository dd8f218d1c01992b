"""What rows need beside their normal life: repair, eviction, pruning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.model import State
from agent.spool.queries import (
    ACCEPTED,
    AWAITING_CLOCK,
    COLUMNS,
    DEFERRED,
    HELD,
    PAGE_ROWS,
    READY,
    REFUSED,
    STATES,
    TABLE,
    codes_of,
    decode,
    decode_lenient,
)
from agent.spool.records import Record, RowUnreadable, Stored
from agent.spool.store import REMEMBERED, ROW, Store

# Has a stored file, and is not in flight.
_IDLE = (DEFERRED, READY, ACCEPTED, HELD, AWAITING_CLOCK, REFUSED)


class Maintenance:
    """Works on the rows of a store. All methods may be called from any thread.

    Args:
        store: the rows.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, record: Record, *, release_identity: bool = False) -> None:
        """Replaces the row of a record.

        Args:
            release_identity: the row no longer stands for its footage: if that is seen again, it is new.
        """
        with self._store.transaction() as db:
            self._store.rewrite(db, record, release_identity=release_identity)

    def evict(self, record: Record, *, delete: bool, release_identity: bool = False) -> bool:
        """Deletes the row of a clip or replaces it as `write` does, unless the clip was claimed or settled meanwhile.

        Returns:
            Whether it was done.
        """
        with self._store.transaction() as db:
            row = self._store.row(db, record.id)
            if row is None or row[2] not in _IDLE:
                return False
            if delete:
                self._store.delete_where(db, "_id = ?", (record.id,))
            else:
                self._store.rewrite(db, record, release_identity=release_identity)
        return True

    def insert_rows(self, rows: Iterable[Sequence[Any]]) -> int:
        """Inserts rows of an earlier database, in the order of `store.ROW`, except those that exist.

        Returns:
            How many were inserted.
        """
        marks = ",".join("?" * len(ROW))
        with self._store.transaction() as db:
            before = db.total_changes
            db.executemany(f"INSERT OR IGNORE INTO {TABLE} ({','.join(ROW)}) VALUES ({marks})", rows)
            return db.total_changes - before

    def raw(self, id: int) -> tuple[Any, ...] | None:
        """A row as it is, damaged or not, in the order of `store.ROW`."""
        rows = self._store.rows(f"SELECT {','.join(ROW)} FROM {TABLE} WHERE _id = ?", (id,))
        return tuple(rows[0]) if rows else None

    def damaged(self, states: Iterable[State]) -> list[int]:
        """The numbers of the rows in these states that cannot be decoded, and of those whose state is damaged."""
        known = ",".join(map(str, STATES))
        found = self._store.rows(f"SELECT _id FROM {TABLE} WHERE status IS NULL OR status NOT IN ({known})")
        rows = self._store.ledger.rows_in(states, COLUMNS)
        return [id for (id,) in found] + [row[0] for row in rows if not _is_readable(row)]

    def eviction_candidates(self) -> list[tuple[Record, Stored]]:
        """The clips that may be evicted, with their stored files; the least important first.

        What cannot be sent as things are comes first (refused, then held), then what waits, lowest priority and oldest
        first; last what the API has accepted already and only has to confirm.
        """
        rank = f"CASE WHEN status = {REFUSED} THEN 0 WHEN status IN ({HELD}, {AWAITING_CLOCK}) THEN 1"
        rank += f" WHEN status = {ACCEPTED} THEN 3 ELSE 2 END"
        rows = self._store.rows(
            f"SELECT {COLUMNS} FROM {TABLE} WHERE status IN ({','.join(map(str, _IDLE))})"
            f" AND bytes > 0 ORDER BY {rank}, priority, _id"
        )
        return [(record, record.stored) for record in map(decode_lenient, rows) if record.stored is not None]

    def of_piece(self, identity: str, piece: int) -> Record | None:
        """The clip that the name of a stored file belongs to; None if it has no row."""
        condition = "identity = ? AND piece = ? AND rules IS NULL"
        rows = self._store.rows(f"SELECT {COLUMNS} FROM {TABLE} WHERE {condition}", (identity, piece))
        return decode_lenient(rows[0]) if rows else None

    def stored_names(self, states: Iterable[State]) -> Iterator[str]:
        """The stored files that the rows in these states name as their own; see `named_by_rows`."""
        for identity, piece, data in self._store.ledger.rows_in(
            states, "identity, piece, CASE WHEN rules IS NULL AND bytes > 0 THEN data END"
        ):
            name = _name_in(data) if isinstance(data, bytes) else ""
            if name.endswith(f"_{identity}-{piece}.mp4"):
                yield name

    def named_by_rows(self, names: Mapping[tuple[str, int], str], states: Iterable[State]) -> set[str]:
        """Which of these stored files, by identity and piece, belong to a row in one of these states.

        A row that does not name the file as its own does not count: damage has changed it, and left it readable.
        """
        marks = ",".join("?" * len(names))
        rows = self._store.rows(
            # The + keeps SQLite from reading all rows of these states instead of the few identities.
            f"SELECT identity, piece, data FROM {TABLE} WHERE identity IN ({marks}) AND rules IS NULL AND bytes > 0"
            f" AND +status IN ({codes_of(states)})",
            [identity for identity, _ in names],
        )
        found = ((names.get((identity, piece)), data) for identity, piece, data in rows)
        return {name for name, data in found if name and isinstance(data, bytes) and _name_in(data) == name}

    def count_stored(self, states: Iterable[State]) -> int:
        """How many clips in these states should have a stored file."""
        query = f"SELECT COUNT(*) FROM {TABLE} WHERE status IN ({codes_of(states)}) AND bytes > 0"
        return int(self._store.rows(query)[0][0])

    def prune(self, before: float, gone: Callable[[Record], bool]) -> bool:
        """Deletes the oldest of the rows that are only remembered, at most a page of them.

        A row whose footage is not gone is checked again after the same time.

        Args:
            before: Unix seconds; rows that were written later are left alone.
            gone: whether the footage of a row is gone, so that no scan can take it in again.

        Returns:
            Whether there may be more rows to check.
        """
        query = f"SELECT {COLUMNS} FROM {TABLE} WHERE {REMEMBERED} AND timestamp < ? ORDER BY timestamp LIMIT ?"
        page = [decode_lenient(row) for row in self._store.rows(query, (before, PAGE_ROWS))]
        if not page:
            return False
        old, kept = [], []
        for record in page:
            if gone(record):
                old.append((record.id,))
            else:
                kept.append((self._store.now(), record.id))
        with self._store.transaction() as db:
            db.executemany("DELETE FROM sighting WHERE clip = ?", old)
            db.executemany(f"DELETE FROM {TABLE} WHERE _id = ?", old)
            db.executemany(f"UPDATE {TABLE} SET timestamp = ? WHERE _id = ?", kept)
        return len(page) == PAGE_ROWS


def _is_readable(row: Sequence[Any]) -> bool:
    try:
        decode(row)
    except RowUnreadable:
        return False
    return True


def _name_in(data: bytes) -> str:
    """The stored file that a row's JSON, which is not decoded for this, names as its own; empty if there is none."""
    found = data.partition(b'"stored": ["')[2].partition(b'"')[0]
    try:
        return str(json.loads(b'"%s"' % found)) if b"\\" in found else found.decode("ascii")
    except ValueError:
        return ""
