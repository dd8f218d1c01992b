"""What is known of a file of footage, whatever the source of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.intake.identify.presets import EventTag
from agent.model import EVENT_PRIORITY, NORMAL_PRIORITY, Footage

MP4 = "MP4"
# Longer than any camera records in one file: a damaged index can claim more than a calendar holds.
MAX_DURATION_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Media:
    """What a file holds.

    Args:
        container: "MP4", "MOV", …: as shown to a technician.
        codec: the four-character code of the first video track, such as "avc1"; empty if it names none, None if there
            is no video at all.
        duration_seconds: of the first video track; 0.0 if the headers give none.
        created: the container's own date, aware UTC as written, whatever the camera meant by it; None if unset.
        is_whole: False for an MP4 that ends early and that nobody will finish: its good part can be saved.
        may_hold_zeros: a few probes found zeros where frames should be; only reading it all tells whether it is so.
    """

    container: str
    codec: str | None
    duration_seconds: float
    created: datetime | None = None
    is_whole: bool = True
    may_hold_zeros: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """The facts of one file of footage. `agent.intake.planning` decides whether the API takes it.

    Args:
        footage: the file, as it was while it was read.
        media: what it holds.
        registration: the vehicle, in normal form.
        camera: the channel, 0 to 255.
        start: its first instant, aware UTC, whole seconds.
        preset: the name of the preset that read the file's name; empty if none did.
        event: its tag; None if it has none.
        comments: for the API.
        sources: value to where it came from, for `why`: {"start": "file name (plain)", …}.
    """

    footage: Footage
    media: Media
    registration: str
    camera: int
    start: datetime
    preset: str = ""
    event: EventTag | None = None
    comments: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def priority(self) -> int:
        """Events go first."""
        return EVENT_PRIORITY if self.event and self.event.high_priority else NORMAL_PRIORITY

    @property
    def end(self) -> datetime:
        """Its last instant, to the fraction of a second."""
        return self.start + timedelta(seconds=self.media.duration_seconds)
