"""Decides whether a failing upload is the clip's fault (poison) or the link's.

Some links pass every small request and break every upload (a wrong MTU, a filter, a quota). No clip may be refused for
that. Only uploads of other clips can tell: while they succeed, the link works.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import Upload

# An upload that succeeded longer ago says nothing about the link now.
FRESH_SECONDS = 3600.0


class PoisonDetector:
    """Remembers which uploads succeeded and failed in this run; after a restart it suspects no clip.

    All instants (`at`) are monotonic seconds. Used by the delivery thread only.
    """

    def __init__(self) -> None:
        self._last_success: float | None = None
        self._first_failure: dict[int, float] = {}

    def record_success(self, batch: Iterable[Upload], at: float) -> None:
        """The API responded to an upload, whatever it said about the clips."""
        self._last_success = at
        self.forget(upload.id for upload in batch)

    def record_failure(self, batch: Iterable[Upload], at: float) -> None:
        """An upload failed although the API responded to a small request right after it."""
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
