"""Handover of footage to the spool: group commit, refusals, and what is logged about both.

All of it runs in the intake thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.config import FootageFolder
from agent.device.safe_open import OpenFootage
from agent.errors import FootageGone, FootageRefused, SpoolFull
from agent.intake.identify.reader import FootageReader
from agent.intake.scanner import stat_footage
from agent.intake.tracked import Tracked
from agent.model import Clip, Footage, State
from agent.spool import NotTaken, Spool, Taken

log = structlog.get_logger()

EVICTION_CHECK_SECONDS = 5.0
# Limits of a pending batch: the first file in it waits while others are inspected, and while all are synced; and each
# file in it is held open.
MAX_FILES = 32
MAX_BYTES = 200_000_000
MAX_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """A file in the pending batch.

    Args:
        tracked: the file.
        pieces: each of its clips with the source of its bytes: the file itself, open, or what the conformer made.
    """

    tracked: Tracked
    pieces: Sequence[tuple[Clip, OpenFootage | Path]]

    def close(self) -> None:
        """Closes the footage, if it is the source."""
        for _, source in self.pieces:
            if isinstance(source, OpenFootage):
                source.close()


class PendingBatch:
    """Group commit: files that settled one after the other go into the spool together and share its syncs.

    Owns the open files of its items, and closes them when it is drained.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._size_bytes = 0
        self._since = 0.0

    def add(self, item: Item, now: float) -> None:
        """Adds a file. Args: now: monotonic seconds."""
        if not self._items:
            self._since = now
        self._items.append(item)
        self._size_bytes += item.tracked.footage.size_bytes

    def is_due(self, now: float) -> bool:
        """Whether it should not wait for more files. Args: now: monotonic seconds."""
        is_full = len(self._items) >= MAX_FILES or self._size_bytes >= MAX_BYTES
        return is_full or (bool(self._items) and now - self._since >= MAX_WAIT_SECONDS)

    @contextmanager
    def drain(self) -> Iterator[Sequence[Item]]:
        """Takes all items out. Their files are closed at the end of the context, whatever happens in it."""
        items, self._items, self._size_bytes = self._items, [], 0
        try:
            yield items
        finally:
            for item in items:
                item.close()


class Handover:
    """Gives footage to the spool, as clips or as refusals.

    Args:
        spool: where clips go.
        readers: know the settings under which footage of a folder is refused.
        on_taken: called when clips were added or became ready.
        monotonic: seconds of a clock that no one sets.
    """

    def __init__(
        self,
        spool: Spool,
        readers: Mapping[FootageFolder, FootageReader],
        on_taken: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.on_taken = on_taken
        self._spool = spool
        self._readers = readers
        self._monotonic = monotonic
        self._evict_at = 0.0
        self._was_full = False
        self._copied: set[FootageFolder] = set()

    def take_in(self, items: Sequence[Item], alive: Callable[[], None]) -> Sequence[list[Taken] | NotTaken]:
        """Takes files into the spool.

        Args:
            items: different files.
            alive: called with each file.

        Returns:
            For each file what became of its clips, or why it was not taken in.

        Raises:
            SpoolError: the disk failed.
        """
        try:
            self.evict_if_low()
            return self._spool.take_in_group([item.pieces for item in items], alive)
        except SpoolFull as exc:
            return [exc] * len(items)

    def record_outcome(self, folder: FootageFolder, footage: Footage, outcome: list[Taken] | NotTaken) -> bool:
        """Logs what became of a file, and lists it if it is refused.

        Returns:
            Whether that is final; False: there is no room, for its clips or for the refusal.
        """
        if isinstance(outcome, SpoolFull):
            self.log_full_once(outcome)
            return False
        # A card that was pulled while it was read says nothing about the footage: the scan looks again.
        if isinstance(outcome, FootageRefused) and stat_footage(footage.path) == footage:
            return self.refuse(folder, footage, outcome)
        if isinstance(outcome, (FootageGone, FootageRefused)):
            log.debug("footage_gone", footage=str(footage.path), reason=str(outcome))
        else:
            self._log_taken(folder, footage, outcome)
        return True

    def refuse(self, folder: FootageFolder, footage: Footage, refusal: FootageRefused) -> bool:
        """Lists footage as refused.

        Returns:
            Whether it is listed; False: there is no room even for that.
        """
        try:
            self._spool.refuse(footage, refusal.reason, self._readers[folder].fingerprint, refusal.retry_after_seconds)
        except SpoolFull as exc:
            self.log_full_once(exc)
            return False
        log.warning("footage_refused", footage=str(footage.path), reason=refusal.reason)
        return True

    def evict_if_low(self) -> None:
        """Evicts clips when free space is low. May free nothing while the recorder still links the same blocks.

        Raises:
            SpoolFull: there is no room even to record an eviction.
        """
        if self._monotonic() < self._evict_at:
            return
        self._evict_at = self._monotonic() + EVICTION_CHECK_SECONDS
        for eviction in self._spool.evict():
            log.warning(
                "clip_given_up",
                clip=eviction.id,
                footage=str(eviction.footage.path),
                lost=eviction.lost,
                reason=eviction.reason,
            )

    def log_full_once(self, error: SpoolFull) -> None:
        """Logs that there is no room, once until something is taken in again."""
        if not self._was_full:
            self._was_full = True
            log.warning("spool_full", reason=f"{error}; the footage stays where it is and is taken in later")

    def _log_taken(self, folder: FootageFolder, footage: Footage, clips: Sequence[Taken]) -> None:
        for taken in clips:
            if taken.again:
                log.info("clip_known_already", clip=taken.id, footage=str(footage.path), reason=taken.reason)
            else:
                log_clip(taken.id, footage, taken.state, taken.reason)
        self._was_full = False
        if any(taken.copied for taken in clips) and folder not in self._copied:
            # Once for each folder, for those who want to spare the card a second write of each clip.
            self._copied.add(folder)
            log.info(
                "footage_copied",
                folder=str(folder.path),
                reason="it cannot be hard-linked into the spool: the spool is on another filesystem or mount,"
                " or the daemon's user may not write to the footage",
            )
        self.on_taken()


def log_clip(id: int, footage: Footage, state: State, reason: str) -> None:
    """Log a clip that the intake put into a state: new in the spool, or its times were decided.

    Args:
        id: of the clip in the spool.
        reason: empty if there is nothing to explain.
    """
    match state:
        case State.HELD:
            log.info("clip_held", clip=id, footage=str(footage.path), reason=reason)
        case State.REFUSED:
            log.warning("clip_refused", clip=id, footage=str(footage.path), reason=reason)
        case _:
            log.info("clip_waiting", clip=id, footage=str(footage.path), reason=reason)
