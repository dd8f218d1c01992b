"""The values that pass between stages: footage becomes clips; a clip waits, is uploaded, and gets a verdict."""

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

# How far a file name and the file's modification time may differ and still come from the same clock. A recorder closes
# its file moments after the last frame; slow cards and pre-recording take longer.
CLOCKS_AGREE_SECONDS = 300
# A smaller change of the clock is NTP adjusting it, or rounding: timestamps have whole seconds.
CLOCK_STEP_SECONDS = 3


class State(str, Enum):
    """The state of a clip. Every clip is in exactly one; `vision-ingest why` shows how it got there.

    WAITING: in the spool, due at once or at a set time.
    SENDING: claimed for an upload that is in flight.
    ACCEPTED: the API took it without a result of its own; polled until confirmed.
    DELIVERED: the API has it. The row stays, so that a rescan does not take in the same footage again.
    REFUSED: cannot be delivered as it is; stays until someone retries it.
    HELD: a person must fix the cause; probed now and then.
    LOST: its bytes vanished before delivery.
    """

    WAITING = "waiting"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    REFUSED = "refused"
    HELD = "held"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Footage:
    """A file that the recorder wrote, as of one stat() call.

    Loop recorders reuse names: path, size and modification time together identify one recording.
    """

    path: Path
    size_bytes: int
    modified_ns: int

    @classmethod
    def from_stat(cls, path: Path, stat: os.stat_result) -> Footage:
        return cls(path, stat.st_size, stat.st_mtime_ns)

    @property
    def identity(self) -> str:
        """Hash of path, size and modification time, 32 hexadecimal digits; the same after a restart."""
        text = b"%d %d %s" % (self.size_bytes, self.modified_ns, os.fsencode(self.path))
        return hashlib.blake2b(text, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class ClipKey:
    """The matching key of a clip: the API's per-file results carry these four fields and no other identifier.

    Args:
        registration: of the vehicle, as the account spells it.
        camera: channel number.
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
    """What is needed to correct a clip's times, for a clip recorded while this device's clock was not trusted.

    Args:
        boot_id: of the boot in which it was recorded, 32 hexadecimal digits: the offset is known only in that boot.
        boot_time: in Unix seconds, by the untrusted clock. Once the clock is set, the boot time by the
            right clock differs from this by exactly the clock's offset.
        lag_seconds: modification time of the file minus the end of the footage according to its name. Near 0 if the
            recorder uses this device's clock; arbitrary if the camera has its own.
    """

    boot_id: str
    boot_time: int
    lag_seconds: int

    @property
    def is_time_source(self) -> bool:
        """Whether the recorder may use this device's clock: file name and modification time agree."""
        return abs(self.lag_seconds) <= CLOCKS_AGREE_SECONDS

    def offset_seconds(self, boot_time: float) -> int:
        """Correction to add to the clip's times, once the clock is trusted in the same boot.

        Name and modification time also agree if the camera has its own, correct clock and this device's was only
        slightly off. So both hypotheses are compared: the name was written by this device's clock, or is already
        correct. The one closer to the modification time wins.

        Args:
            boot_time: in Unix seconds, by the trusted clock.

        Returns:
            Seconds; 0 if the times stay as they are.
        """
        step = round(boot_time - self.boot_time)
        if abs(step) < CLOCK_STEP_SECONDS or not self.is_time_source:
            return 0
        return step if abs(self.lag_seconds) < abs(self.lag_seconds + step) else 0


@dataclass(frozen=True, slots=True)
class Clip:
    """The unit of delivery: a whole recording, or one part of it.

    Args:
        footage: the file it comes from.
        key: identifies it in the API.
        priority: higher is delivered first; EVENT_PRIORITY or NORMAL_PRIORITY.
        comments: free text for the API's `comments` field.
        sources: where each value came from, for `why`: {"start": "file name", …}.
        piece: index of this part, from 0.
        pieces: number of clips made from the footage.
        clock: set if its times depend on a clock that is not trusted yet; the spool holds the clip until it is.
        original_key: the key before its times were corrected, so that a rescan recognises the footage.
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
    """A clip that is claimed for sending: its metadata, and the stored file that holds its bytes.

    Args:
        id: of the clip in the spool.
        file: the stored file; it must still have `size_bytes` and `modified_ns` when it is sent.
        attempts: failed deliveries that were this clip's own fault.
        batch_failures: failed batches that contained this clip, while the API answered other requests.
        max_batch_clips: largest batch this clip may be sent in; None: no limit.
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
    """The outcome of one delivery attempt for one clip.

    Args:
        state: the clip's next state.
        reason: shown by `why` and `clips`; empty if nothing went wrong.
        retry_in_seconds: for WAITING, ACCEPTED and HELD: delay until it is due again; 0 means at once.
        attempts, batch_failures, max_batch_clips: new values of the Upload's fields.
        request_id: the API's identifier, if the response had one.
    """

    state: State
    reason: str = ""
    retry_in_seconds: float = 0.0
    attempts: int = 0
    batch_failures: int = 0
    max_batch_clips: int | None = None
    request_id: str | None = None
