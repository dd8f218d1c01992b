"""Makes the rows and the stored files agree again: after a power cut, after damage, and for single damaged rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

import structlog

from agent.model import Footage, State
from agent.spool.clip_queue import ClipQueue
from agent.spool.duplicates import resolve_conflict, same_recording
from agent.spool.files import ClipFiles, StoredName, piece_of, read_name
from agent.spool.maintenance import Maintenance
from agent.spool.presence import can_start_anew, is_there
from agent.spool.queries import UNKNOWN, content_of
from agent.spool.records import Record, RowUnreadable, from_json, video_key
from agent.spool.schema import ROW
from agent.spool.set_diff import SetDigest
from agent.spool.time_correction import WAITS_FOR_THE_CLOCK

log = structlog.get_logger()

# The states whose clips still have their bytes in the spool.
STORED_STATES = (State.WAITING, State.SENDING, State.ACCEPTED, State.HELD, State.REFUSED)

# SQLite's oldest limit is 999 values a question.
FILES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Recovery:
    """What start-up had to put right after the last run.

    Args:
        adopted: stored files without a row: rows were made from their names.
        requeued: clips whose stored file was gone but whose footage is there: the scan takes them in anew.
        lost: clips whose bytes are gone.
        removed: stored files of clips that had been delivered, and of footage whose pieces were not all stored: the
            scan takes it in anew.
        mended: damaged rows.
    """

    adopted: int = 0
    requeued: int = 0
    lost: int = 0
    removed: int = 0
    repaired_rows: int = 0


class Repair:
    """Puts one spool right.

    Args:
        queue: its rows.
        files: its stored files.
    """

    def __init__(self, queue: ClipQueue, files: ClipFiles) -> None:
        self._queue = queue
        self._maintenance = Maintenance(queue)
        self._files = files

    def recover(self, at: datetime, *, full_check: bool = True) -> Recovery:
        """Looks at everything; call it before anything else uses the spool.

        Args:
            at: now, for the histories.
            thorough: read each row that waits for delivery; else damage to one is found when its turn comes.
        """
        repaired_rows = self.mend(self._maintenance.damaged(STORED_STATES), at) if full_check else 0
        matched, others = self._compare()
        adopted = removed = 0
        unfinished = self._files.unfinished_multi_parts()
        # Half of the pieces would make the footage known, and the other half would never be cut.
        anew = {identity for identity, footage in unfinished.items() if footage and is_there(footage)}
        for name in sorted(others):
            said = read_name(name)
            if said is None:
                continue
            record = self._maintenance.of_piece(said.identity, said.piece)
            if record is not None and not _speaks_of(record, name):
                # Damage has changed the row, and left it readable.
                self._queue.forget(record.id)
                record = None
            if record is None and said.identity in anew:
                self._files.remove(name)
                removed += 1
            elif record is None:
                adopted += self._adopt(name, said, at)
            elif record.state in STORED_STATES:
                matched += 1
            else:
                self._files.remove(name)
                removed += 1
        for identity in unfinished:
            self._files.end_multi_part(identity)
        requeued = lost = 0
        if adopted + matched < self._maintenance.count_stored(STORED_STATES):
            requeued, lost = self._give_up_missing(at)
        return Recovery(adopted, requeued, lost, removed, repaired_rows)

    def _compare(self) -> tuple[int, list[str]]:
        """Compares the stored files with the rows, without reading the rows as such.

        Where all agree that takes one look at each, in order: to look up each file's row goes all over the ledger.

        Returns:
            How many belong to rows that wait for delivery, and the names of all other files.
        """
        of_rows = SetDigest(self._maintenance.stored_names(STORED_STATES))
        of_files = SetDigest(self._files.names())
        matched = of_rows.agreeing(of_files)
        others: list[str] = []
        names = iter(of_rows.differing(of_files, self._files.names()))
        while page := list(islice(names, FILES_AT_ONCE)):
            by_piece = {piece: name for name in page if (piece := piece_of(name))}
            known = self._maintenance.named_by_rows(by_piece, STORED_STATES)
            matched += len(known)
            others += [name for name in page if name not in known]
        return matched, others

    def mend(self, ids: Iterable[int], at: datetime) -> int:
        """Makes damaged rows anew: from what is left of them, from their stored files, or from the footage.

        Returns:
            How many rows there were.
        """
        count = 0
        by_piece: dict[tuple[str, int], tuple[str, StoredName]] | None = None
        for id in ids:
            raw = self._maintenance.raw(id)
            if raw is None:
                continue
            row = dict(zip(ROW, raw, strict=True))
            if by_piece is None:
                names = [(name, read_name(name)) for name in self._files.names()]
                by_piece = {(said.identity, said.piece): (name, said) for name, said in names if said}
            count += 1
            log.warning("row_damaged", clip=id, remedy=self._mend_row(row, by_piece, at))
        return count

    def _mend_row(
        self, row: Mapping[str, Any], by_piece: Mapping[tuple[str, int], tuple[str, StoredName]], at: datetime
    ) -> str:
        """Returns what was done, for the log."""
        id = row["_id"]
        content = _content(row["data"])
        record = _remembered(id, content)
        if record is not None:
            self._maintenance.write(record)
            return "put together again from its history"
        file = by_piece.get((row["identity"], row["piece"]))
        if row["rules"] is not None:
            self._queue.forget(id)
            return "it was refused footage: the scan looks at it anew"
        if file is not None:
            self._queue.forget(id)
            self._adopt(*file, at)
            return "made anew from its stored file"
        footage = _footage(content)
        if footage is not None and is_there(footage):
            self._queue.forget(id)
            return "its footage is taken in anew"
        reason = (
            "its row in the spool was damaged and its stored file is gone; if its footage is there, it is taken anew"
        )
        lost = Record(id, State.LOST, footage or UNKNOWN, None, None)
        self._maintenance.write(lost.changed(State.LOST, reason, at), release_identity=True)
        return "it is listed as lost"

    def _give_up_missing(self, at: datetime) -> tuple[int, int]:
        """Finds the clips without a stored file: those with footage start anew, the others are lost, and say so."""
        requeued = lost = 0
        for record in self._queue.ledger.records(STORED_STATES):
            if record.stored is None or self._files.has(record.stored.name):
                continue
            if can_start_anew(record):
                self._queue.forget(record.id)
                requeued += 1
            else:
                reason = "its bytes were gone when the agent started: neither the spool nor the footage has them"
                self._maintenance.write(record.changed(State.LOST, reason, at), release_identity=True)
                lost += 1
        return requeued, lost

    def _adopt(self, name: str, said: StoredName, at: datetime) -> int:
        """Makes a row for a stored file that has none; the scan will know its footage again by the identity.

        Returns:
            How many rows it made: none for a file that cannot be read, or whose recording has a row already.
        """
        try:
            stored = self._files.examine(name)
        except OSError as exc:
            log.warning("stored_file_unreadable", file=name, reason=str(exc.strerror))
            return 0
        twins = self._queue.ledger.of_video(video_key(said.key))
        same = same_recording(twins, stored)
        if same is not None:
            self._queue.note_sighting(said.identity, same.id)
            if same.stored is None or same.stored.name != name:
                self._files.remove(name)
            return 0
        footage = Footage(self._files.directory / name, stored.size_bytes, stored.modified_ns)
        state, reason = resolve_conflict(footage, twins) if said.clock is None else (State.HELD, WAITS_FOR_THE_CLOCK)
        record = Record(
            id=0,
            state=state,
            footage=footage,
            key=said.key,
            stored=stored,
            priority=said.priority,
            sources={"all": "the name of the stored file, whose row was lost"},
            piece=said.piece,
            clock=said.clock,
        )
        self._queue.add([record.changed(state, reason, at)], identity=said.identity)
        return 1


def _speaks_of(record: Record, name: str) -> bool:
    """Whether a row is about this stored file, and means what it says: the file goes if it says «delivered»."""
    if record.stored is None or record.stored.name != name:
        return False
    return record.state in STORED_STATES or (bool(record.history) and record.history[-1].state is record.state)


def _content(data: Any) -> Any:
    try:
        return content_of(data)
    except RowUnreadable:
        return None


def _remembered(id: int, content: Any) -> Record | None:
    """The record of a row whose columns are damaged but whose JSON is not: its history tells its state."""
    if content is None:
        return None
    try:
        record = from_json(id, State.WAITING, 0.0, 0, content)
    except RowUnreadable:
        return None
    if not record.history or record.key is None or record.stored is None:
        return None
    state = record.history[-1].state
    said = read_name(record.stored.name)
    priority = said.priority if said else 0
    return replace(record, state=State.WAITING if state is State.SENDING else state, priority=priority)


def _footage(content: Any) -> Footage | None:
    """The footage of a row of which nothing else may be left."""
    try:
        return from_json(
            0, State.LOST, 0.0, 0, {**content, "reason": "", "video": None, "stored": None, "history": []}
        ).footage
    except (RowUnreadable, TypeError):
        return None
