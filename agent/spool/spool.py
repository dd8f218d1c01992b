"""The spool: stored files and their queue as one thing, so that no other part can get the order of steps wrong.

Taking in: file first, row second. Settling: row first, file second. Whatever instant the power goes at, `recover`
puts right what is left, and a clip's bytes go only after an explicit verdict.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.config import SpoolSettings
from agent.device.clock import ClockReading
from agent.device.durable import make_directory
from agent.errors import SpoolError, SpoolFull
from agent.model import Footage, State, Upload, Verdict
from agent.spool.admission import Admission, NotTaken, Pieces, Taken
from agent.spool.clip_queue import ClipQueue
from agent.spool.disk_budget import RESERVE_BYTES, DiskBudget, Eviction, choose_evictions, reason_for
from agent.spool.files import ClipFiles
from agent.spool.lock import SpoolLock
from agent.spool.maintenance import Maintenance
from agent.spool.presence import is_gone, is_there
from agent.spool.queries import DATABASE
from agent.spool.rebuild import Salvage, is_small, open_queue
from agent.spool.records import Record, Stored
from agent.spool.recovery import STORED_STATES, Recovery, Repair
from agent.spool.time_correction import Doubt, TimeCorrection

CLIPS_DIRECTORY = "clips"
# After a year footage that is out of reach, with its card or its folder, is taken for gone.
AWAY = timedelta(days=365)


class Spool:
    """The spool of one daemon.

    Args:
        settings: where it lies and how much it may hold.
        now: Unix seconds.

    Attributes:
        forgotten: how often clips were forgotten so that the scan takes their footage for new.
        salvage: what had to be saved of a damaged queue when this spool was opened; None if it was sound.

    Raises:
        SpoolLocked: another process works with it.
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
            self._queue, self.salvage = self._open()
            self._budget.keep_reserve()
        except (OSError, sqlite3.Error, SpoolError, SpoolFull) as exc:
            self._lock.release(clean=False)
            raise SpoolError(f"the spool {directory} cannot be used: {exc}") from exc
        self._admission = Admission(self._queue, self._files, self._budget)
        self._maintenance = Maintenance(self._queue)
        self._repair = Repair(self._queue, self._files)
        self.ledger = self._queue.ledger
        self.invalidation_epoch = 0
        self._budget.held_bytes = self._count_held_bytes()

    def close(self, *, clean: bool = True) -> None:
        """Lets go of the spool.

        Args:
            clean: nothing has failed; else the next start checks the whole queue for damage.
        """
        self._queue.close()
        self._lock.release(clean=clean)

    def take_in(self, pieces: Pieces) -> list[Taken]:
        """Makes the clips of one piece of footage durable, all or none.

        Args:
            pieces: each clip with the file that holds its bytes: the footage itself, or a part cut from it.

        Raises:
            FootageGone: the file vanished or changed since it was inspected.
            FootageRefused: the file cannot be read.
            SpoolFull: there is no room now.
            SpoolError: the disk failed.
        """
        (outcome,) = self.take_in_group([pieces])
        if isinstance(outcome, list):
            return outcome
        raise outcome

    def take_in_group(
        self, group: Sequence[Pieces], alive: Callable[[], None] = lambda: None
    ) -> list[list[Taken] | NotTaken]:
        """Does what `take_in` would do with one piece of footage after the other; they share what that costs the disk.

        Args:
            group: the clips of different pieces of footage.
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
        self._mend(damaged)
        return batch

    def count_ready(self, most: int) -> int:
        """How many clips could be claimed now; counting ends at `most`."""
        return self._queue.count_ready(most)

    def release(self, ids: Iterable[int]) -> None:
        """Gives clips back untouched."""
        self._queue.release(ids)

    def release_all(self) -> None:
        """Gives back whatever is in flight."""
        try:
            self._queue.release_all()
        except SpoolFull:
            # The reserve has been freed by that: now there is room.
            self._queue.release_all()

    def settle(self, verdicts: Mapping[int, Verdict]) -> list[Record]:
        """Carries out the verdicts of one batch; the stored files of clips that are done with go after that.

        Returns:
            The clips as they are now.

        Raises:
            SpoolFull: the disk is full: nothing was changed, and the verdicts must be kept and carried out later.
        """
        settled, damaged = self._queue.settle(verdicts)
        for record in settled:
            if record.state in (State.DELIVERED, State.LOST) and record.stored is not None:
                self._remove(record.stored)
        self._mend(damaged)
        return settled

    def retry(self, ids: Iterable[int]) -> list[Record]:
        """Makes clips ready again by hand; see `ClipQueue.retry`."""
        return self._queue.retry(ids)

    def correct_times(self, clock: ClockReading, doubt: Doubt) -> list[Record]:
        """Decides about the clips that are held for their time, as far as this device's clock allows now.

        Args:
            clock: as it is now.
            doubt: judges times by a clock that is trusted.

        Returns:
            The clips that have changed.

        Raises:
            SpoolError: the disk failed.
        """
        try:
            changed = TimeCorrection(self._queue, self._files).run(clock, doubt, self._utc())
        except (OSError, sqlite3.Error) as exc:
            raise SpoolError(f"the spool cannot put the times of clips right: {exc}") from exc
        self._budget.held_bytes = self._count_held_bytes()
        return changed

    def state_of(self, footage: Footage) -> State | None:
        """What became of footage; None if it is to be inspected."""
        return self.states_of([footage]).get(footage)

    def states_of(self, footage: Sequence[Footage]) -> dict[Footage, State]:
        """What became of pieces of footage; those that are to be inspected are not in it."""
        identities = {piece.identity: piece for piece in footage}
        return {identities[identity]: state for identity, state in self._queue.states_of(list(identities)).items()}

    def is_fully_delivered(self, footage: Footage) -> bool:
        """Whether all clips of footage were delivered: a piece that was given up no longer stands for it."""
        records = self.ledger.of_footage(footage.identity)
        pieces = max((max(record.pieces, record.piece + 1) for record in records), default=1)
        return len(records) >= pieces and all(record.state is State.DELIVERED for record in records)

    @property
    def revision(self) -> int:
        """A number that grows whenever something changes in the ledger."""
        return self._queue.revision

    def has_refusal_expired(self, after: float, until: float) -> bool:
        """Whether refused footage is to be inspected anew since `after`, in Unix seconds."""
        return self._queue.has_refusal_expired(after, until)

    def refuse(self, footage: Footage, reason: str, rules: str, retry_after_seconds: float | None) -> None:
        """Lists footage that did not become a clip; see `ClipQueue.refuse_footage`.

        Raises:
            SpoolFull: there is no room even for that.
        """
        self._budget.require_reserve()
        self._queue.refuse_footage(footage, reason, rules, retry_after_seconds)

    def drop_outdated_refusals(self, rules: Iterable[str]) -> int:
        return self._queue.drop_outdated_refusals(rules)

    def prune(self, folders: Sequence[Path]) -> bool:
        """Forgets what was delivered, lost or refused over `remember_days` ago and whose footage is gone.

        Args:
            folders: those that are scanned and have footage: on a card that is not plugged in nothing is gone.

        Returns:
            Whether there may be more to forget at once: each call does a bounded piece of the work.
        """
        now = self._utc()
        before = self._now() - self._settings.remember_days * 86_400

        def gone(record: Record) -> bool:
            long_ago = not record.history or now - record.history[-1].at > AWAY
            return is_gone(record.footage, folders) or (long_ago and not is_there(record.footage))

        return self._maintenance.prune(before, gone)[1]

    def evict(self) -> list[Eviction]:
        """Gives up stored clips while the disk has less free space than `min_free_bytes`.

        A hard link holds the blocks that the recorder frees: without this the spool would stop the recorder.

        Returns:
            The clips that were given up.
        """
        self._budget.keep_reserve()
        # Between two counts it is only kept up to date, by two threads.
        self._budget.held_bytes = self._count_held_bytes()
        missing = self._budget.missing_bytes()
        if not missing:
            return []
        evictions = []
        candidates = self._maintenance.eviction_candidates()
        for record, stored, there in choose_evictions(candidates, self._files.directory, missing):
            reason = reason_for(record, there, missing, self._settings.min_free_bytes)
            # Refused clips stay listed, and are not sent again only because there was no room for them.
            state = record.state if there else State.LOST
            changed = replace(record, stored=None, due=0.0).changed(
                state, record.reason if there else reason, self._utc()
            )
            forget = there and record.state is not State.REFUSED
            if self._maintenance.give_up(changed, forget=forget, release_identity=not there):
                self._remove(stored)
                # Whether forgotten or lost: if its footage is met again, it is new.
                self.invalidation_epoch += 1
                evictions.append(Eviction(record.id, record.footage, not there, reason))
        return evictions

    def recover(self) -> Recovery:
        """Makes files and rows agree again; call it once, before anything else uses the spool."""
        try:
            recovery = self._recover()
        except SpoolFull:
            # The reserve has been freed by that: now there is room.
            recovery = self._recover()
        self._budget.held_bytes = self._count_held_bytes()
        return recovery

    def _recover(self) -> Recovery:
        TimeCorrection(self._queue, self._files).finish(self._utc())
        full_check = self._lock.after_crash or is_small(self._settings.directory / DATABASE)
        return self._repair.recover(self._utc(), full_check=full_check)

    def _open(self) -> tuple[ClipQueue, Salvage | None]:
        def attempt() -> tuple[ClipQueue, Salvage | None]:
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
            return attempt()

    def _mend(self, damaged: Sequence[int]) -> None:
        try:
            self.invalidation_epoch += self._repair.mend(damaged, self._utc())
        except SpoolFull:
            # They are met again.
            return

    def _remove(self, stored: Stored) -> None:
        self._files.remove(stored.name)
        self._budget.held_bytes -= stored.size_bytes

    def _count_held_bytes(self) -> int:
        """What counts for the budget. Refused clips wait for nothing: in time they would leave no room for others."""
        waiting = [state for state in STORED_STATES if state is not State.REFUSED]
        return sum(count.size_bytes for count in self.ledger.counts(waiting).values())

    def _utc(self) -> datetime:
        return datetime.fromtimestamp(self._now(), tz=timezone.utc)
