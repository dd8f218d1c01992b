"""The spool: stored files and their queue as one thing, so that no other part can get the order of steps wrong.

Taking in: file first, row second. Settling: row first, file second. Whatever instant the power goes at, `recover`
puts right what is left, and a clip's bytes go only after an explicit verdict.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from agent.clip import Clip, Footage, State, Upload, Verdict
from agent.config import SpoolSettings
from agent.errors import FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.host.clock import ClockStamp
from agent.spool.clip_queue import ClipQueue
from agent.spool.files import ClipFiles, StoredName, make_directory, read_name
from agent.spool.lock import SpoolLock
from agent.spool.records import Record, Stored, video_key
from agent.spool.retiming import WAITS_FOR_THE_CLOCK, Doubt, Retiming
from agent.spool.twins import fate, same_recording

CLIPS_DIRECTORY = "clips"
# The states whose clips still have their bytes in the spool.
HOLDING = (State.WAITING, State.SENDING, State.ACCEPTED, State.HELD, State.REFUSED)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a clip that was handed to the spool.

    Args:
        id: its number; that of the earlier clip if the spool had the same recording already.
        state: WAITING; REFUSED if the API could not tell it from another clip; else the earlier clip's state.
        reason: why, where it does not simply wait.
        again: the spool had the same recording already, under another name or time stamp.
    """

    id: int
    state: State
    reason: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """What start-up had to put right after the last run.

    Args:
        adopted: stored files without a row: rows were made from their names.
        requeued: clips whose stored file was gone but whose footage is there: the scan takes them in anew.
        lost: clips whose bytes are gone.
        removed: stored files of clips that had been delivered, and of footage whose pieces were not all stored: the
            scan takes it in anew.
    """

    adopted: int = 0
    requeued: int = 0
    lost: int = 0
    removed: int = 0


