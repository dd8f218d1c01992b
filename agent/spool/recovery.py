"""Makes rows and stored files agree again: after a power cut, after damage, and for single damaged rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import structlog

from agent.model import Footage, State
from agent.spool.clip_queue import ClipQueue
from agent.spool.duplicates import resolve_conflict, same_recording
from agent.spool.files import ClipFiles, StoredName, piece_of, read_name
from agent.spool.maintenance import Maintenance
from agent.spool.queries import STORED_STATES, UNKNOWN, content_of
from agent.spool.records import Record, RowUnreadable, can_be_taken_again, from_json, is_there, key_text
from agent.spool.store import ROW
from agent.spool.time_correction import WAITS_FOR_THE_CLOCK

log = structlog.get_logger()

# SQLite's oldest limit is 999 values a query.
FILES_AT_ONCE = 500
DIGEST_GROUPS = 1024

# The stored files by identity and piece, with what their names say.
FilesByPiece = Mapping[tuple[str, int], tuple[str, StoredName]]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What start-up had to repair after the last run.

    Args:
        adopted: stored files without a row: rows were made from their names.
        requeued: clips whose stored file was gone but whose footage is there: the scan takes them in again.
        lost: clips whose bytes are gone.
        removed: stored files of clips that had been delivered, and of footage whose pieces were not all stored: the
            scan takes it in again.
        repaired_rows: damaged rows.
    """

    adopted: int = 0
    requeued: int = 0
    lost: int = 0
    removed: int = 0
    repaired_rows: int = 0


