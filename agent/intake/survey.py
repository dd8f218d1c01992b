"""One folder from scan to scan: which of its footage is new, and what is to be said of the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from agent.config import FootageFolder
from agent.device.warn_once import News
from agent.intake.known import Known
from agent.intake.scanning import Skipped, examine, scan, unreadable
from agent.model import Footage, State
from agent.spool import Spool

log = structlog.get_logger()

GROUP_FILES = 500


class Survey:
    """What the scans of one folder have found so far.

    Args:
        folder: where to look.
        spool: tells what became of footage.
        news: what is wrong for longer than a scan is told through it.
        now: Unix seconds.

    Attributes:
        is_there: whether the folder could be read by the latest scan.
        directories: all that the latest scan entered.
        has_footage: whether footage was seen since the folder was last found changed or missing. A card that is not in
            its reader leaves an empty folder: what is not there then is not gone.
    """

    def __init__(self, folder: FootageFolder, spool: Spool, news: News, now: Callable[[], float]) -> None:
        self.is_there = True
        self.directories: list[str] = []
        self.has_footage = False
        self._folder = folder
        self._spool = spool
        self._news = news
        self._now = now
        self._known = Known()
        self._epoch = spool.invalidation_epoch
        self._asked_revision = 0
        self._asked_at = 0.0

    def revise(self) -> None:
        """Makes the next scan ask the ledger anew for all that a person may have changed there."""
        self._known.revise()

    def scan(self, alive: Callable[[], None], is_stopping: Callable[[], bool]) -> Iterator[Footage]:
        """Looks at the whole folder: yields what is to be inspected, deletes what was delivered and is to go.

        Args:
            alive: called with each file.
            is_stopping: ends the scan early; nothing is forgotten then.
        """
        self._revise_what_has_changed()
        self._known.begin()
        self.directories = []
        skipped: set[Path] = set()
        group: list[Footage] = []
        try:
            for found in scan(self._folder, self._known, on_file=alive, on_directory=self.directories.append):
                if is_stopping():
                    return
                self.has_footage = True
                if isinstance(found, Skipped):
                    skipped.add(found.path)
                    self._news.tell("footage_skipped", found.path, found.reason)
                    continue
                group.append(found)
                if len(group) == GROUP_FILES:
                    yield from self._new_of(group)
                    group = []
        except OSError as exc:
            self._is_missing(exc)
        else:
            self._is_back()
            self._news.only("footage_skipped", skipped, self._folder.path)
            yield from self._new_of(group)
            self.has_footage = self._known.end() > 0 or self.has_footage

    def _revise_what_has_changed(self) -> None:
        if self._spool.invalidation_epoch != self._epoch:
            self._epoch = self._spool.invalidation_epoch
            self._known = Known()
        revision, now = self._spool.revision, self._now()
        deletes = self._folder.after_delivery == "delete" and revision != self._asked_revision
        if deletes or self._spool.has_refusal_expired(self._asked_at, now):
            self._known.revise()
        self._asked_revision, self._asked_at = revision, now

    def _new_of(self, group: Sequence[Footage]) -> Iterator[Footage]:
        states = self._spool.states_of(group)
        for footage in group:
            state = states.get(footage)
            if state is None:
                yield footage
            elif state is State.DELIVERED and self._deletes(footage):
                self._delete(footage)
            else:
                lasting = self._folder.after_delivery == "keep" and state is not State.REFUSED
                self._known.add(footage, lasting=lasting)

    def _deletes(self, footage: Footage) -> bool:
        return self._folder.after_delivery == "delete" and self._spool.is_fully_delivered(footage)

    def _delete(self, footage: Footage) -> None:
        """Deletes footage whose clips were all delivered, if it is still the file that was delivered."""
        if examine(footage.path) != footage:
            return
        try:
            footage.path.unlink()
        except OSError as exc:
            self._news.tell("footage_not_deleted", footage.path, str(exc.strerror))
        else:
            self._news.over("footage_not_deleted", footage.path)
            log.info("footage_deleted", footage=str(footage.path), reason="delivered")

    def _is_missing(self, error: OSError) -> None:
        self.is_there = self.has_footage = False
        reason = f"{unreadable(error)}; looked for again at every scan"
        self._news.tell("folder_missing", self._folder.path, reason)

    def _is_back(self) -> None:
        self.is_there = True
        if self._news.over("folder_missing", self._folder.path):
            log.info("folder_back", path=str(self._folder.path))
