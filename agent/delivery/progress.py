"""What delivery is doing, for other threads to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Activity:
    """What delivery is doing at one moment, for `status` and the service manager.

    Args:
        doing: one or two words: "idle", "uploading", "waiting for more clips", "waiting for its turn", or the cause of
            the backoff.
        link: "ok", "down", or "unknown" before the first request.
        reason: why nothing is sent, for a technician; empty if nothing prevents it.
        batch_clips, batch_position: clips in the batch being sent, and which of them is being sent, from 1.
        sent_bytes, batch_bytes: bytes of the request body that were sent; bytes of footage in the batch.
    """

    doing: str = "starting"
    link: str = "unknown"
    reason: str = ""
    batch_clips: int = 0
    batch_position: int = 0
    sent_bytes: int = 0
    batch_bytes: int = 0


class Progress:
    """Publishes the current Activity.

    Only the delivery thread calls the methods that change it, so that reading, changing and assigning it needs no lock.
    Any thread may read `current`: the value is immutable and is replaced by one assignment of a reference, so that a
    reader has either the old or the new one.

    Args:
        on_change: called in the delivery thread after each change; for bytes sent, only once a clip.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._current = Activity()

    @property
    def current(self) -> Activity:
        return self._current

    def set_status(self, doing: str, *, link: str | None = None, reason: str | None = None) -> None:
        """Nothing is being sent. `link` and `reason` stay as they are if not given."""
        before = self._current
        self._replace(
            Activity(
                doing=doing,
                link=before.link if link is None else link,
                reason=before.reason if reason is None else reason,
            )
        )

    def start_batch(self, clips: int, size_bytes: int) -> None:
        """A batch of so many bytes of footage is being sent from now on."""
        activity = replace(
            self._current, doing="uploading", batch_clips=clips, batch_position=1, sent_bytes=0, batch_bytes=size_bytes
        )
        self._replace(activity)

    def record_sent(self, sent_bytes: int, position: int) -> None:
        """So many bytes of the body were sent; the last belongs to the clip at this position, from 0."""
        before = self._current
        self._current = replace(before, sent_bytes=sent_bytes, batch_position=position + 1)
        if self._current.batch_position != before.batch_position:
            self._on_change()

    def _replace(self, activity: Activity) -> None:
        before, self._current = self._current, activity
        if activity != before:
            self._on_change()
