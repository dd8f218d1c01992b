"""Response bodies: errors in the API's format, and per-file results in each format that a client must understand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from simulator.settings import AnswerShape


def abort_connection(request: web.Request) -> web.Response:
    """Reset the connection. The returned response is never sent."""
    transport = request.transport
    if transport is not None:
        transport.abort()
    return web.Response(status=500)


def error(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=code, headers=headers)


def too_many_requests(wait_seconds: float, message: str) -> web.Response:
    headers = {
        "X-RateLimit-Retry-After-Seconds": str(int(wait_seconds) + 1),
        "X-RateLimit-Retry-At": str(int(time.time() + wait_seconds) + 1),
    }
    return error(429, message, headers)


def unprocessable(errors: dict[str, list[str]]) -> web.Response:
    message = "; ".join(words[0] for words in errors.values())[:300]
    body = {"error": {"code": 422, "message": message}, "errors": errors, "data": None}
    return web.json_response(body, status=422)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one file of a request; exactly one of `request_id` and `error` is set."""

    registration: str
    camera: int
    start: str
    end: str
    request_id: int | None
    error: str | None


def format_results(outcomes: Sequence[Outcome], form: AnswerShape) -> Any:
    """The value of `data` in the response."""
    if form.grouping == "none":
        return {}
    results: list[dict[str, Any]] = []
    if form.grouping == "flat":
        results = [{"registration": outcome.registration, **_video(outcome, form)} for outcome in outcomes]
    else:
        groups: dict[str, list[dict[str, Any]]] = {}
        for outcome in outcomes:
            groups.setdefault(outcome.registration, []).append(_video(outcome, form))
        results = [{"registration": registration, "videos": videos} for registration, videos in groups.items()]
    return results if form.key is None else {form.key: results}


def _video(outcome: Outcome, form: AnswerShape) -> dict[str, Any]:
    video: dict[str, Any] = {
        "camera": str(outcome.camera) if form.camera == "string" else outcome.camera,
        "start_timestamp": outcome.start,
        "end_timestamp": outcome.end,
    }
    if outcome.error is None:
        return video | {"request_id": outcome.request_id}
    match form.errors:
        case "text":
            return video | {"errors": outcome.error}
        case "list":
            return video | {"errors": [outcome.error]}
    return video | {"errors": {"video_file": [outcome.error]}}
