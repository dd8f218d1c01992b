"""Takes footage into the spool in groups that share the syncs: first all files, then all rows in one commit.

Each piece of footage in a group still has an outcome of its own: the one that it would have had alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from agent.device.safe_open import OpenFootage
from agent.errors import FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.model import Clip, Footage, State
from agent.spool.clip_queue import ClipQueue
from agent.spool.disk_budget import DiskBudget
from agent.spool.duplicates import resolve_conflict, same_recording
from agent.spool.files import NO_SPACE, ClipFiles, name_for
from agent.spool.queries import STORED_STATES, Ledger
from agent.spool.records import Record, Stored, key_text
from agent.spool.time_correction import WAITS_FOR_THE_CLOCK

# Concurrent syncs share the journal's commits and the card's flushes.
SYNCS_AT_ONCE = 4

# The clips of one piece of footage, each with the file that holds its bytes: the open footage itself, or the path of a
# piece in the spool's own work directory.
Pieces = Sequence[tuple[Clip, "OpenFootage | Path"]]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a clip that was taken in.

    Args:
        id: its number, or that of the clip with the same recording.
        state: WAITING; REFUSED if the API could not tell it from another clip; HELD if its time waits for the clock;
            or the state of the clip with the same recording.
        reason: why, unless it simply waits.
        again: the spool had the same recording already, under another name or time stamp.
        copied: its bytes had to be copied, because a hard link was not possible.
    """

    id: int
    state: State
    reason: str = ""
    again: bool = False
    copied: bool = False


# Why footage was not taken in: it vanished or changed since its inspection, cannot be read, or there is no room now.
NotTaken = FootageGone | FootageRefused | SpoolFull


@dataclass(slots=True)
class _Candidate:
    """One piece of footage that is being taken in.

    Args:
        copied: for each piece that is stored, whether it had to be copied.
        stored, taken: what is known of each piece so far.
        surplus: stored files whose content the spool had already.
        error: why it is not taken in.
    """

    pieces: Pieces
    copied: list[bool] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    error: NotTaken | None = None

    @property
    def footage(self) -> Footage:
        return self.pieces[0][0].footage


