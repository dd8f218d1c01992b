"""Clips that the API could not tell apart: duplicates of one recording, and conflicting clips with the same key."""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import Footage, State
from agent.spool.records import Record, Stored


def same_recording(clips: Iterable[Record], file: Stored) -> Record | None:
    """The one of these clips that has the same bytes; a lost one has none."""
    content = (file.size_bytes, file.sample)
    for clip in clips:
        if clip.state is not State.LOST and clip.stored and (clip.stored.size_bytes, clip.stored.sample) == content:
            return clip
    return None


def resolve_conflict(footage: Footage, clips: Iterable[Record]) -> tuple[State, str]:
    """Whether new footage may be delivered, given the other recordings with the same key: the state, and why.

    A clip whose time is not known yet (`Record.clock`) conflicts with none.
    """
    for clip in clips:
        if clip.state not in (State.REFUSED, State.LOST) and clip.clock is None:
            return State.REFUSED, (
                f"clip {clip.id} ({clip.footage.path.name}) has the same registration, camera and times but other "
                f"content: the API would replace that clip with this one. Check the camera's clock and the channel "
                f"numbers; to deliver {footage.path.name} all the same: vision-ingest retry CLIP"
            )
    return State.WAITING, ""
