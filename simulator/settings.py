"""What the simulated account and server are like; replaced as a whole while the simulator runs."""

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


Grouping = Literal["grouped", "flat", "none"]
CameraForm = Literal["number", "string"]
ErrorsForm = Literal["text", "list", "mapping"]


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """How the results of single files stand in an answer; the reference shows one example and promises no form.

    Args:
        grouping: "grouped" by registration with `videos` inside, "flat" records that carry their registration, or
            "none": the answer tells nothing about single files, so that the client must ask for the list.
        key: the results stand under this key of `data`; None means that `data` is the results.
        camera: the camera as a number or as a string.
        errors: `errors` as one text, a list of texts, or a mapping of field to texts.
    """

    grouping: Grouping = "grouped"
    key: str | None = None
    camera: CameraForm = "number"
    errors: ErrorsForm = "text"


@dataclass(frozen=True, slots=True)
class Settings:
    """The account, its limits and its answers. The defaults are those of the published contract.

    Args:
        api_key: the key of the webhook signature.
        option_active: False answers 403 to every Vision request.
        registrations: those on an active contract; None means that every registration is.
        offline: registrations whose recorder is not online: no livestream, and requests for footage time out.
        health_interval_seconds: one health request is allowed in this time.
        max_body_bytes: a larger request is answered with 413 before its body is read.
        upload_life: the states of an uploaded video.
        request_life: the states of a request for footage of a camera.
    """

    username: str = "bench"
    password: str = "bench"  # noqa: S105 - the account is pretended
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
