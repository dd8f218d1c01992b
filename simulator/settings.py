"""Settings of the simulated account and server. Immutable: replace them as a whole while the simulator runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal


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
class StatusTimeline:
    """The states of one video request over time: pending, in progress, final.

    Args:
        step_seconds: how long each of the first two states lasts; 0 means final at once.
        final: the last state.
    """

    step_seconds: float = 0.0
    final: Status = Status.COMPLETE

    def status(self, age_seconds: float) -> Status:
        """The state of a request of this age."""
        if age_seconds >= 2 * self.step_seconds:
            return self.final
        return Status.IN_PROGRESS if age_seconds >= self.step_seconds else Status.PENDING

    def last_change_seconds(self, age_seconds: float) -> float:
        """The age at which a request of this age last changed its state."""
        changes = (age_seconds >= self.step_seconds) + (age_seconds >= 2 * self.step_seconds)
        return changes * self.step_seconds


Grouping = Literal["grouped", "flat", "none"]
CameraForm = Literal["number", "string"]
ErrorsForm = Literal["text", "list", "mapping"]


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """The format of per-file results in a response. The API reference shows one example and guarantees no format.

    Args:
        grouping: "grouped": by registration, with `videos` inside; "flat": records with a registration each; "none":
            no per-file results, so that the client must query the list.
        key: the key of `data` that holds the results; None if `data` itself is the results.
        camera: format of the camera number.
        errors: format of `errors`: one string, a list of strings, or a mapping from field to strings.
    """

    grouping: Grouping = "grouped"
    key: str | None = None
    camera: CameraForm = "number"
    errors: ErrorsForm = "text"


@dataclass(frozen=True, slots=True)
class Settings:
    """The account, its limits and the format of responses. The defaults are those of the published contract.

    Args:
        api_key: key of the webhook signature.
        option_active: if False, every Vision request gets 403.
        registrations: registrations with an active contract; None for any.
        offline: registrations whose recorder is offline: no livestream, and footage requests time out.
        health_interval_seconds: at most one health request is allowed per interval.
        max_body_bytes: a larger request gets 413 before its body is read.
        answer: format of per-file results.
        upload_timeline: states of an uploaded video.
        request_timeline: states of a request for footage from a camera.
    """

    username: str = "bench"
    password: str = "bench"  # noqa: S105  # a simulated account
    api_key: str = "bench-key"
    option_active: bool = True
    registrations: frozenset[str] | None = None
    offline: frozenset[str] = frozenset()
    requests_per_minute: int = 1000
    health_interval_seconds: float = 300.0
    max_body_bytes: int = 8_000_000_000
    max_file_bytes: int = 50_000_000
    max_video_seconds: int = 300
    max_records: int = 100
    answer: AnswerShape = field(default_factory=AnswerShape)
    upload_timeline: StatusTimeline = field(default_factory=StatusTimeline)
    request_timeline: StatusTimeline = field(default_factory=lambda: StatusTimeline(step_seconds=10.0))
