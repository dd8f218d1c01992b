"""How a video request of the account goes through its states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """The published `status_id` codes."""

    PENDING = 1
    IN_PROGRESS = 2
    COMPLETE = 3
    CANCELLED = 4
    DOES_NOT_EXIST = 5
    TIMEOUT = 6


EXPLANATIONS = {
    Status.PENDING: "Waiting for the camera.",
    Status.IN_PROGRESS: "The camera is uploading.",
    Status.COMPLETE: "The video can be downloaded from its url.",
    Status.CANCELLED: "The request was cancelled.",
    Status.DOES_NOT_EXIST: "The range is not on the camera's storage.",
    Status.TIMEOUT: "The camera did not answer.",
}


@dataclass(frozen=True, slots=True)
class Life:
    """The way of one request: pending, in progress, then final, one step after the other.

    Args:
        step_seconds: how long each of the first two states lasts; 0 means final at once.
        final: the state it ends in.
    """

    step_seconds: float = 0.0
    final: Status = Status.COMPLETE

    def status(self, age_seconds: float) -> Status:
        """The state that a request of this age is in."""
        if age_seconds >= 2 * self.step_seconds:
            return self.final
        return Status.IN_PROGRESS if age_seconds >= self.step_seconds else Status.PENDING

    def last_change_seconds(self, age_seconds: float) -> float:
        """How old a request of this age was when it last changed its state."""
        changes = (age_seconds >= self.step_seconds) + (age_seconds >= 2 * self.step_seconds)
        return changes * self.step_seconds
