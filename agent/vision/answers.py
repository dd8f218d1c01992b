"""Reads the API's answers, whose shape is not published: what can be understood is, wherever it stands.

Nothing here raises on odd input: an answer that says nothing about a clip is no verdict, and the clip is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from agent.clip import Upload
from agent.vision.readings import read_timestamp, same_video

# Real answers nest four deep; this bounds the work on hostile ones.
DEEPEST = 12
LONGEST_WORDS = 500
_ITEM = re.compile(r"^(?:data)?[.\[]*(\d{1,4})\]?(?:[.\[]|$)")


@dataclass(frozen=True, slots=True)
class FileResult:
    """What the API says of one file: taken (no errors and a number), or not (errors)."""

    registration: str
    camera: int
    start: datetime
    end: datetime
    request_id: str | None = None
    errors: tuple[str, ...] = ()


def read_results(payload: object, zone: ZoneInfo) -> tuple[FileResult, ...]:
    """All explicit per-file results in an answer: records with camera and times, flat or grouped by registration.

    Args:
        payload: the answer's JSON.
        zone: of the API's timestamps.
    """
    return tuple(_results(payload, zone, "", DEEPEST))


def match(results: Sequence[FileResult], uploads: Sequence[Upload]) -> dict[int, FileResult]:
    """The result of each upload, by its number; uploads without one are left out. Of two, the one with errors wins."""
    found: dict[tuple[str, int, datetime, datetime], FileResult] = {}
    for result in results:
        key = same_video(result.registration, result.camera, result.start, result.end)
        if key not in found or result.errors:
            found[key] = result
    matched = {}
    for upload in uploads:
        video = upload.video
        mine = found.get(same_video(video.registration, video.camera, video.start, video.end))
        if mine is not None:
            matched[upload.id] = mine
    return matched


def single_result(payload: Mapping[str, Any], upload: Upload) -> FileResult:
    """The answer to a single upload, which is about this file whatever it contains."""
    data = payload.get("data")
    video = upload.video
    result = FileResult(video.registration, video.camera, video.start, video.end)
    if isinstance(data, Mapping):
        return replace(result, request_id=_request_id(data), errors=words(data.get("errors")))
    return result


def words(errors: object, depth: int = DEEPEST) -> tuple[str, ...]:
    """Errors as sentences: from a string, a list, or a mapping of field to any of these."""
    if depth == 0 or errors is None or errors is False:
        return ()
    if isinstance(errors, str):
        return (errors.strip()[:LONGEST_WORDS],) if errors.strip() else ()
    if isinstance(errors, Mapping):
        return tuple(
            word if str(field).isdigit() else f"{field}: {word}"
            for field, value in list(errors.items())[:100]
            for word in words(value, depth - 1)
        )
    if isinstance(errors, (list, tuple)):
        return tuple(word for value in errors[:100] for word in words(value, depth - 1))
    return (str(errors)[:LONGEST_WORDS],)


def error_message(payload: object) -> str:
    """The server's words in an error answer `{"error": {"code": …, "message": "…"}}`; empty if it has none."""
    error = payload.get("error") if isinstance(payload, Mapping) else None
    if isinstance(error, Mapping):
        return "; ".join(words(error.get("message")))
    return "; ".join(words(error)) if isinstance(error, str) else ""


def item_errors(payload: object) -> dict[int, str]:
    """The items that a validation error names (`data.3.video_file`, `data[3].video_file`, or nested), with words."""
    found: dict[int, list[str]] = {}
    for errors in _error_maps(payload, DEEPEST):
        for name, value in errors.items():
            named = _ITEM.match(str(name))
            if str(name) == "data" and isinstance(value, Mapping):
                for index, inner in value.items():
                    if str(index).isdigit():
                        found.setdefault(int(index), []).extend(words(inner))
            elif named is not None and str(name) != "data":
                found.setdefault(int(named[1]), []).extend(words(value))
    return {index: "; ".join(sentences) for index, sentences in found.items() if sentences}


def _error_maps(payload: object, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth == 0 or not isinstance(payload, Mapping):
        return
    for name, value in payload.items():
        if name in ("errors", "error", "message") and isinstance(value, Mapping):
            yield value
            yield from _error_maps(value, depth - 1)


def _results(node: object, zone: ZoneInfo, registration: str, depth: int) -> Iterator[FileResult]:
    if depth == 0:
        return
    if isinstance(node, list):
        for item in node:
            yield from _results(item, zone, registration, depth - 1)
    elif isinstance(node, Mapping):
        own = node.get("registration")
        registration = own if isinstance(own, str) else registration
        result = _result(node, zone, registration)
        if result is not None:
            yield result
            return
        for value in node.values():
            yield from _results(value, zone, registration, depth - 1)


def _result(node: Mapping[str, Any], zone: ZoneInfo, registration: str) -> FileResult | None:
    camera = camera_number(node.get("camera"))
    start = read_timestamp(node.get("start_timestamp"), zone)
    end = read_timestamp(node.get("end_timestamp"), zone)
    if not registration or camera is None or start is None or end is None:
        return None
    result = FileResult(registration, camera, start, end, _request_id(node), words(node.get("errors")))
    # An echo of what was sent is no verdict.
    return result if result.errors or result.request_id else None


def camera_number(value: object) -> int | None:
    """A camera, which the API gives as a number or as a string."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        return int(value)
    return None


def _request_id(node: Mapping[str, Any]) -> str | None:
    value = node.get("request_id")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return str(value)[:64] or None
