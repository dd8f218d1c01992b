"""Recordings that the API could not tell apart: same registration, camera and times. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agent.clip import State
from agent.spool.records import Record, Stored


def same_recording(twins: Iterable[Record], file: Stored) -> Record | None:
    """The clip, of those with the same video, that has the same bytes."""
    for twin in twins:
        stored = twin.stored
        same_bytes = stored is not None and (stored.size_bytes, stored.sample) == (file.size_bytes, file.sample)
        if same_bytes and twin.state is not State.LOST:
            return twin
    return None


def fate(name: str, twins: Iterable[Record]) -> tuple[State, str]:
    """Whether a new clip may be delivered, given the other recordings that the API would take for the same video.

    Args:
        name: of its footage.

    Returns:
        WAITING, or REFUSED with the reason.
    """
    rival = next((twin for twin in twins if twin.state not in (State.REFUSED, State.LOST)), None)
    if rival is None:
        return State.WAITING, ""
    return State.REFUSED, (
        f"clip {rival.id} ({rival.footage.path.name}) has the same registration, camera and times but other content: "
        f"the API would replace that one by this one. Check the camera's clock and the channel numbers; to deliver "
        f"{name} all the same: vision-ingest retry CLIP"
    )
