"""Who is to blame when an upload fails though the API answers other requests: the clip, or the way that uploads go.

Some links pass every small request and break every upload (a wrong MTU, a filter, a quota). Then no clip may be
refused for it. Only the uploads of other clips can tell: while they pass, the link is well.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import Upload

# What passed longer ago says nothing about the link of now.
FRESH_SECONDS = 3600.0


class PoisonDetector:
    """Remembers which uploads passed and failed in this run. After a restart it knows nothing and blames no one."""

    def __init__(self) -> None:
        self._passed_at: float | None = None
        self._failed_first: dict[int, float] = {}

    def record_success(self, batch: Iterable[Upload], at: float) -> None:
        """An upload was answered. `at`: monotonic seconds, here and below."""
        self._passed_at = at
        for upload in batch:
            self._failed_first.pop(upload.id, None)

    def record_failure(self, batch: Iterable[Upload], at: float) -> None:
        """An upload failed though the API answered a small request right after it."""
        for upload in batch:
            self._failed_first.setdefault(upload.id, at)
            if upload.batch_failures == 0:
                # A clip that nothing speaks against fails too: what passed before proves no more that uploads pass.
                self._passed_at = None

    def forget(self, ids: Iterable[int]) -> None:
        """These clips are settled: nothing more is to be known of them."""
        for id in ids:
            self._failed_first.pop(id, None)

    def peers_succeed(self, upload: Upload, at: float) -> bool:
        """Whether others have passed since this clip failed first, lately, and no unsuspected one has failed since."""
        failed_first = self._failed_first.get(upload.id)
        if failed_first is None or self._passed_at is None:
            return False
        return self._passed_at >= failed_first and at - self._passed_at < FRESH_SECONDS