class Admission:
    """Takes footage into one spool. Called by the intake thread only.

    Args:
        queue: its rows.
        files: its stored files.
        budget: its disk budget.
    """

    def __init__(self, queue: ClipQueue, files: ClipFiles, budget: DiskBudget) -> None:
        self._queue = queue
        self._files = files
        self._budget = budget

    def admit(self, group: Sequence[Pieces], alive: Callable[[], None]) -> list[list[Taken] | NotTaken]:
        """See `Spool.take_in_group`."""
        candidates = [_Candidate(pieces) for pieces in group]
        try:
            self._store(candidates, alive)
            self._make_durable(_without_error(candidates), alive)
            self._write_rows(_without_error(candidates))
        except (OSError, sqlite3.Error, SpoolError) as exc:
            # What is on the disk now is unknown, so the stored files stay: the next start compares them with the rows.
            names = ", ".join(candidate.footage.path.name for candidate in candidates)
            raise SpoolError(f"the spool cannot take {names}: {exc}") from exc
        return [candidate.error or candidate.taken for candidate in candidates]

    def _store(self, candidates: Sequence[_Candidate], alive: Callable[[], None]) -> None:
        pending_bytes = 0
        for candidate in candidates:
            size_bytes = candidate.footage.size_bytes
            with self._all_or_none(candidate):
                if len(candidate.pieces) > 1:
                    self._files.begin_multi_part(candidate.footage)
                for clip, source in candidate.pieces:
                    max_copy_bytes = self._budget.max_copy_bytes(size_bytes, pending_bytes)
                    candidate.copied.append(self._files.store(clip, source, max_copy_bytes=max_copy_bytes))
                    alive()
                pending_bytes += size_bytes

    def _make_durable(self, candidates: Sequence[_Candidate], alive: Callable[[], None]) -> None:
        with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
            examined = [
                [
                    pool.submit(self._examine, clip, source, copied)
                    for (clip, source), copied in zip(candidate.pieces, candidate.copied, strict=True)
                ]
                for candidate in candidates
            ]
            for result in chain.from_iterable(examined):
                result.exception()
                alive()
        for candidate, results in zip(candidates, examined, strict=True):
            with self._all_or_none(candidate):
                candidate.stored = [result.result() for result in results]

    def _examine(self, clip: Clip, source: OpenFootage | Path, was_copied: bool) -> Stored:
        """The stored file of a clip, durable. Runs in the threads of the pool, each with a file of its own.

        Raises:
            FootageGone: it is not what was inspected.
            OSError: the disk failed.
        """
        opened = source if isinstance(source, OpenFootage) else None
        stored = self._files.examine(name_for(clip), None if was_copied else opened, is_durable=was_copied)
        footage = clip.footage
        changed = stored.size_bytes != footage.size_bytes or (
            not was_copied and stored.modified_ns != footage.modified_ns
        )
        if opened is not None and changed:
            raise FootageGone(f"{footage.path.name} changed while it was taken into the spool")
        return stored

    def _write_rows(self, candidates: Sequence[_Candidate]) -> None:
        if not candidates:
            return
        with self._all_or_none(*candidates):
            self._files.sync()
            with self._queue.transaction() as db:
                # Reads within the transaction, and so sees the rows of earlier candidates.
                ledger = Ledger(db, nullcontext())
                for candidate in candidates:
                    self._write_candidate(db, ledger, candidate)
        for candidate in _without_error(candidates):
            pieces = zip(candidate.stored, candidate.taken, strict=True)
            self._budget.change(sum(file.size_bytes for file, taken in pieces if not taken.again))
            for name in candidate.surplus:
                self._files.remove(name)
            self._end_multi_part(candidate)

    def _write_candidate(self, db: sqlite3.Connection, ledger: Ledger, candidate: _Candidate) -> None:
        """Writes the rows of stored clips. For a duplicate an alias is noted, and its second file is surplus."""
        for (clip, _), file, copied in zip(candidate.pieces, candidate.stored, candidate.copied, strict=True):
            key = key_text(clip.key)
            others = [other for other in ledger.with_key(key) if not self._is_dead(other)]
            # Once the boot in which it was recorded is over, nothing tells by how much its name is wrong.
            corrected = [other for other in ledger.with_original_key(key) if not self._is_dead(other)]
            same = same_recording([*others, *corrected], file)
            if same is not None:
                self._queue.note_relocated(db, clip, same.id)
                if same.stored is None or same.stored.name != file.name:
                    candidate.surplus.append(file.name)
                candidate.taken.append(Taken(same.id, same.state, same.reason, again=True))
                continue
            state, reason = State.HELD, WAITS_FOR_THE_CLOCK
            if clip.clock is None:
                state, reason = resolve_conflict(clip.footage, others)
            id = self._queue.enter(db, Record.of_clip(clip, file, state, reason, self._queue.utc()))
            if clip.original_key is not None:
                self._queue.add_alias(db, key_text(clip.original_key), id)
            candidate.taken.append(Taken(id, state, reason, copied=copied))

    def _is_dead(self, record: Record) -> bool:
        """Whether the bytes of a clip are gone: a hard link shares what the recorder writes. Delivery will notice."""
        if record.state is State.LOST:
            return True
        return record.state in STORED_STATES and record.stored is not None and self._files.was_written_to(record.stored)

    @contextmanager
    def _all_or_none(self, *candidates: _Candidate) -> Iterator[None]:
        """Removes the stored files of footage that is not taken in; errors of the disk are raised."""
        try:
            yield
        except (FootageGone, FootageRefused, SpoolFull) as exc:
            error: NotTaken = exc
        except OSError as exc:
            if exc.errno not in NO_SPACE:
                raise
            error = SpoolFull("the disk of the spool is full")
        else:
            return
        for candidate in candidates:
            candidate.error = error
            for (clip, _), _ in zip(candidate.pieces, candidate.copied, strict=False):
                self._files.remove(name_for(clip))
            self._end_multi_part(candidate)

    def _end_multi_part(self, candidate: _Candidate) -> None:
        if len(candidate.pieces) > 1:
            self._files.end_multi_part(candidate.footage.identity)


def _without_error(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    return [candidate for candidate in candidates if candidate.error is None]
