"""Reads the API's answers, whose shape is not published: what can be understood is, wherever it stands.

Nothing here raises on odd input: an answer that says nothing about a clip is no verdict, and the clip is kept.
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

# Real answers nest four deep; this bounds the work on hostile ones.
MAX_DEPTH = 12
MAX_MESSAGES = 20
MAX_ITEM_MESSAGES = 10_000
MAX_MESSAGE_CHARS = 500
MAX_PATH_CHARS = 200

# `data.3.video_file`, `data[3].video_file`, `data[3][video_file]`
_ITEM = re.compile(rf"\b{BULK}[.\[](\d{{1,4}})\b")


@dataclass(frozen=True, slots=True)
class FileResult:
    """An explicit verdict of the API on one file: it is taken if there are no errors.

    Args:
        start, end: aware UTC.
        request_id: the API's number for it, where it gave one.
        errors: its words against the file.
    """

    registration: str
    camera: int
    start: datetime
    end: datetime
    request_id: str | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One entry of the list; what the answer leaves out, or has in another form than expected, is None."""

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
        """Whether nothing will change any more."""
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
        total: how many entries all pages have.
    """

    items: tuple[VideoRequest, ...]
    current_page: int
    last_page: int
    total: int


def parse_results(payload: object, zone: ZoneInfo) -> tuple[FileResult, ...]:
    """All explicit per-file results in an answer: records with camera and times, flat or grouped by registration.

    A record with neither errors nor a request_id is an echo of what was sent, not a verdict: it is left out.

    Args:
        payload: any JSON.
        zone: of the API's timestamps.
    """
    return tuple(_results(payload, zone, None, MAX_DEPTH))


def match_results(results: Iterable[FileResult], uploads: Iterable[Upload], zone: ZoneInfo) -> dict[int, FileResult]:
    """The result of each upload, by its id. Uploads without one, and results of others' clips, are left out.

    Of two results that contradict each other, the one with errors is believed.
    """
    found: dict[tuple[str | int, ...], FileResult] = {}
    for result in results:
        key = match_key(result, zone)
        if key not in found or result.errors:
            found[key] = result
    keys = {upload.id: match_key(upload.key, zone) for upload in uploads}
    return {id: found[key] for id, key in keys.items() if key in found}


def single_result(payload: object, upload: Upload) -> FileResult:
    """The answer to a single upload, which is about this file whatever it contains: no errors in it means taken."""
    video = upload.key
    result = FileResult(video.registration, video.camera, video.start, video.end)
    for record in objects(payload):
        result = replace(
            result,
            request_id=result.request_id or as_id(record.get(REQUEST_ID)),
            errors=(result.errors + _errors(record))[:MAX_MESSAGES],
        )
    return result


def count_errors(payload: object) -> int:
    """How many records of an answer hold errors, of whatever they are."""
    return sum(bool(_errors(record)) for record in objects(payload))


def item_errors(payload: object) -> dict[int, str]:
    """The items of a batch that a validation error names (by path, by nesting, or in its words), with the words."""
    # Not from elsewhere: beside its errors the answer may repeat what was sent.
    told = {name: payload.get(name) for name in (*ERRORS, "message")} if isinstance(payload, Mapping) else {}
    found: dict[int, list[str]] = {}
    for path, sentence in islice(_walk_messages(told, "", MAX_DEPTH), MAX_ITEM_MESSAGES):
        named = _ITEM.search(path) or _ITEM.search(sentence)
        if named is not None:
            found.setdefault(int(named[1]), []).append(sentence)
    return {index: "; ".join(sentences[:MAX_MESSAGES]) for index, sentences in found.items()}


def messages(errors: object) -> tuple[str, ...]:
    """Errors as sentences: from a string, a list, a mapping of field to either, or any nesting of these."""
    found = islice(_walk_messages(errors, "", MAX_DEPTH), MAX_MESSAGES)
    return tuple(f"{path}: {sentence}" if path else sentence for path, sentence in found)


def objects(payload: object) -> Iterator[Mapping[str, Any]]:
    """All JSON objects in an answer, the outer before the inner."""
    for value in _walk_values(payload, MAX_DEPTH):
        if isinstance(value, Mapping):
            yield value


def urls(payload: object) -> tuple[str, ...]:
    """All links in an answer, in order."""
    return tuple(
        clean(value)
        for value in _walk_values(payload, MAX_DEPTH)
        if isinstance(value, str) and value.startswith(URL_SCHEMES)
    )


def as_int(value: object) -> int | None:
    """A whole number, which the API gives as a number or as a string."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_id(value: object) -> str | None:
    """The API's number of something, as text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return _sanitize(str(value)) or None


def parse_page(payload: Mapping[str, Any], zone: ZoneInfo, page: int) -> RequestPage:
    """A page of the list; `page` is the one that was asked for, should the answer not say."""
    listed = payload.get("data")
    items = [_read_item(item, zone) for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    described = payload.get("meta")
    meta = described if isinstance(described, Mapping) else {}

    def said(name: str, otherwise: int) -> int:
        found = as_int(meta.get(name))
        return otherwise if found is None else found

    return RequestPage(tuple(items), said("current_page", page), said("last_page", page), said("total", len(items)))


def _results(node: object, zone: ZoneInfo, registration: str | None, depth: int) -> Iterator[FileResult]:
    if depth == 0:
        return
    if isinstance(node, list):
        for item in node:
            yield from _results(item, zone, registration, depth - 1)
    elif isinstance(node, Mapping):
        own = node.get(REGISTRATION)
        registration = own if isinstance(own, str) else registration
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
    return tuple(sentence for name in ERRORS for sentence in messages(record.get(name)))


def _walk_messages(node: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """All texts in a value, each with the names of the fields that lead to it."""
    if depth == 0 or node is None or node is False:
        return
    if isinstance(node, Mapping):
        for name, value in node.items():
            inner = _sanitize(f"{path}.{name}" if path else str(name))[:MAX_PATH_CHARS]
            yield from _walk_messages(value, inner, depth - 1)
    elif isinstance(node, list):
        for position, value in enumerate(node):
            # A list of objects is counted, so that `data: [null, {…}]` names its second item; one of texts is not.
            inner = f"{path}.{position}" if isinstance(value, (Mapping, list)) else path
            yield from _walk_messages(value, inner, depth - 1)
    elif sentence := _sanitize(str(node)):
        yield path, sentence


def _walk_values(node: object, depth: int) -> Iterator[object]:
    yield node
    if depth == 0 or not isinstance(node, (Mapping, list)):
        return
    for value in node.values() if isinstance(node, Mapping) else node:
        yield from _walk_values(value, depth - 1)


def _sanitize(text: str) -> str:
    """Text of a server on one line, without anything that could steer a terminal or break a log."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * MAX_MESSAGE_CHARS])
    return " ".join(printable.split())[:MAX_MESSAGE_CHARS]


def _read_item(item: Mapping[str, Any], zone: ZoneInfo) -> VideoRequest:
    return VideoRequest(
        request_id=as_id(item.get(REQUEST_ID)),
        registration=_text(item.get(REGISTRATION)),
        camera=as_int(item.get(CAMERA)),
        status_id=as_int(item.get(STATUS_ID)),
        url=_text(item.get(URL)),
        start=parse_timestamp(item.get(START), zone),
        end=parse_timestamp(item.get(END), zone),
        duration_seconds=as_int(item.get(DURATION)),
        comments=_text(item.get(COMMENTS)),
    )


def _text(value: object) -> str | None:
    return clean(value) if isinstance(value, str) and value else None
