"""The way of footage into the spool: what is taken in, what is listed as refused, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.config import FootageFolder
from agent.errors import FootageGone, FootageRefused, SpoolFull
from agent.intake.reading import FootageReader
from agent.intake.scanner import stat_footage
from agent.model import Clip, Footage
from agent.spool import NotTaken, Spool, Taken

log = structlog.get_logger()

EVICTION_CHECK_SECONDS = 5.0


class Handover:
    """Where the intake meets the spool.

    Args:
        spool: where clips go.
        readings: know the rules under which footage of a folder is refused.
        monotonic: seconds of a clock that no one sets.

    Attributes:
        on_taken: called when clips were added.
    """

    def __init__(
        self,
        spool: Spool,
        readings: Mapping[FootageFolder, FootageReader],
        on_taken: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.on_taken = on_taken
        self._spool = spool
        self._readings = readings
        self._monotonic = monotonic
        self._evict_at = 0.0
        self._was_full = False
        self._copied: set[FootageFolder] = set()

    def take_in(
        self, group: Sequence[Sequence[tuple[Clip, Path]]], alive: Callable[[], None] = lambda: None
    ) -> Sequence[list[Taken] | NotTaken]:
        """Takes in the clips of different pieces of footage; see `Spool.take_in_group`."""
        try:
            self.evict_if_low()
            return self._spool.take_in_group(group, alive)
        except SpoolFull as exc:
            return [exc] * len(group)

    def record_outcome(self, folder: FootageFolder, footage: Footage, outcome: list[Taken] | NotTaken) -> None:
        """Says what became of footage, and lists it if it is refused.

        Raises:
            SpoolFull: that became of it, or there is no room to list it.
        """
        if isinstance(outcome, SpoolFull):
            raise outcome
        if isinstance(outcome, FootageGone):
            log.debug("footage_gone", footage=str(footage.path), reason=str(outcome))
        elif isinstance(outcome, FootageRefused):
            self._refuse_if_unchanged(folder, footage, outcome)
        else:
            for taken in outcome:
                event = "clip_known_already" if taken.again else f"clip_{taken.state.value}"
                why = {"reason": taken.reason} if taken.reason else {}
                log.info(event, clip=taken.id, footage=str(footage.path), **why)
            self._was_full = False
            if any(taken.copied for taken in outcome):
                self._log_copied_once(folder)
            self.on_taken()

    def refuse(self, folder: FootageFolder, footage: Footage, refusal: FootageRefused) -> None:
        """Lists footage as refused.

        Raises:
            SpoolFull: there is no room even for that.
        """
        self._spool.refuse(footage, refusal.reason, self._readings[folder].fingerprint, refusal.retry_after_seconds)
        log.warning("footage_refused", footage=str(footage.path), reason=refusal.reason)

    def evict_if_low(self) -> None:
        """Makes room on the spool's disk where it is short; in vain it may be for as long as footage stays.

        Raises:
            SpoolFull: there is not even room to note what is given up.
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
        """Logs once that there is no room, until something was taken in again."""
        if not self._was_full:
            self._was_full = True
            log.warning("spool_full", reason=f"{error}; the footage stays where it is and is taken in later")

    def _log_copied_once(self, folder: FootageFolder) -> None:
        """Logs once that the card is written to for each clip of a folder, for whoever wants to spare it."""
        if folder not in self._copied:
            self._copied.add(folder)
            log.info(
                "footage_copied",
                folder=str(folder.path),
                reason="it cannot be hard-linked into the spool: the spool is on another filesystem or mount,"
                " or the daemon's user may not write to the footage",
            )

    def _refuse_if_unchanged(self, folder: FootageFolder, footage: Footage, refusal: FootageRefused) -> None:
        if stat_footage(footage.path) == footage:
            self.refuse(folder, footage, refusal)
        else:
            # Its card was pulled while it was read: that says nothing about the footage, and the scan looks again.
            log.debug("footage_gone", footage=str(footage.path), reason=refusal.reason)


# Those that came first wait while the last one is inspected, and while all are synced.
MAX_FILES = 32
MAX_BYTES = 200_000_000
MAX_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """A settled file that is to be taken in as the clip that it makes, and the folder that it was found in."""

    folder: FootageFolder
    clip: Clip


class PendingBatch:
    """Files that were found settled one right after the other."""

    def __init__(self) -> None:
        self._items: dict[Footage, Item] = {}
        self._since = 0.0

    def __contains__(self, footage: Footage) -> bool:
        return footage in self._items

    def add(self, item: Item, now: float) -> None:
        """Args: now: monotonic seconds."""
        if not self._items:
            self._since = now
        self._items[item.clip.footage] = item

    def is_due(self, now: float) -> bool:
        """Whether it should not wait for more files."""
        size_bytes = sum(footage.size_bytes for footage in self._items)
        is_full = len(self._items) >= MAX_FILES or size_bytes >= MAX_BYTES
        return is_full or (bool(self._items) and now - self._since >= MAX_WAIT_SECONDS)

    def drain(self) -> list[Item]:
        """All members; the next file begins a new group."""
        items = list(self._items.values())
        self._items.clear()
        return items
