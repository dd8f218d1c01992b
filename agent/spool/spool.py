"""The spool: stored files and their queue behind one interface, so that no caller can confuse the order of steps.

Taking in: file first, row second. Settling: row first, file second. At whatever instant the power goes, `recover`
repairs what is left, and a clip's bytes are removed only after an explicit verdict.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from agent.config import SpoolSettings
from agent.device.clock import ClockReading
from agent.device.durable import make_directory
from agent.errors import SpoolError, SpoolFull
from agent.model import Footage, State, Upload, Verdict
from agent.spool.admission import Admission, NotTaken, Pieces, Taken
from agent.spool.clip_queue import ClipQueue
from agent.spool.disk_budget import RESERVE_BYTES, DiskBudget, Eviction, choose_evictions, eviction_reason
from agent.spool.files import ClipFiles
from agent.spool.lock import SpoolLock
from agent.spool.maintenance import Maintenance
from agent.spool.queries import DATABASE, STORED_STATES
from agent.spool.rebuild import is_small, open_queue
from agent.spool.records import Record, Stored, is_gone, is_there
from agent.spool.recovery import Recovery, Repair
from agent.spool.store import with_reserve
from agent.spool.time_correction import TimeCheck, TimeCorrection

CLIPS_DIRECTORY = "clips"
# Footage that has been out of reach for a year, with its card or its folder, counts as gone.
OUT_OF_REACH = timedelta(days=365)


class Spool:
    """The spool of one daemon.

    Which threads call what: the main thread opens it, calls `recover` before it starts the others, and calls
    `release_all` and `close` after they have ended or stalled. Intake takes in, refuses, corrects times, evicts and
    prunes; delivery claims, releases and settles; the control thread retries. All may read `ledger` and `revision`.
    Rows are guarded by the store's lock, the stored bytes by the disk budget's, `invalidation_epoch` by
    `_epoch_lock`. No lock is taken while another one is held. Stored files need none: each belongs to one row.

    Args:
        settings: where it is and how much it may store.
        now: Unix seconds.

    Attributes:
        ledger: reads the rows.
        invalidation_epoch: grows whenever a row stops standing for its footage, so that a scan takes that as new.

    Raises:
        SpoolLocked: another process uses it.
        SpoolError: the directory cannot be made or the database cannot be opened.
    """

    def __init__(self, settings: SpoolSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        directory = settings.directory
        try:
            make_directory(directory)
            self._lock = SpoolLock(directory)
        except OSError as exc:
            raise SpoolError(f"the spool {directory} cannot be used: {exc}") from exc
        try:
            self._budget = DiskBudget(settings, directory)
            self._files = ClipFiles(directory / CLIPS_DIRECTORY)
            self._queue = self._open()
            self._budget.keep_reserve()
        except (OSError, sqlite3.Error, SpoolError, SpoolFull) as exc:
            self._lock.release(clean=False)
            raise SpoolError(f"the spool {directory} cannot be used: {exc}") from exc
        self._admission = Admission(self._queue, self._files, self._budget)
        self._maintenance = Maintenance(self._queue)
        self._repair = Repair(self._queue, self._files)
        self.ledger = self._queue.ledger
        self.invalidation_epoch = 0
        self._epoch_lock = threading.Lock()
        self._recount()

    def close(self, *, clean: bool = True) -> None:
        """Closes the database and lets other processes in.

        Args:
            clean: nothing has failed; else the next start checks the whole queue for damage.
        """
        self._queue.close()
        self._lock.release(clean=clean)

    def take_in_group(
        self, group: Sequence[Pieces], alive: Callable[[], None] = lambda: None
    ) -> list[list[Taken] | NotTaken]:
        """Makes the clips of several pieces of footage durable; each piece of footage all or none.

        The outcome is that of taking them in one after the other, but they share the syncs.

        Args:
            group: for each piece of footage its clips, each with the file that holds its bytes.
            alive: called with each file.

        Returns:
            For each piece of footage what became of its clips, or why it was not taken in.

        Raises:
            SpoolError: the disk failed.
        """
        return self._admission.admit(group, alive)

    def claim(self, choose: Callable[[Iterator[Upload]], Sequence[Upload]]) -> list[Upload]:
        """The next batch; see `ClipQueue.claim`.

        Raises:
            SpoolFull: the disk is full: nothing was claimed.
        """
        batch, damaged = self._queue.claim(choose)
        self._repair_rows(damaged)
        return batch

    def count_ready(self, limit: int) -> int:
        """How many clips could be claimed now; counting ends at `limit`."""
        return self._queue.count_ready(limit)

    def release(self, ids: Iterable[int]) -> None:
        """Gives clips back untouched."""
        self._queue.release(ids)

    def release_all(self) -> None:
        """Gives back whatever is in flight."""
        with_reserve(self._queue.release_all)

    def settle(self, verdicts: Mapping[int, Verdict]) -> list[Record]:
        """Writes the verdicts of one batch, then removes the stored files of clips that are delivered or lost.

        Returns:
            The clips as they are now.

        Raises:
            SpoolFull: the disk is full: nothing was changed, and the verdicts must be kept and written later.
        """
        settled, damaged = self._queue.settle(verdicts)
        for record in settled:
            if record.state in (State.DELIVERED, State.LOST) and record.stored is not None:
                self._remove(record.stored)
        self._repair_rows(damaged)
        return settled

    def retry(self, ids: Iterable[int]) -> list[Record]:
        """Makes clips ready again by hand; see `ClipQueue.retry`."""
        return self._queue.retry(ids)

    def correct_times(self, clock: ClockReading, check: TimeCheck) -> list[Record]:
        """Decides about the clips that wait for the clock, as far as this device's clock allows now.

        Args:
            clock: as it is now.
            check: judges times by a clock that is trusted.

        Returns:
            The clips that have changed.

        Raises:
            SpoolError: the disk failed.
        """
        try:
            changed = TimeCorrection(self._queue, self._files).run(clock, check)
        except (OSError, sqlite3.Error) as exc:
            raise SpoolError(f"the spool cannot correct the times of clips: {exc}") from exc
        self._recount()
        return changed

    def state_of(self, footage: Footage) -> State | None:
        """The state of footage; None if it is to be inspected."""
        return self.states_of([footage]).get(footage)

    def states_of(self, footage: Sequence[Footage]) -> dict[Footage, State]:
        """The states of several pieces of footage, without those that are to be inspected."""
        identities = {piece.identity: piece for piece in footage}
        return {identities[identity]: state for identity, state in self._queue.states_of(list(identities)).items()}

    def is_fully_delivered(self, footage: Footage) -> bool:
        """Whether all clips of footage were delivered; an evicted piece no longer stands for it."""
        records = self.ledger.of_footage(footage.identity)
        pieces = max((max(record.pieces, record.piece + 1) for record in records), default=1)
        return len(records) >= pieces and all(record.state is State.DELIVERED for record in records)

    @property
    def revision(self) -> int:
        """A number that grows whenever a row changes: what was read from the rows holds as long as it stays."""
        return self._queue.revision

    def has_refusal_expired(self, after: float, until: float) -> bool:
        """Whether the refusal of any footage expired in this interval of Unix seconds."""
        return self._queue.has_refusal_expired(after, until)

    def refuse(self, footage: Footage, reason: str, rules: str, retry_after_seconds: float | None) -> None:
        """Lists footage that did not become a clip; see `ClipQueue.refuse_footage`.

        Raises:
            SpoolFull: there is no room even for that.
        """
        self._budget.require_reserve()
        self._queue.refuse_footage(footage, reason, rules, retry_after_seconds)

    def drop_outdated_refusals(self, rules: Iterable[str]) -> int:
        """Deletes refusals of footage under other settings; see `ClipQueue.drop_outdated_refusals`."""
        return self._queue.drop_outdated_refusals(rules)

    def prune(self, folders: Sequence[Path]) -> bool:
        """Deletes rows that were delivered, lost or refused over `remember_days` ago and whose footage is gone.

        Args:
            folders: those that are scanned and have footage: on a card that is not plugged in nothing is gone.

        Returns:
            Whether there may be more to delete at once: each call does a bounded part of the work.
        """
        now = self._queue.utc()
        before = self._now() - self._settings.remember_days * 86_400

        def gone(record: Record) -> bool:
            long_ago = not record.history or now - record.history[-1].at > OUT_OF_REACH
            return is_gone(record.footage, folders) or (long_ago and not is_there(record.footage))

        return self._maintenance.prune(before, gone)

    def evict(self) -> list[Eviction]:
        """Evicts clips while the disk has less free space than `min_free_bytes`.

        A hard link keeps the blocks that the recorder frees: without eviction the spool would stop the recorder. May
        free nothing while the recorder still links the same blocks.
        """
        self._budget.keep_reserve()
        self._recount()
        missing = self._budget.missing_bytes()
        if not missing:
            return []
        evictions = []
        candidates = self._maintenance.eviction_candidates()
        for record, stored, again in choose_evictions(candidates, self._files.directory, missing):
            reason = eviction_reason(record, again, missing, self._settings.min_free_bytes)
            # Refused clips stay listed: they are not to be sent again only because there was no room for them.
            state = record.state if again else State.LOST
            changed = replace(record, stored=None, due=0.0).changed(
                state, record.reason if again else reason, self._queue.utc()
            )
            delete = again and record.state is not State.REFUSED
            if self._maintenance.evict(changed, delete=delete, release_identity=not again):
                self._remove(stored)
                self._invalidate(1)
                evictions.append(Eviction(record.id, record.footage, not again, reason))
        return evictions

    def recover(self) -> Recovery:
        """Makes files and rows agree again; call it once, before anything else uses the spool."""
        recovery = with_reserve(self._recover)
        self._recount()
        return recovery

    def _recover(self) -> Recovery:
        TimeCorrection(self._queue, self._files).finish()
        full_check = self._lock.after_crash or is_small(self._settings.directory / DATABASE)
        return self._repair.recover(full_check=full_check)

    def _open(self) -> ClipQueue:
        def attempt() -> ClipQueue:
            return open_queue(
                self._settings.directory,
                self._files.directory,
                self._now,
                self._budget.spend_reserve,
                full_check=self._lock.after_crash,
            )

        try:
            return attempt()
        except sqlite3.OperationalError:
            # On a full disk SQLite cannot even open its files, and does not say why.
            if self._budget.free_bytes() >= RESERVE_BYTES or not self._budget.spend_reserve():
                raise
        # Outside the except clause, whose error keeps the connection of the first attempt open.
        return attempt()

    def _repair_rows(self, damaged: Sequence[int]) -> None:
        try:
            self._invalidate(self._repair.repair_rows(damaged))
        except SpoolFull:
            # They are found again.
            return

    def _invalidate(self, rows: int) -> None:
        with self._epoch_lock:
            self.invalidation_epoch += rows

    def _remove(self, stored: Stored) -> None:
        self._files.remove(stored.name)
        self._budget.change(-stored.size_bytes)

    def _recount(self) -> None:
        """Refused clips do not count: nothing but a person ends that state, and they would fill the budget in time."""
        waiting = [state for state in STORED_STATES if state is not State.REFUSED]
        self._budget.recount(sum(count.size_bytes for count in self.ledger.counts(waiting).values()))
