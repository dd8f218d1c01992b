"""Reads the spool's database, for the daemon and for `status`, `clips` and `why`; and what its columns mean."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import SpoolError, SpoolFull
from agent.model import Footage, State
from agent.spool.records import Record, RowUnreadable, from_json

DATABASE = "clips.db"
TABLE = "spool_clips"

# persist-queue's own codes (AckStatus) where it has one: inited 0, ready 1, unack 2, acked 5, ack_failed 9. A clip
# whose retry is due later waits under 0, so that the index of those that are ready holds nothing that must be skipped.
DEFERRED, READY, SENDING, ACCEPTED, HELD, DELIVERED, LOST, REFUSED = 0, 1, 2, 3, 4, 5, 8, 9
CODES = {
    State.WAITING: READY,
    State.SENDING: SENDING,
    State.ACCEPTED: ACCEPTED,
    State.HELD: HELD,
    State.DELIVERED: DELIVERED,
    State.LOST: LOST,
    State.REFUSED: REFUSED,
}
# A clip that is held until this device's clock is trusted has a code of its own too, since no due time ends that.
AWAITING_CLOCK = 6
STATES = {code: state for state, code in CODES.items()} | {DEFERRED: State.WAITING, AWAITING_CLOCK: State.HELD}
# The states whose clips have a stored file.
STORED_STATES = (State.WAITING, State.SENDING, State.ACCEPTED, State.HELD, State.REFUSED)
COLUMNS = "_id, data, status, due, priority"
PAGE_ROWS = 500
PAGE_IDS = 10_000
# The footage of a damaged row.
UNKNOWN = Footage(Path("unknown"), 0, 0)


@dataclass(frozen=True, slots=True)
class Count:
    """How many clips are in a state, and their size."""

    clips: int = 0
    size_bytes: int = 0


class Ledger:
    """Reads the rows. All methods may be called from any thread.

    Args:
        connection: an open database.
        lock: guards the connection: held around each query.
    """

    def __init__(self, connection: sqlite3.Connection, lock: AbstractContextManager[object]) -> None:
        self._connection = connection
        self._lock = lock

    def counts(self, states: Iterable[State] = State) -> dict[State, Count]:
        """Clips and bytes of each of these states, zeros included.

        Where all states are counted, a row with a damaged state counts as lost.
        """
        sums = dict.fromkeys(states, Count())
        codes = codes_of(sums)
        some = f"WHERE status IN ({codes})" if len(sums) < len(State) else ""
        for code, clips, size in self._rows(f"SELECT status, COUNT(*), SUM(bytes) FROM {TABLE} {some} GROUP BY status"):
            state = STATES.get(code, State.LOST)
            sums[state] = Count(sums[state].clips + clips, sums[state].size_bytes + size)
        return sums

    def record(self, id: int) -> Record | None:
        """The clip with this number; None if there is none."""
        return next(self._records("_id = ?", (id,)), None)

    def records(self, states: Sequence[State] = ()) -> Iterator[Record]:
        """The clips in these states, oldest first. Without states: all, also those whose state is damaged."""
        return map(decode_lenient, self.rows_in(states, COLUMNS) if states else self._all_rows())

    def rows_in(self, states: Iterable[State], columns: str) -> Iterator[Any]:
        """Columns of the clips in these states, oldest first.

        Reads page by page: that needs little memory, and holds the lock only shortly. The query for numbers has to
        read all clips in these states, so it returns the numbers of many pages.
        """
        codes = codes_of(states)
        last = 0
        while True:
            ids = self._rows(
                # The + keeps SQLite from reading the rows of all states in the order of _id.
                f"SELECT _id FROM {TABLE} WHERE +_id > ? AND status IN ({codes}) ORDER BY +_id LIMIT {PAGE_IDS}",
                (last,),
            )
            for first in range(0, len(ids), PAGE_ROWS):
                page = [id for (id,) in ids[first : first + PAGE_ROWS]]
                marks = ",".join("?" * len(page))
                query = f"SELECT {columns} FROM {TABLE} WHERE _id IN ({marks}) AND +status IN ({codes}) ORDER BY _id"
                yield from self._rows(query, page)
            if len(ids) < PAGE_IDS:
                return
            last = ids[-1][0]

    def _all_rows(self) -> Iterator[Any]:
        last = 0
        while True:
            query = f"SELECT {COLUMNS} FROM {TABLE} WHERE _id > ? ORDER BY _id LIMIT {PAGE_ROWS}"
            page = self._rows(query, (last,))
            yield from page
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][0]

    def of_footage(self, identity: str) -> list[Record]:
        """The clips of footage, and those that it is an alias of, with all pieces of their recordings."""
        seen = f"SELECT {{}} FROM sighting JOIN {TABLE} AS clip ON clip._id = sighting.clip WHERE sighting.identity = ?"
        condition = (
            f"rules IS NULL AND (identity = ? OR _id IN ({seen.format('clip._id')})"
            f" OR identity IN ({seen.format('clip.identity')}))"
        )
        return list(self._records(condition, (identity,) * 3))

    def with_original_key(self, key: str) -> list[Record]:
        """The clips whose footage claims this key (`records.key_text`), and whose times were corrected."""
        return list(self._records("_id IN (SELECT clip FROM sighting WHERE identity = ?)", (key,)))

    def with_key(self, key: str) -> list[Record]:
        """The clips with this key (`records.key_text`): the API could not tell them apart."""
        return list(self._records("video = ?", (key,)))

    def awaiting_clock(self) -> list[Record]:
        """The clips that wait until this device's clock is trusted, oldest first."""
        return list(self._records("status = ?", (AWAITING_CLOCK,)))

    def next_due(self) -> float | None:
        """Unix seconds when the next deferred or held clip is due; None if there is none."""
        query = f"SELECT MIN(due) FROM {TABLE} WHERE status = ?"
        dues = [row[0] for code in (DEFERRED, HELD) for row in self._rows(query, (code,)) if row[0] is not None]
        return min(dues, default=None)

    def _records(self, condition: str, values: Sequence[Any]) -> Iterator[Record]:
        rows = self._rows(f"SELECT {COLUMNS} FROM {TABLE} WHERE {condition} ORDER BY _id", values)
        return map(decode_lenient, rows)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, translated():
            return self._connection.execute(query, values).fetchall()


