"""The values that flow through the journey: footage becomes clips, clips wait, are sent, and get a verdict."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path

EVENT_PRIORITY = 10
NORMAL_PRIORITY = 0

# A recorder closes its file moments after the last frame; slow cards and pre-recording take longer.
CLOCKS_AGREE_SECONDS = 300
# Less than this is a clock that is disciplined, not one that is set; timestamps have whole seconds.
CLOCK_STEP_SECONDS = 3


class State(str, Enum):
    """Where a clip is. Every clip ever seen is in exactly one of these, and `why` tells how it got there."""

    WAITING = "waiting"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    REFUSED = "refused"
    HELD = "held"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Footage:
    """A file that the recorder wrote, as it was when it was looked at.

    Size and modification time tell new footage from old under the same name: loop recorders reuse names.
    """

    path: Path
    size_bytes: int
    modified_ns: int

    @classmethod
    def from_stat(cls, path: Path, stat: os.stat_result) -> Footage:
        return cls(path, stat.st_size, stat.st_mtime_ns)

    @property
    def identity(self) -> str:
        """32 hexadecimal digits that name this file with this content, stable over restarts."""
        text = b"%d %d %s" % (self.size_bytes, self.modified_ns, os.fsencode(self.path))
        return hashlib.blake2b(text, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class ClipKey:
    """How the API names a clip: its results carry these four and nothing else, so they are the matching key.

    Args:
        registration: the vehicle, as the account knows it.
        camera: the channel that the clip is tagged to.
        start: first instant, aware UTC, whole seconds (the API's timestamps have no fractions).
        end: last instant, aware UTC, whole seconds.
    """

    registration: str
    camera: int
    start: datetime
    end: datetime

    @property
    def duration_seconds(self) -> int:
        return round((self.end - self.start).total_seconds())

    def __str__(self) -> str:
        return f"{self.registration} camera {self.camera} {self.start:%Y-%m-%d %H:%M:%S} UTC +{self.duration_seconds} s"


@dataclass(frozen=True, slots=True)
class UntrustedClock:
    """This device's clock as it was when a clip was recorded, where it could not be trusted then.

    Args:
        boot_id: the boot of the device, 32 hexadecimal digits: only the same boot can tell what the clock was off by.
        boot_began: Unix seconds at which the device booted by that clock. The same moment by a clock that was set
            since is later or earlier by exactly as much as the clock was off.
        lag_seconds: how long after the footage's end, as its name has it, the file was last written, both by that
            clock. Near 0 if the recorder reads this device's clock; anything if the camera has a clock of its own.
    """

    boot_id: str
    boot_began: int
    lag_seconds: int

    @property
    def is_time_source(self) -> bool:
        """Whether the recorder may have read this clock: the name and the file's own date agree."""
        return abs(self.lag_seconds) <= CLOCKS_AGREE_SECONDS

    def offset_seconds(self, boot_began: float) -> int:
        """What is to be added to the clip's times once the same boot has the right time.

        The name and the file's date agree also if the camera's own clock is right and this device's was off by
        little. So two readings of the name are compared: by this device's clock, and as the right time. The one
        that lies nearer to when the file was written wins.

        Args:
            boot_began: Unix seconds at which the device booted by the clock that is trusted.

        Returns:
            0 if the times are to be left as they are.
        """
        step = round(boot_began - self.boot_began)
        if abs(step) < CLOCK_STEP_SECONDS or not self.is_time_source:
            return 0
        return step if abs(self.lag_seconds) < abs(self.lag_seconds + step) else 0


@dataclass(frozen=True, slots=True)
class Clip:
    """The unit that is delivered: one piece of footage, or a part of one.

    Args:
        footage: the file it comes from.
        key: how the API will know it.
        priority: larger is delivered first; EVENT_PRIORITY or NORMAL_PRIORITY.
        comments: free text for the API's `comments` field.
        sources: where each value came from, for `why`: {"start": "file name", …}.
        piece: 0 for the first or only part of the footage.
        pieces: how many clips the footage gives.
        clock: set if its times cannot be believed before this device's clock is trusted; the spool holds it till then.
        original_key: what the footage itself says, where its times were put right: after a restart it says so again.
    """

    footage: Footage
    key: ClipKey
    priority: int = NORMAL_PRIORITY
    comments: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    piece: int = 0
    pieces: int = 1
    clock: UntrustedClock | None = None
    original_key: ClipKey | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A clip on its way: what the API is told of it, and the stored file that holds its bytes.

    Args:
        id: the clip's number in the spool.
        file: the stored file; it must still have `size_bytes` and `modified_ns` while it is sent.
        attempts: how often delivery of this clip has failed through the clip's own fault.
        strikes: how often a batch with this clip has failed while the API answered other requests.
        companions: how many clips may share a batch with this one; None if any number may.
    """

    id: int
    key: ClipKey
    comments: str
    file: Path
    size_bytes: int
    modified_ns: int
    attempts: int = 0
    batch_failures: int = 0
    max_batch_clips: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one delivery attempt decided for one clip.

    Args:
        state: where the clip goes.
        reason: why, in words for `why` and `clips`; empty when all is well.
        retry_in_seconds: for WAITING, ACCEPTED and HELD: how long until it is looked at again; 0 means at once.
        attempts, strikes, companions: the new values of the Upload's fields.
        request_id: the API's number for it, where the answer had one.
    """

    state: State
    reason: str = ""
    retry_in_seconds: float = 0.0
    attempts: int = 0
    batch_failures: int = 0
    max_batch_clips: int | None = None
    request_id: str | None = None
