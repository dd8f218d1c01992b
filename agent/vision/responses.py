"""Parses responses of the API, whose shape is not published: known fields are found wherever they are.

Nothing here raises on unexpected input: a response that says nothing about a clip is no verdict, and the clip is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from agent.model import Upload
from agent.vision.assumptions import (
    BULK,
    CAMERA,
    COMMENTS,
    COMPLETE,
    DURATION,
    END,
    ERRORS,
    FINAL_FAILURES,
    REGISTRATION,
    REQUEST_ID,
    START,
    STATUS_ID,
    STATUSES,
    URL,
    URL_SCHEMES,
    clean,
    match_key,
    parse_timestamp,
)

# Real responses are nested four deep; this bounds the work on hostile ones.
MAX_DEPTH = 12
MAX_MESSAGES = 20
MAX_ITEM_MESSAGES = 10_000
MAX_MESSAGE_CHARS = 500
MAX_PATH_CHARS = 200

# `data.3.video_file`, `data[3].video_file`, `data[3][video_file]`
_ITEM = re.compile(rf"\b{BULK}[.\[](\d{{1,4}})\b")


@dataclass(frozen=True, slots=True)
class FileResult:
    """An explicit result of the API for one file, which was accepted if there are no errors.

    Args:
        start, end: aware UTC.
        request_id: the API's id for it, if the response has one.
        errors: the API's error messages.
    """

    registration: str
    camera: int
    start: datetime
    end: datetime
    request_id: str | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One entry of the list; a field that is missing, or not in the expected form, is None."""

    request_id: str | None
    registration: str | None
    camera: int | None
    status_id: int | None
    url: str | None
    start: datetime | None
    end: datetime | None
    duration_seconds: int | None
    comments: str | None

    @property
    def is_complete(self) -> bool:
        return self.status_id == COMPLETE

    @property
    def is_final(self) -> bool:
        """Whether its status will not change again."""
        return self.is_complete or self.status_id in FINAL_FAILURES

    @property
    def status(self) -> str:
        """The status in words."""
        if self.status_id is None:
            return "status unknown"
        return STATUSES.get(self.status_id, f"status {self.status_id}")


@dataclass(frozen=True, slots=True)
class RequestPage:
    """One page of the list.

    Args:
        current_page, last_page: from 1.
        total: entries on all pages.
    """

    items: tuple[VideoRequest, ...]
    current_page: int
    last_page: int
    total: int


def parse_results(payload: object, zone: ZoneInfo) -> tuple[FileResult, ...]:
    """All explicit per-file results in a response: objects with camera and times, flat or grouped by registration.

    An object with neither errors nor a request_id only repeats what was sent: it is no result.

    Args:
        payload: any JSON.
        zone: of the API's timestamps.
    """
    return tuple(_results(payload, zone, None, MAX_DEPTH))


def match_results(results: Iterable[FileResult], uploads: Iterable[Upload], zone: ZoneInfo) -> dict[int, FileResult]:
    """The results by upload id; uploads without one, and results of other clips, are left out.

    Of two results that contradict each other, the one with errors counts.
    """
    found: dict[tuple[str | int, ...], FileResult] = {}
    for result in results:
        key = match_key(result, zone)
        if key not in found or result.errors:
            found[key] = result
    keys = {upload.id: match_key(upload.key, zone) for upload in uploads}
    return {id: found[key] for id, key in keys.items() if key in found}


def single_result(payload: object, upload: Upload) -> FileResult:
    """The result in the response to a single upload, which is about this file: accepted if there are no errors."""
    key = upload.key
    result = FileResult(key.registration, key.camera, key.start, key.end)
    for record in objects(payload):
        result = replace(
            result,
            request_id=result.request_id or as_id(record.get(REQUEST_ID)),
            errors=(result.errors + _errors(record))[:MAX_MESSAGES],
        )
    return result


def count_errors(payload: object) -> int:
    """How many objects in a response have errors, whatever they are about."""
    return sum(bool(_errors(record)) for record in objects(payload))


def item_errors(payload: object) -> dict[int, str]:
    """Messages of a validation error, by the index of the item that it names: by path, by nesting or in its text."""
    # Only below these: a response may repeat what was sent beside its errors.
    named = {name: payload.get(name) for name in (*ERRORS, "message")} if isinstance(payload, Mapping) else {}
    found: dict[int, list[str]] = {}
    for path, message in islice(_walk_messages(named, "", MAX_DEPTH), MAX_ITEM_MESSAGES):
        if item := _ITEM.search(path) or _ITEM.search(message):
            found.setdefault(int(item[1]), []).append(message)
    return {index: "; ".join(texts[:MAX_MESSAGES]) for index, texts in found.items()}


