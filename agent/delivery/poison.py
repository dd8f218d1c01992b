"""Decides whether a failing upload is the clip's fault (poison), or that of the link, the server or the account.

Some links pass every small request and break every upload (a wrong MTU, a filter, a quota), and some servers reject
every clip (a full disk, an account that is not paid for). No clip may be refused for that. Only uploads of other clips
can tell: while they succeed, the fault is the clip's.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import Upload

# An upload that succeeded longer ago says nothing about the link now.
FRESH_SECONDS = 3600.0


class PoisonDetector:
    """Remembers which uploads succeeded and failed in this run; after a restart it suspects no clip.

    One instance judges the link (an upload succeeds if the API responds), another the API (if it accepts the clip).

    All instants (`at`) are monotonic seconds. Used by the delivery thread only.
    """

    def __init__(self) -> None:
        self._last_success: float | None = None
        self._first_failure: dict[int, float] = {}

    def record_success(self, batch: Iterable[Upload], at: float) -> None:
        """These clips succeeded."""
        self._last_success = at
        self.forget(upload.id for upload in batch)

    def record_failure(self, batch: Iterable[Upload], at: float) -> None:
        """These clips failed, in a way that need not be their own fault."""
        for upload in batch:
            self._first_failure.setdefault(upload.id, at)
            if upload.batch_failures == 0:
                # A clip without earlier failures fails too: the last success no longer proves that uploads work.
                self._last_success = None

    def forget(self, ids: Iterable[int]) -> None:
        """These clips are settled."""
        for id in ids:
            self._first_failure.pop(id, None)

    def peers_succeed(self, upload: Upload, at: float) -> bool:
        """Whether other clips succeeded after this one first failed, recently, and none without earlier failures failed
        since."""
        first_failure = self._first_failure.get(upload.id)
        if first_failure is None or self._last_success is None:
            return False
        return self._last_success >= first_failure and at - self._last_success < FRESH_SECONDS