def codes_of(states: Iterable[State]) -> str:
    """The codes of these states, for SQL's IN."""
    wanted = set(states)
    return ",".join(str(code) for code, state in STATES.items() if state in wanted)


@contextmanager
def translated() -> Iterator[None]:
    """Translates SQLite's errors, except IntegrityError.

    Raises:
        SpoolFull: there is no room on the disk.
        SpoolError: the disk or the database failed.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as exc:
        if "is full" in str(exc):
            raise SpoolFull("the disk of the spool is full") from exc
        raise SpoolError(f"the spool's database failed: {exc}") from exc


def as_text(value: bytes) -> str:
    """Text of the database, however damaged: an error in one value would end the whole query."""
    return value.decode("utf-8", "replace")


def decode(row: Sequence[Any]) -> Record:
    """The record of a row of COLUMNS.

    Raises:
        RowUnreadable: the row is damaged.
    """
    id, data, code, due, priority = row
    state = STATES.get(code)
    if state is None:
        raise RowUnreadable(f"its state is {code!r}")
    if not isinstance(due, float | int) or not isinstance(priority, int):
        raise RowUnreadable(f"its due time is {due!r}, its priority {priority!r}")
    return from_json(id, state, due, priority, content_of(data))


def content_of(data: Any) -> Any:
    """The JSON of a row.

    Raises:
        RowUnreadable: it is not JSON.
    """
    try:
        return json.loads(data)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RowUnreadable(f"not JSON: {exc}") from exc


def decode_lenient(row: Sequence[Any]) -> Record:
    """The record of a row; of a damaged one what is left of it, so that it stays visible."""
    try:
        return decode(row)
    except RowUnreadable as exc:
        state = STATES.get(row[2], State.LOST)
        return Record(row[0], state, UNKNOWN, None, None, reason=f"the row in the spool is damaged ({exc})")


@contextmanager
def open_ledger(directory: Path) -> Iterator[Ledger]:
    """The ledger of a spool, read only, whether a daemon uses it or not.

    Args:
        directory: the spool's directory.

    Raises:
        SpoolError: there is no spool there, or it may not be read.
    """
    database = directory / DATABASE
    try:
        database.stat()
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        connection.text_factory = as_text
        try:
            connection.execute(f"SELECT 1 FROM {TABLE} LIMIT 1")
            yield Ledger(connection, threading.Lock())
        finally:
            connection.close()
    except FileNotFoundError as exc:
        raise SpoolError(f"{directory} holds no spool yet: the daemon has never run with it") from exc
    except PermissionError as exc:
        raise SpoolError(f"{directory} may not be read by this user: try again with sudo") from exc
    except sqlite3.Error as exc:
        raise SpoolError(f"{database} cannot be read: {exc}") from exc
