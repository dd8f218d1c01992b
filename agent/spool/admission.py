"""Footage is taken into the spool in groups that share the syncs: all files first, then all rows in one commit.

Each piece of footage of a group still has a fate of its own, and that is the one it would have had if the group had
been taken in one after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path

from agent.device.safe_open import OpenFootage
from agent.errors import FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.model import Clip, Footage, State
from agent.spool.clip_queue import ClipQueue
from agent.spool.disk_budget import DiskBudget
from agent.spool.duplicates import resolve_conflict, same_recording
from agent.spool.files import NO_SPACE, ClipFiles, name_for
from agent.spool.queries import Ledger
from agent.spool.records import Record, Stored, video_key
from agent.spool.recovery import STORED_STATES
from agent.spool.time_correction import WAITS_FOR_THE_CLOCK

# Syncs that are under way together share the journal's commits and the card's flushes.
SYNCS_AT_ONCE = 4

# The clips of one piece of footage, each with the file that holds its bytes: the open footage itself, or the path of a
# piece in the spool's own work directory.
Pieces = Sequence[tuple[Clip, "OpenFootage | Path"]]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a clip that was handed to the spool.

    Args:
        id: its number; that of the earlier clip if the spool had the same recording already.
        state: WAITING; REFUSED if the API could not tell it from another clip; else the earlier clip's state.
        reason: why, where it does not simply wait.
        again: the spool had the same recording already, under another name or time stamp.
        copied: its bytes had to be copied, where a hard link was not possible.
    """

    id: int
    state: State
    reason: str = ""
    again: bool = False
    copied: bool = False


# Why footage was not taken in: it vanished or changed since it was inspected, cannot be read, or has no room now.
NotTaken = FootageGone | FootageRefused | SpoolFull


@dataclass(slots=True)
class _Candidate:
    """One piece of footage on its way in.

    Args:
        copied: of each piece that has its name in the spool, whether it had to be copied.
        stored, taken: what is known of each piece so far.
        surplus: the names of stored files that hold what the spool has already.
        trouble: why it is not taken in.
    """

    pieces: Pieces
    copied: list[bool] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    trouble: NotTaken | None = None

    @property
    def footage(self) -> Footage:
        return self.pieces[0][0].footage