class Spool:
    """The spool of one daemon.

    Args:
        settings: where it lies and how much it may hold.
        now: Unix seconds.

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
            self._files = ClipFiles(directory / CLIPS_DIRECTORY)
            self._queue = ClipQueue(directory, self._files.directory, now)
        except (OSError, sqlite3.Error) as exc:
            raise SpoolError(f"the spool {directory} cannot be used: {exc}") from exc
        self.ledger = self._queue.ledger
        self._held_bytes = self._count_held_bytes()

    def close(self) -> None:
        self._queue.close()
        self._lock.release()

    def take_in(self, pieces: Sequence[tuple[Clip, Path]]) -> list[Taken]:
        """Makes the clips of one piece of footage durable, all or none.

        Args:
            pieces: each clip with the file that holds its bytes: the footage itself, or a part cut from it.

        Raises:
            FootageGone: the file vanished or changed since it was inspected.
            FootageRefused: the file cannot be read.
            SpoolFull: there is no room now.
            SpoolError: the disk failed.
        """
        footage = pieces[0][0].footage
        stored: list[Stored] = []
        try:
            if len(pieces) > 1:
                self._files.begin_set(footage)
            for clip, source in pieces:
                stored.append(self._files.store(clip, source, max_copy_bytes=self._room(clip)))
            self._files.sync()
            taken = self._enter([clip for clip, _ in pieces], stored)
            self._files.end_set(footage.identity)
        except (FootageGone, FootageRefused, SpoolFull):
            self._discard(footage, stored)
            raise
        except (OSError, sqlite3.Error) as exc:
            self._discard(footage, stored)
            raise SpoolError(f"the spool cannot take {footage.path.name}: {exc}") from exc
        return taken

    def claim(self, choose: Callable[[Iterator[Upload]], Sequence[Upload]]) -> list[Upload]:
        """The next batch; see `ClipQueue.claim`."""
        return self._queue.claim(choose)

    def count_ready(self, most: int) -> int:
        """How many clips could be claimed now; counting ends at `most`."""
        return self._queue.count_ready(most)

    def release(self, ids: Iterable[int]) -> None:
        """Gives clips back untouched."""
        self._queue.release(ids)

    def release_all(self) -> None:
        """Gives back whatever is in flight."""
        self._queue.release_all()

    def settle(self, verdicts: Mapping[int, Verdict]) -> list[Record]:
        """Carries out the verdicts of one batch; the stored files of clips that are done with go after that.

        Returns:
            The clips as they are now.
        """
        settled = self._queue.settle(verdicts)
        for record in settled:
            if record.state in (State.DELIVERED, State.LOST) and record.stored is not None:
                self._files.remove(record.stored.name)
                self._held_bytes -= record.stored.size_bytes
        return settled

    def retry(self, ids: Iterable[int]) -> list[Record]:
        """Makes clips ready again by hand; see `ClipQueue.retry`."""
        return self._queue.retry(ids)

    def retime(self, clock: ClockStamp, doubt: Doubt) -> list[Record]:
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
            changed = Retiming(self._queue, self._files).run(clock, doubt, self._utc())
        except (OSError, sqlite3.Error) as exc:
            raise SpoolError(f"the spool cannot put the times of clips right: {exc}") from exc
        self._held_bytes = self._count_held_bytes()
        return changed

    def state_of(self, footage: Footage) -> State | None:
        """What became of footage; None if it is to be inspected."""
        return self.states_of([footage]).get(footage)

    def states_of(self, footage: Sequence[Footage]) -> dict[Footage, State]:
        """What became of pieces of footage; those that are to be inspected are not in it."""
        identities = {piece.identity: piece for piece in footage}
        return {identities[identity]: state for identity, state in self._queue.states_of(list(identities)).items()}

    @property
    def changes(self) -> int:
        """A number that grows whenever something changes in the ledger."""
        return self._queue.changes

    def has_refusal_lapsed(self, after: float, until: float) -> bool:
        """Whether refused footage is to be inspected anew since `after`, in Unix seconds."""
        return self._queue.has_refusal_lapsed(after, until)

    def refuse(self, footage: Footage, reason: str, rules: str, look_again_seconds: float | None) -> None:
        """Lists footage that did not become a clip; see `ClipQueue.refuse_footage`."""
        self._queue.refuse_footage(footage, reason, rules, look_again_seconds)

    def forget_refusals_of_other_rules(self, rules: Iterable[str]) -> int:
        return self._queue.forget_refusals_of_other_rules(rules)

    def forget_delivered(self, away: Sequence[Path] = ()) -> int:
        """Prunes clips that were delivered over `remember_days` ago and whose footage is gone.

        Args:
            away: folders whose card may not be in its reader: nothing that belongs there is gone.
        """
        before = self._now() - self._settings.remember_days * 86_400
        return self._queue.forget_delivered(before, lambda record: _is_gone(record.footage, away))

    def recover(self) -> Recovery:
        """Makes files and rows agree again; call it once, before anything else uses the spool."""
        Retiming(self._queue, self._files).finish(self._utc())
        adopted = matched = removed = 0
        unfinished = self._files.unfinished_sets()
        # Half of the pieces would make the footage known, and the other half would never be cut.
        anew = {identity for identity, footage in unfinished.items() if footage and _is_there(footage)}
        for name in list(self._files.names()):
            said = read_name(name)
            if said is None:
                continue
            state = self._queue.state_of_piece(said.identity, said.piece)
            if state is None and said.identity in anew:
                self._files.remove(name)
                removed += 1
            elif state is None:
                self._adopt(name, said)
                adopted += 1
            elif state in HOLDING:
                matched += 1
            else:
                self._files.remove(name)
                removed += 1
        for identity in unfinished:
            self._files.end_set(identity)
        requeued = lost = 0
        if adopted + matched < self._queue.count_stored(HOLDING):
            requeued, lost = self._give_up_missing()
        return Recovery(adopted, requeued, lost, removed)

    def _give_up_missing(self) -> tuple[int, int]:
        """Finds the clips without a stored file: those with footage start anew, the others are lost, and say so."""
        requeued = lost = 0
        for record in self.ledger.records(HOLDING):
            if record.stored is None or self._files.has(record.stored.name):
                continue
            # One piece of several cannot start anew: by the others, the scan knows its footage.
            is_piece = record.piece > 0 or self._queue.state_of_piece(record.footage.identity, 1) is not None
            if _is_there(record.footage) and not is_piece:
                self._queue.forget(record.id)
                requeued += 1
            else:
                reason = "its bytes were gone when the agent started: neither the spool nor the footage has them"
                self.settle({record.id: Verdict(State.LOST, reason)})
                lost += 1
        return requeued, lost

    def _room(self, clip: Clip) -> int:
        """How many bytes a copy of this clip may have.

        Raises:
            SpoolFull: not even a link to it fits into the budget.
        """
        left = self._settings.max_bytes - self._held_bytes
        if clip.footage.size_bytes > left:
            raise SpoolFull(
                f"the spool holds {self._held_bytes:,} bytes of at most {self._settings.max_bytes:,} (spool.max_bytes)"
            )
        return max(0, min(left, shutil.disk_usage(self._files.directory).free - self._settings.min_free_bytes))

    def _enter(self, clips: Sequence[Clip], stored: Sequence[Stored]) -> list[Taken]:
        """Writes the rows of stored clips; what the spool has already is noted, and its second file removed."""
        taken: list[Taken | None] = []
        records: list[Record] = []
        for clip, file in zip(clips, stored, strict=True):
            twins = [twin for twin in self.ledger.of_video(video_key(clip.video)) if not self._is_dead(twin)]
            same = same_recording(twins, file)
            if same is None:
                state, reason = fate(clip.footage, twins) if clip.clock is None else (State.HELD, WAITS_FOR_THE_CLOCK)
                records.append(Record.of_clip(clip, file, state, reason, self._utc()))
                taken.append(None)
                continue
            self._queue.seen_again(clip, same.id)
            if same.stored is None or same.stored.name != file.name:
                self._files.remove(file.name)
            taken.append(Taken(same.id, same.state, same.reason, again=True))
        ids = self._queue.add(records)
        self._held_bytes += sum(record.stored.size_bytes for record in records if record.stored)
        added = iter([Taken(id, record.state, record.reason) for id, record in zip(ids, records, strict=True)])
        return [known or next(added) for known in taken]

    def _is_dead(self, twin: Record) -> bool:
        """Whether its bytes are no more: a hard link shares what the recorder writes. Its delivery will notice."""
        if twin.state is State.LOST:
            return True
        return twin.state in HOLDING and twin.stored is not None and self._files.was_written_to(twin.stored)

    def _adopt(self, name: str, said: StoredName) -> None:
        """Makes a row for a stored file that has none; the scan will know its footage again by the identity."""
        stored = self._files.examine(name)
        record = Record(
            id=0,
            state=State.WAITING,
            footage=Footage(self._files.directory / name, stored.size_bytes, stored.modified_ns),
            video=said.video,
            stored=stored,
            priority=said.priority,
            sources={"all": "the name of the stored file, whose row was lost"},
            piece=said.piece,
            clock=said.clock,
        )
        state, reason = (State.WAITING, "") if said.clock is None else (State.HELD, WAITS_FOR_THE_CLOCK)
        self._queue.add([record.changed(state, reason, self._utc())], identity=said.identity)
        self._held_bytes += stored.size_bytes

    def _count_held_bytes(self) -> int:
        return sum(tally.size_bytes for state, tally in self.ledger.tallies().items() if state in HOLDING)

    def _discard(self, footage: Footage, stored: Iterable[Stored]) -> None:
        for file in stored:
            self._files.remove(file.name)
        self._files.end_set(footage.identity)

    def _utc(self) -> datetime:
        return datetime.fromtimestamp(self._now(), tz=timezone.utc)


def _is_gone(footage: Footage, away: Sequence[Path]) -> bool:
    return not any(footage.path.is_relative_to(folder) for folder in away) and not _is_there(footage)


def _is_there(footage: Footage) -> bool:
    try:
        stat = footage.path.lstat()
    except OSError:
        return False
    return Footage.from_stat(footage.path, stat) == footage
