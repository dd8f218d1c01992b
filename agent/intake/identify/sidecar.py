"""The sidecar: a JSON file beside the footage with the same stem (clip.mp4, clip.json) whose values come first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.config.values import HIGHEST_CAMERA
from agent.device.safe_open import RETRY_REFUSED_SECONDS, open_regular_file
from agent.errors import FootageGone, FootageRefused, printable
from agent.intake.identify.presets import EVENT, EventTag
from agent.intake.identify.recording_time import parse_iso

MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The values of a sidecar; None or empty where it has none, or there is no sidecar.

    Args:
        registration: as written.
        camera: 0 to 255.
        start: naive, by the camera's clock, or aware.
        comments: for the API.
        event: the word for it, or EVENT.
        note: why a file of that name was ignored, for the log.
    """

    registration: str | None = None
    camera: int | None = None
    start: datetime | None = None
    comments: str = ""
    event: EventTag | None = None
    note: str | None = None


def read_sidecar(footage: Path) -> Sidecar:
    """Reads the sidecar of a file of footage. Unknown keys are ignored: they belong to the recorder.

    A file that cannot be a sidecar (more than 64 KiB, or JSON but not an object) is ignored with a note: some recorders
    write logs of their own under such names.

    Raises:
        FootageRefused: it is no regular file, cannot be read, is not JSON, or one of our keys has a value of a
            wrong type.
    """
    path = footage.with_suffix(".json")
    try:
        with open_regular_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except FootageGone:
        return Sidecar()
    except FootageRefused as refusal:
        raise _refused(path, f"cannot be used: {refusal.reason}") from refusal
    if len(content) > MAX_BYTES:
        return Sidecar(note=f"{printable(path.name)} was not read as a sidecar: it is larger than {MAX_BYTES:,} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        return Sidecar(note=f"{printable(path.name)} was not read as a sidecar: it holds no JSON object {{…}}")
    try:
        return _interpret(document)
    except ValueError as error:
        raise _refused(path, str(error)) from error


def _interpret(document: Mapping[str, object]) -> Sidecar:
    """Raises ValueError with a sentence that names the key."""
    start = _text(document, "start")
    try:
        moment = parse_iso(start) if start else None
    except ValueError as error:
        raise ValueError(f"start {start!r}: {error}") from error
    return Sidecar(
        registration=_text(document, "registration"),
        camera=_camera(document.get("camera")),
        start=moment,
        comments=_text(document, "comments") or "",
        event=_event(document),
    )


def _text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text in quotes, not {_shown(value)}")  # noqa: TRY004
    return value.encode(errors="replace").decode().strip() or None


def _camera(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HIGHEST_CAMERA:
        raise ValueError(f"camera must be a whole number from 0 to {HIGHEST_CAMERA}, not {_shown(value)}")
    return value


def _event(document: Mapping[str, object]) -> EventTag | None:
    value = document.get("event")
    if isinstance(value, bool):
        return EVENT if value else None
    word = _text(document, "event")
    return EventTag(word) if word else None


def _shown(value: object) -> str:
    """The beginning of a value, which may be nested as deeply as the JSON parser allows."""
    try:
        return json.dumps(value)[:40]
    except RecursionError:
        return "that"


def _refused(path: Path, what: str) -> FootageRefused:
    return FootageRefused(
        f"its sidecar {printable(path.name)} {what}; correct or remove it", retry_after_seconds=RETRY_REFUSED_SECONDS
    )
