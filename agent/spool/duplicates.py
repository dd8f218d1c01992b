"""Clips that the API could not tell apart: the same recording again, or a rival that claims the same time."""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import Footage, State
from agent.spool.records import Record, Stored


def same_recording(twins: Iterable[Record], file: Stored) -> Record | None:
    """The one among the clips of the same video that has the same bytes; a lost one has none."""
    return next((twin for twin in twins if twin.state is not State.LOST and _same_bytes(twin, file)), None)


def resolve_conflict(footage: Footage, twins: Iterable[Record]) -> tuple[State, str]:
    """Whether a clip may be delivered, given the other recordings that the API would take for the same video.

    A clip whose own time is not known yet is nobody's rival.
    """
    conflicting = (twin for twin in twins if twin.state not in (State.REFUSED, State.LOST) and twin.clock is None)
    conflict = next(conflicting, None)
    if conflict is None:
        return State.WAITING, ""
    return State.REFUSED, (
        f"clip {conflict.id} ({conflict.footage.path.name}) has the same registration, camera and times but other "
        f"content: the API would replace that one by this one. Check the camera's clock and the channel numbers; to "
        f"deliver {footage.path.name} all the same: vision-ingest retry CLIP"
    )


def _same_bytes(record: Record, file: Stored) -> bool:
    stored = record.stored
    return stored is not None and (stored.size_bytes, stored.sample) == (file.size_bytes, file.sample)