def messages(errors: object) -> tuple[str, ...]:
    """Error messages: from a string, a list, an object of fields with either, or any nesting of these."""
    found = islice(_walk_messages(errors, "", MAX_DEPTH), MAX_MESSAGES)
    return tuple(f"{path}: {message}" if path else message for path, message in found)


def objects(payload: object) -> Iterator[Mapping[str, Any]]:
    """All JSON objects in a response, outer ones before inner ones."""
    for value in _walk_values(payload, MAX_DEPTH):
        if isinstance(value, Mapping):
            yield value


def urls(payload: object) -> tuple[str, ...]:
    """All URLs in a response, in order."""
    return tuple(
        clean(value)
        for value in _walk_values(payload, MAX_DEPTH)
        if isinstance(value, str) and value.startswith(URL_SCHEMES)
    )


def as_int(value: object) -> int | None:
    """An integer, which the API writes as a number or as a string."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_id(value: object) -> str | None:
    """An id of the API, as text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return _sanitize(str(value)) or None


def parse_page(payload: Mapping[str, Any], zone: ZoneInfo, page: int) -> RequestPage:
    """A page of the list; `page` is the one that was requested, in case the response does not say."""
    data, meta = payload.get("data"), payload.get("meta")
    items = [_parse_item(item, zone) for item in data if isinstance(item, Mapping)] if isinstance(data, list) else []

    def count(name: str, default: int) -> int:
        found = as_int(meta.get(name)) if isinstance(meta, Mapping) else None
        return default if found is None else found

    return RequestPage(tuple(items), count("current_page", page), count("last_page", page), count("total", len(items)))


def _results(node: object, zone: ZoneInfo, registration: str | None, depth: int) -> Iterator[FileResult]:
    if depth == 0:
        return
    if isinstance(node, list):
        for item in node:
            yield from _results(item, zone, registration, depth - 1)
    elif isinstance(node, Mapping):
        registration = _registration(node.get(REGISTRATION)) or registration
        camera = as_int(node.get(CAMERA))
        start, end = parse_timestamp(node.get(START), zone), parse_timestamp(node.get(END), zone)
        if registration is not None and camera is not None and start is not None and end is not None:
            result = FileResult(registration, camera, start, end, as_id(node.get(REQUEST_ID)), _errors(node))
            if result.errors or result.request_id:
                yield result
            return
        for value in node.values():
            yield from _results(value, zone, registration, depth - 1)


def _errors(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(message for name in ERRORS for message in messages(record.get(name)))


def _walk_messages(node: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """All texts in a value, each with the path of field names that leads to it."""
    if depth == 0 or node is None or node is False:
        return
    if isinstance(node, Mapping):
        for name, value in node.items():
            inner = _sanitize(f"{path}.{name}" if path else str(name))[:MAX_PATH_CHARS]
            yield from _walk_messages(value, inner, depth - 1)
    elif isinstance(node, list):
        for position, value in enumerate(node):
            # Positions count in a list of objects, so that `data: [null, {…}]` names item 1, and not in one of texts.
            inner = f"{path}.{position}" if isinstance(value, (Mapping, list)) else path
            yield from _walk_messages(value, inner, depth - 1)
    elif message := _sanitize(str(node)):
        yield path, message


def _walk_values(node: object, depth: int) -> Iterator[object]:
    yield node
    if depth == 0 or not isinstance(node, (Mapping, list)):
        return
    for value in node.values() if isinstance(node, Mapping) else node:
        yield from _walk_values(value, depth - 1)


def _sanitize(text: str) -> str:
    """A server's text on one line of bounded length, without control characters (terminals, logs)."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * MAX_MESSAGE_CHARS])
    return " ".join(printable.split())[:MAX_MESSAGE_CHARS]


def _parse_item(item: Mapping[str, Any], zone: ZoneInfo) -> VideoRequest:
    return VideoRequest(
        request_id=as_id(item.get(REQUEST_ID)),
        registration=_registration(item.get(REGISTRATION)),
        camera=as_int(item.get(CAMERA)),
        status_id=as_int(item.get(STATUS_ID)),
        url=_text(item.get(URL)),
        start=parse_timestamp(item.get(START), zone),
        end=parse_timestamp(item.get(END), zone),
        duration_seconds=as_int(item.get(DURATION)),
        comments=_text(item.get(COMMENTS)),
    )


def _registration(value: object) -> str | None:
    """A registration; one of digits only may come back as a number, as PHP makes numbers of such array keys."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _text(value: object) -> str | None:
    return clean(value) if isinstance(value, str) and value else None
