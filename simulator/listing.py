"""The account's list as `GET /vision/videos/requests` shows it: filters, pages, and the fields of an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator import timestamps
from simulator.lifecycle import Status
from simulator.store import ReceivedVideo

if TYPE_CHECKING:
    from multidict import MultiMapping

PAGE_ITEMS = 15


def page_of(videos: Sequence[ReceivedVideo], query: MultiMapping[str]) -> dict[str, Any]:
    """The answer's body: one page of the videos that pass the query's filters.

    Raises:
        ValueError: `page` or `limit` is not a whole number from 1 on.
    """
    page, limit = _positive(query, "page", 1), _positive(query, "limit", PAGE_ITEMS)
    found = [video for video in videos if _fits(video, query)]
    before = (page - 1) * limit
    shown = found[before : before + limit]
    meta = {
        "from": before + 1 if shown else None,
        "to": before + len(shown) if shown else None,
        "current_page": page,
        "per_page": limit,
        "last_page": max(1, -(-len(found) // limit)),
        "total": len(found),
    }
    return {"data": [listed(video) for video in shown], "meta": meta}


def listed(video: ReceivedVideo) -> dict[str, Any]:
    """An item of the list."""
    status = video.status()
    start, end = timestamps.read(video.start), timestamps.read(video.end)
    return {
        "request_id": video.request_id,
        "registration": video.registration,
        "camera": video.camera,
        "status_id": status,
        "url": f"https://videos.example.com/{video.request_id}.mp4" if status == Status.COMPLETE else None,
        "start_timestamp": video.start,
        "end_timestamp": video.end,
        "duration": int((end - start).total_seconds()),
        "comments": video.comments,
    }


def _positive(query: MultiMapping[str], name: str, default: int) -> int:
    number = int(query.get(name, default))
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")
    return number


def _fits(video: ReceivedVideo, query: MultiMapping[str]) -> bool:
    """Whether a video passes the filters of the query; timestamps of this form compare as text."""
    ids = query.getall("filter[request_id][]", [])
    exact = {
        "filter[registration]": video.registration,
        "filter[camera]": str(video.camera),
        "filter[status_id]": str(video.status()),
        "filter[request_comment]": video.comments,
    }
    bounds = (
        ("filter[video_start_ts_from]", "filter[video_start_ts_to]", video.start),
        ("filter[video_end_ts_from]", "filter[video_end_ts_to]", video.end),
        ("filter[start_request_ts]", "filter[end_request_ts]", video.asked()),
        ("filter[start_updated_ts]", "filter[end_updated_ts]", video.updated()),
    )
    return (
        (not ids or str(video.request_id) in ids)
        and all(query.get(name, value) == value for name, value in exact.items())
        and all(query.get(low, value) <= value <= query.get(high, value) for low, high, value in bounds)
    )
