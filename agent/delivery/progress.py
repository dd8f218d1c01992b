"""What delivery is doing, as others may see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Activity:
    """What delivery is doing now, for `status` and the service manager.

    Args:
        doing: one or two words: "idle", "uploading", "waiting for more clips" or "for its turn", or the pause's cause.
        link: "ok", "down", or "unknown" before the first request.
        reason: why nothing is sent, for a technician; empty if nothing stands in the way.
        batch_clips, batch_position: the clips of the batch in flight and the one that is being sent, from 1.
        sent_bytes, batch_bytes: of the request body.
    """

    doing: str = "starting"
    link: str = "unknown"
    reason: str = ""
    batch_clips: int = 0
    batch_position: int = 0
    sent_bytes: int = 0
    batch_bytes: int = 0