class Admission:
    """Takes footage into one spool.

    Args:
        queue: its rows.
        files: its stored files.
        space: its room.
    """

    def __init__(self, queue: ClipQueue, files: ClipFiles, space: DiskBudget) -> None:
        self._queue = queue
        self._files = files
        self._budget = space

    def admit(self, group: Sequence[Pieces], alive: Callable[[], None]) -> list[list[Taken] | NotTaken]:
        """See `Spool.take_in_group`."""
        candidates = [_Candidate(pieces) for pieces in group]
        try:
            self._store(candidates, alive)
            self._make_durable(_promising(candidates), alive)
            self._enter(_promising(candidates))
        except (OSError, sqlite3.Error, SpoolError) as exc:
            # Nobody knows what is on the disk now, so the stored files stay: the next start makes them agree.
            names = ", ".join(candidate.footage.path.name for candidate in candidates)
            raise SpoolError(f"the spool cannot take {names}: {exc}") from exc
        return [candidate.trouble or candidate.taken for candidate in candidates]

    def _store(self, candidates: Sequence[_Candidate], alive: Callable[[], None]) -> None:
        coming_bytes = 0
        for candidate in candidates:
            size_bytes = candidate.footage.size_bytes
            with self._all_or_none(candidate):
                if len(candidate.pieces) > 1:
                    self._files.begin_multi_part(candidate.footage)
                for clip, source in candidate.pieces:
                    room = self._budget.room(size_bytes, coming_bytes)
                    candidate.copied.append(self._files.store(clip, source, max_copy_bytes=room))
                    alive()
                coming_bytes += size_bytes

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
        """The stored file of a clip, durable.

        Raises:
            FootageGone: it is not what was inspected.
            OSError: the disk failed.
        """
        opened = source if isinstance(source, OpenFootage) else None
        stored = self._files.examine(name_for(clip), None if was_copied else opened, is_durable=was_copied)
        footage = clip.footage
        is_whole = opened is not None or source == footage.path
        changed = stored.size_bytes != footage.size_bytes or (
            not was_copied and stored.modified_ns != footage.modified_ns
        )
        if is_whole and changed:
            raise FootageGone(f"{footage.path.name} changed while it was taken into the spool")
        return stored

    def _enter(self, candidates: Sequence[_Candidate]) -> None:
        if not candidates:
            return
        with self._all_or_none(*candidates):
            self._files.sync()
            with self._queue.transaction() as db:
                # It sees the rows of those that came before in the group.
                ledger = Ledger(db, nullcontext())
                for candidate in candidates:
                    self._write_rows(db, ledger, candidate)
        for candidate in _promising(candidates):
            pieces = zip(candidate.stored, candidate.taken, strict=True)
            self._budget.held_bytes += sum(file.size_bytes for file, taken in pieces if not taken.again)
            for name in candidate.surplus:
                self._files.remove(name)
            self._end_set(candidate)

    def _write_rows(self, db: sqlite3.Connection, ledger: Ledger, candidate: _Candidate) -> None:
        """Writes the rows of stored clips; what the spool has already is noted, and its second file is surplus."""
        for (clip, _), file, copied in zip(candidate.pieces, candidate.stored, candidate.copied, strict=True):
            key = video_key(clip.key)
            twins = [twin for twin in ledger.of_video(key) if not self._is_dead(twin)]
            # Once the boot is over in which it was recorded, nothing tells by how much its name is wrong.
            renamed = [twin for twin in ledger.of_named(key) if not self._is_dead(twin)]
            same = same_recording([*twins, *renamed], file)
            if same is not None:
                self._queue.note_again(db, clip, same.id)
                if same.stored is None or same.stored.name != file.name:
                    candidate.surplus.append(file.name)
                candidate.taken.append(Taken(same.id, same.state, same.reason, again=True))
                continue
            state, reason = State.HELD, WAITS_FOR_THE_CLOCK
            if clip.clock is None:
                state, reason = resolve_conflict(clip.footage, twins)
            id = self._queue.enter(db, Record.of_clip(clip, file, state, reason, self._utc()))
            if clip.original_key is not None:
                self._queue.sight(db, video_key(clip.original_key), id)
            candidate.taken.append(Taken(id, state, reason, copied=copied))

    def _is_dead(self, twin: Record) -> bool:
        """Whether its bytes are no more: a hard link shares what the recorder writes. Its delivery will notice."""
        if twin.state is State.LOST:
            return True
        return twin.state in STORED_STATES and twin.stored is not None and self._files.was_written_to(twin.stored)

    @contextmanager
    def _all_or_none(self, *candidates: _Candidate) -> Iterator[None]:
        """Nothing stays of footage that is not taken in; what the disk may have done with it is another matter."""
        try:
            yield
        except (FootageGone, FootageRefused, SpoolFull) as exc:
            trouble: NotTaken = exc
        except OSError as exc:
            if exc.errno not in NO_SPACE:
                raise
            trouble = SpoolFull("the disk of the spool is full")
        else:
            return
        for candidate in candidates:
            candidate.trouble = trouble
            for (clip, _), _ in zip(candidate.pieces, candidate.copied, strict=False):
                self._files.remove(name_for(clip))
            self._end_set(candidate)

    def _end_set(self, candidate: _Candidate) -> None:
        if len(candidate.pieces) > 1:
            self._files.end_multi_part(candidate.footage.identity)

    def _utc(self) -> datetime:
        return datetime.fromtimestamp(self._queue.now(), tz=timezone.utc)


def _promising(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Those that nothing is wrong with so far."""
    return [candidate for candidate in candidates if candidate.trouble is None]
