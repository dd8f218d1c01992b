"""The durable queue of clips: priorities, due times, and many clips in a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.model import Clip, Footage, State, Upload, Verdict
from agent.spool.queries import (
    AWAITING_CLOCK,
    COLUMNS,
    DEFERRED,
    DELIVERED,
    HELD,
    READY,
    REFUSED,
    SENDING,
    STATES,
    TABLE,
    decode,
    decode_lenient,
)
from agent.spool.records import Record, RowUnreadable
from agent.spool.store import Store

# No retry is ever set further ahead than this. A due time beyond it was written under a clock that has since been
# set back, and would otherwise hold the clip for as long as the clock was wrong.
MAX_DUE_SECONDS = 2 * 3600.0
# The same for footage that was refused and is to be inspected again.
MAX_RETRY_AFTER_SECONDS = 2 * 86_400.0
# A query takes 999 values in the oldest SQLite, and each identity is two of them.
IDENTITIES_AT_ONCE = 400


class ClipQueue(Store):
    """The clips of one spool and their states.

    All methods may be called from any thread. Each is one transaction, durable when it returns, except `claim`. What
    is passed a `db` is a step of a larger transaction.

    Args:
        directory, now, on_full: see `Store`.
        clips_directory: where the stored files are.
    """

    def __init__(
        self,
        directory: Path,
        clips_directory: Path,
        now: Callable[[], float],
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(directory, now, on_full)
        self._clips_directory = clips_directory

    def enter(self, db: sqlite3.Connection, record: Record, identity: str | None = None) -> int:
        """Adds a clip and returns its number.

        Args:
            identity: the footage's identity, where the record does not know the footage itself.

        Raises:
            sqlite3.IntegrityError: it is in the queue already.
        """
        # A refusal that has expired: the footage has become a clip after all.
        self.delete_where(db, "identity = ? AND rules IS NOT NULL", (identity or record.footage.identity,))
        return self.insert(db, record, identity=identity)

    def refuse_footage(self, footage: Footage, reason: str, rules: str, retry_after_seconds: float | None) -> None:
        """Lists footage that did not become a clip, with the reason.

        Args:
            rules: fingerprint of the settings that led to the refusal; with other settings it expires.
            retry_after_seconds: when the refusal expires by itself; None for never.
        """
        now = self.now()
        due = now + retry_after_seconds if retry_after_seconds is not None else 0.0
        record = Record(0, State.REFUSED, footage, None, None, due=due)
        with self.transaction() as db:
            self.delete_where(db, "identity = ? AND rules IS NOT NULL", (footage.identity,))
            self.insert(db, record.changed(State.REFUSED, reason, self.utc()), rules=rules)

    def note_relocated(self, db: sqlite3.Connection, clip: Clip, id: int) -> None:
        """Notes that footage is the recording of a known clip: the recorder moved, locked or touched it.

        Args:
            clip: what was made of the footage now.
            id: the known clip.
        """
        self.add_alias(db, clip.footage.identity, id)
        self.rewrite(db, decode(self.row(db, id)).relocated(clip, self.utc()))

    @staticmethod
    def add_alias(db: sqlite3.Connection, identity: str, clip: int) -> None:
        """Remembers that footage with this identity, or with this original key (`records.key_text`), is that clip."""
        db.execute("INSERT OR REPLACE INTO sighting VALUES (?, ?)", (identity, clip))

    def replace_by_alias(self, id: int | None, clip: int, *identities: str) -> None:
        """Deletes a row, if there is one, and remembers its identities as aliases of the clip with the same recording.

        Args:
            id: the row that is deleted.
            clip: the clip that stays.
        """
        with self.transaction() as db:
            for identity in identities:
                self.add_alias(db, identity, clip)
            self.delete_where(db, "_id = ?", (id,))

    def states_of(self, identities: Sequence[str]) -> dict[str, State]:
        """The states of footage, by identity; of several clips the one that is furthest from delivered.

        Footage that is to be inspected is missing from the result. That includes an expired refusal, and one that
        expires later than any is set for: the clock was set back since.
        """
        now = self.now()
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
            values = (*page, now, now + MAX_RETRY_AFTER_SECONDS, *page)
            for identity, code in self.rows(query, values):
                # A damaged state is repaired at the next start, and blocks the footage until then.
                found.setdefault(identity, set()).add(code if code in STATES else SENDING)
        return {identity: STATES[min(codes - {DELIVERED} or codes)] for identity, codes in found.items()}

    def has_refusal_expired(self, after: float, until: float) -> bool:
        """Whether the refusal of any footage expired in this interval of Unix seconds; see `states_of`."""
        query = f"SELECT 1 FROM {TABLE} WHERE status = ? AND (due > ? AND due <= ? OR due > ?) LIMIT 1"
        values = (REFUSED, after, until, until + MAX_RETRY_AFTER_SECONDS)
        return bool(self.rows(query, values))

    def claim(self, choose: Callable[[Iterator[Upload]], Sequence[Upload]]) -> tuple[list[Upload], list[int]]:
        """Takes the next batch: its clips are SENDING when this returns.

        Args:
            choose: selects from the ready clips, which come most urgent first; it need not read them all.

        Returns:
            The batch, and the numbers of the damaged rows that were skipped.
        """
        damaged: list[int] = []
        # Not synced: if a power cut loses the claim, start-up would have reset it anyway.
        with self.transaction(durable=False) as db:
            self._promote(db)
            taken = list(choose(self._ready(db, damaged)))
            db.executemany(f"UPDATE {TABLE} SET status = {SENDING} WHERE _id = ?", [(u.id,) for u in taken])
        return taken, damaged

    def count_ready(self, limit: int) -> int:
        """How many clips could be claimed now; counting ends at `limit`."""
        with self.transaction() as db:
            self._promote(db)
            query = f"SELECT COUNT(*) FROM (SELECT 1 FROM {TABLE} WHERE status = {READY} LIMIT ?)"
            return int(db.execute(query, (limit,)).fetchone()[0])

    def release(self, ids: Iterable[int]) -> None:
        """Gives clips back untouched, as if they had never been claimed."""
        with self.transaction() as db:
            db.executemany(
                f"UPDATE {TABLE} SET status = {READY} WHERE _id = ? AND status = {SENDING}", [(id,) for id in ids]
            )

    def release_all(self) -> None:
        """Gives back whatever is in flight, for a shutdown that cannot wait for the sender."""
        with self.transaction() as db:
            db.execute(f"UPDATE {TABLE} SET status = {READY} WHERE status = {SENDING}")

    def settle(self, verdicts: Mapping[int, Verdict]) -> tuple[list[Record], list[int]]:
        """Writes the verdicts of one batch, all or none.

        Returns:
            The clips as they are now, and the numbers of rows that are too damaged to carry their verdict.
        """
        now = self.now()
        at = self.utc()
        settled: list[Record] = []
        readable: list[Record] = []
        damaged: list[int] = []
        with self.transaction() as db:
            for id, verdict in verdicts.items():
                row = self.row(db, id)
                if row is None:
                    continue
                done = verdict.state in (State.DELIVERED, State.LOST)
                due = now if done else _due(now, verdict.retry_in_seconds)
                try:
                    readable.append(decode(row).after(verdict, at, due))
                except RowUnreadable:
                    if not done:
                        damaged.append(id)
                        continue
                    # Its state is all that still matters of it.
                    self.set_state(db, id, verdict.state)
                    settled.append(replace(decode_lenient(row), state=verdict.state, reason=verdict.reason))
            self.rewrite_states(db, readable, now)
        return [*readable, *settled], damaged

    def retry(self, ids: Iterable[int]) -> list[Record]:
        """Makes refused, held and deferred clips ready again, with all their attempts; deletes refusals of footage.

        Returns:
            The clips that were changed: WAITING, or REFUSED for footage that the next scan will inspect again.
        """
        changed = []
        with self.transaction() as db:
            for id in ids:
                row = self.row(db, id)
                if row is None:
                    continue
                record = decode_lenient(row)
                if record.state not in (State.REFUSED, State.HELD, State.WAITING):
                    continue
                if record.stored is None:
                    self.delete_where(db, "_id = ?", (id,))
                else:
                    again = record.changed(State.WAITING, "asked for by hand", self.utc())
                    record = replace(again, due=0.0, attempts=0, batch_failures=0, max_batch_clips=None, clock=None)
                    self.rewrite(db, record)
                changed.append(record)
        return changed

    def resolve_awaiting_clock(
        self, record: Record, prepare: Callable[[], None], original_key: str | None = None
    ) -> bool:
        """Writes what was decided for a clip that waited for the clock.

        Args:
            prepare: called before the row is written, while nobody else can claim or change the clip.
            original_key: `records.key_text` of the key that its footage claims; see `Ledger.with_original_key`.

        Returns:
            Whether it still waited for the clock; if not, nothing was done.
        """
        with self.transaction() as db:
            query = f"SELECT 1 FROM {TABLE} WHERE _id = ? AND status = {AWAITING_CLOCK}"
            if db.execute(query, (record.id,)).fetchone() is None:
                return False
            prepare()
            self.rewrite(db, record)
            if original_key is not None:
                self.add_alias(db, original_key, record.id)
        return True

    def delete(self, id: int) -> None:
        """Deletes a row: the next scan takes its footage as new."""
        with self.transaction() as db:
            self.delete_where(db, "_id = ?", (id,))

    def drop_outdated_refusals(self, rules: Iterable[str]) -> int:
        """Deletes refusals of footage under other settings than these, so that the next scan inspects it again.

        Returns:
            How many were deleted.
        """
        current = list(rules)
        marks = ",".join("?" * len(current))
        with self.transaction() as db:
            return self.delete_where(db, f"rules IS NOT NULL AND rules NOT IN ({marks})", current)

    def _promote(self, db: sqlite3.Connection) -> None:
        now = self.now()
        # Not in one statement: with an OR, SQLite would read through all clips that are not due.
        for condition, due in (("due <= ?", now), ("due > ?", now + MAX_DUE_SECONDS)):
            db.execute(
                f"UPDATE {TABLE} SET status = {READY}, due = 0 WHERE status IN ({DEFERRED}, {HELD}) AND {condition}",
                (due,),
            )

    def _ready(self, db: sqlite3.Connection, damaged: list[int]) -> Iterator[Upload]:
        # Without INDEXED BY, SQLite takes the other index of the states, and sorts all that wait for each batch.
        rows = db.execute(
            f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY clip_ready WHERE status = {READY} ORDER BY priority DESC, _id"
        )
        for row in rows:
            try:
                yield decode(row).upload(self._clips_directory)
            except RowUnreadable:
                damaged.append(row[0])


def _due(now: float, retry_in_seconds: float) -> float:
    return now + retry_in_seconds if retry_in_seconds > 0 else 0.0
