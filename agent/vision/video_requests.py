"""The account's list of clips and clip requests: what can be asked of it, and what an entry says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict
from zoneinfo import ZoneInfo

from agent.vision.assumptions import (
    CAMERA,
    COMMENTS,
    COMPLETE,
    DURATION,
    END,
    FINAL_FAILURES,
    REGISTRATION,
    REQUEST_ID,
    START,
    STATUS_ID,
    STATUSES,
    URL,
    clean,
    format_timestamp,
    parse_timestamp,
)
from agent.vision.responses import as_id, as_int


class Filters(TypedDict, total=False):
    """Which entries are listed: those that all of these apply to. Instants are aware; None filters nothing."""

    registration: str | None
    request_ids: Sequence[str] | None
    camera: int | None
    status_id: int | None
    comment: str | None
    event_type_id: int | None
    start_from: datetime | None
    start_to: datetime | None
    end_from: datetime | None
    end_to: datetime | None
    requested_from: datetime | None
    requested_to: datetime | None
    updated_from: datetime | None
    updated_to: datetime | None


# Published.
_QUERY_NAMES = {
    "registration": "filter[registration]",
    "request_ids": "filter[request_id][]",
    "camera": "filter[camera]",
    "status_id": "filter[status_id]",
    "comment": "filter[request_comment]",
    "event_type_id": "filter[event_type_id]",
    "start_from": "filter[video_start_ts_from]",
    "start_to": "filter[video_start_ts_to]",
    "end_from": "filter[video_end_ts_from]",
    "end_to": "filter[video_end_ts_to]",
    "requested_from": "filter[start_request_ts]",
    "requested_to": "filter[end_request_ts]",
    "updated_from": "filter[start_updated_ts]",
    "updated_to": "filter[end_updated_ts]",
}


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


def query(filters: Filters, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    """The names and values of a query."""
    for name, value in filters.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, datetime):
                yield _QUERY_NAMES[name], format_timestamp(one, zone)
            elif one is not None:
                yield _QUERY_NAMES[name], clean(str(one))


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
