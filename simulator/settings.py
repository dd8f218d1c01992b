"""What the simulated account and server are like; replaced as a whole while the simulator runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from simulator.lifecycle import Life

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
    upload_life: Life = field(default_factory=Life)
    request_life: Life = field(default_factory=lambda: Life(step_seconds=10.0))