class SetDigest:
    """Sums of the hashes of names, in groups: two large sets are compared without keeping either in memory.

    Where two sets have the same sum and count, they have the same names. Hashes contain a secret of this process
    (PYTHONHASHSEED): no one can choose names that add up alike.

    Args:
        names: read once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sums = [0] * DIGEST_GROUPS
        self._counts = [0] * DIGEST_GROUPS
        for name in names:
            number = hash(name)
            self._sums[number % DIGEST_GROUPS] += number
            self._counts[number % DIGEST_GROUPS] += 1

    def count_equal(self, other: SetDigest) -> int:
        """How many names are in groups that are the same in both sets."""
        return sum(count for group, count in enumerate(self._counts) if self._is_equal(other, group))

    def in_other_groups(self, other: SetDigest, names: Iterable[str]) -> Iterator[str]:
        """Those of the names that are in groups that differ: few, unless the sets differ much."""
        differs = [not self._is_equal(other, group) for group in range(DIGEST_GROUPS)]
        return iter(name for name in names if differs[hash(name) % DIGEST_GROUPS]) if any(differs) else iter(())

    def _is_equal(self, other: SetDigest, group: int) -> bool:
        return (self._sums[group], self._counts[group]) == (other._sums[group], other._counts[group])


class Repair:
    """Repairs one spool. `recover` runs at start-up, before anything else; `repair_rows` in the delivery thread too.

    Args:
        queue: its rows.
        files: its stored files.
    """

    def __init__(self, queue: ClipQueue, files: ClipFiles) -> None:
        self._queue = queue
        self._maintenance = Maintenance(queue)
        self._files = files

    def recover(self, *, full_check: bool) -> Recovery:
        """Compares all rows with all stored files.

        Args:
            full_check: read each row that waits for delivery; else damage to one is found when its turn comes.
        """
        repaired = self.repair_rows(self._maintenance.damaged(STORED_STATES)) if full_check else 0
        matched, others = self._compare()
        adopted = removed = 0
        unfinished = self._files.unfinished_multi_parts()
        # With half of the pieces the footage would count as known, and the other half would never be cut.
        restarted = {identity for identity, footage in unfinished.items() if footage and is_there(footage)}
        for name in sorted(others):
            named = read_name(name)
            if named is None:
                continue
            record = self._maintenance.of_piece(named.identity, named.piece)
            replacing = None
            if record is not None and not _owns(record, name):
                # Damage has changed the row, and left it readable.
                replacing, record = record.id, None
            if record is not None and record.state in STORED_STATES:
                matched += 1
            elif record is not None or named.identity in restarted:
                if replacing is not None:
                    self._queue.delete(replacing)
                self._files.remove(name)
                removed += 1
            else:
                adopted += self._adopt(name, named, replacing)
        for identity in unfinished:
            self._files.end_multi_part(identity)
        requeued = lost = 0
        if adopted + matched < self._maintenance.count_stored(STORED_STATES):
            requeued, lost = self._give_up_missing()
        return Recovery(adopted, requeued, lost, removed, repaired)

    def _compare(self) -> tuple[int, list[str]]:
        """Compares the stored files with the rows, without decoding the rows.

        Where all agree, each is read once, in order. To look up each file's row would be random access to all pages.

        Returns:
            How many files belong to rows that wait for delivery, and the names of all other files.
        """
        of_rows = SetDigest(self._maintenance.stored_names(STORED_STATES))
        of_files = SetDigest(self._files.names())
        matched = of_rows.count_equal(of_files)
        others: list[str] = []
        names = of_rows.in_other_groups(of_files, self._files.names())
        while page := list(islice(names, FILES_AT_ONCE)):
            by_piece = {piece: name for name in page if (piece := piece_of(name))}
            known = self._maintenance.named_by_rows(by_piece, STORED_STATES)
            matched += len(known)
            others += [name for name in page if name not in known]
        return matched, others

    def repair_rows(self, ids: Iterable[int]) -> int:
        """Restores damaged rows: from what is left of them, from their stored files, or from the footage.

        Returns:
            How many rows there were.
        """
        count = 0
        by_piece: FilesByPiece | None = None
        for id in ids:
            raw = self._maintenance.raw(id)
            if raw is None:
                continue
            if by_piece is None:
                names = [(name, read_name(name)) for name in self._files.names()]
                by_piece = {(named.identity, named.piece): (name, named) for name, named in names if named}
            count += 1
            remedy = self._repair_row(dict(zip(ROW, raw, strict=True)), by_piece)
            log.warning("row_damaged", clip=id, remedy=remedy)
        return count

    def _repair_row(self, row: Mapping[str, Any], by_piece: FilesByPiece) -> str:
        """Returns what was done, for the log."""
        id = row["_id"]
        record, footage = _remains(id, row["data"])
        if record is not None:
            self._maintenance.write(record)
            return "restored from its history"
        if row["rules"] is not None:
            self._queue.delete(id)
            return "it was refused footage: the next scan inspects it again"
        file = by_piece.get((row["identity"], row["piece"]))
        if file is not None:
            self._adopt(*file, replacing=id)
            return "restored from its stored file"
        if footage is not None and is_there(footage):
            self._queue.delete(id)
            return "its footage is taken in again"
        reason = (
            "its row in the spool was damaged and its stored file is gone; if its footage exists, it is taken in again"
        )
        lost = Record(id, State.LOST, footage or UNKNOWN, None, None)
        self._maintenance.write(lost.changed(State.LOST, reason, self._queue.utc()), release_identity=True)
        return "it is listed as lost"

    def _give_up_missing(self) -> tuple[int, int]:
        """Finds clips without a stored file. Where the footage exists they start again; else they are lost."""
        requeued = lost = 0
        for record in self._queue.ledger.records(STORED_STATES):
            if record.stored is None or self._files.has(record.stored.name):
                continue
            if can_be_taken_again(record):
                self._queue.delete(record.id)
                requeued += 1
            else:
                reason = "its bytes were gone when the agent started: neither the spool nor the footage has them"
                self._maintenance.write(record.changed(State.LOST, reason, self._queue.utc()), release_identity=True)
                lost += 1
        return requeued, lost

    def _adopt(self, name: str, named: StoredName, replacing: int | None = None) -> int:
        """Makes a row for a stored file that has none. The scan recognizes its footage by the identity.

        Args:
            replacing: the damaged row of this file, which goes in the same transaction: in between, a scan would
                take its footage in once more.

        Returns:
            How many rows it made: none for a file that cannot be read, or whose recording has a row already.
        """
        try:
            stored = self._files.examine(name)
        except OSError as exc:
            log.warning("stored_file_unreadable", file=name, reason=str(exc.strerror))
            if replacing is not None:
                self._queue.delete(replacing)
            return 0
        others = [other for other in self._queue.ledger.with_key(key_text(named.key)) if other.id != replacing]
        same = same_recording(others, stored)
        if same is not None:
            self._queue.replace_by_alias(replacing, same.id, named.identity)
            if same.stored is None or same.stored.name != name:
                self._files.remove(name)
            return 0
        footage = Footage(self._files.directory / name, stored.size_bytes, stored.modified_ns)
        state, reason = State.HELD, WAITS_FOR_THE_CLOCK
        if named.clock is None:
            state, reason = resolve_conflict(footage, others)
        record = Record(
            id=0,
            state=state,
            footage=footage,
            key=named.key,
            stored=stored,
            priority=named.priority,
            sources={"all": "the name of the stored file, whose row was lost"},
            piece=named.piece,
            clock=named.clock,
        )
        with self._queue.transaction() as db:
            self._queue.delete_where(db, "_id = ?", (replacing,))
            self._queue.enter(db, record.changed(state, reason, self._queue.utc()), named.identity)
        return 1


def _owns(record: Record, name: str) -> bool:
    """Whether a row belongs to this stored file and its state is credible: if it is "delivered", the file goes."""
    if record.stored is None or record.stored.name != name:
        return False
    return record.state in STORED_STATES or (bool(record.history) and record.history[-1].state is record.state)


def _remains(id: int, data: Any) -> tuple[Record | None, Footage | None]:
    """What is left of a damaged row: the record, if its JSON is intact (its history tells its state); the footage."""
    try:
        record = from_json(id, State.WAITING, 0.0, 0, content_of(data))
    except RowUnreadable:
        try:
            reduced = {**content_of(data), "reason": "", "video": None, "stored": None, "history": []}
            return None, from_json(id, State.LOST, 0.0, 0, reduced).footage
        except (RowUnreadable, TypeError):
            return None, None
    if not record.history or record.key is None or record.stored is None:
        return None, record.footage
    state = record.history[-1].state
    named = read_name(record.stored.name)
    state = State.WAITING if state is State.SENDING else state
    return replace(record, state=state, priority=named.priority if named else 0), record.footage
