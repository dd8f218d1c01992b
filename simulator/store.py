"""The videos of the simulated account: validation, storage, and the list that clients query."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.media import mp4
from simulator.bodies import Part
from simulator.settings import Settings, Status, StatusTimeline

if TYPE_CHECKING:
    from multidict import MultiMapping


REQUIRED = ("registration", "camera", "start_timestamp", "end_timestamp")
CODECS = ("avc1", "avc3")


@dataclass(frozen=True, slots=True)
class ReceivedVideo:
    """A video of the account.

    Args:
        endpoint: the endpoint that created it: "upload", "bulk-upload" or "requests".
        requested_at: monotonic seconds of its arrival; its status follows from its age.
        timeline: its states over time.
        updates: how often the same registration, camera and times arrived again.
    """

    request_id: int
    registration: str
    camera: int
    start: str
    end: str
    comments: str
    size_bytes: int
    sha256: str
    endpoint: str
    requested_at: float
    timeline: StatusTimeline
    updates: int = 0

    @property
    def name(self) -> str:
        """The name by which faults match clips."""
        return clip_name(self.registration, str(self.camera), self.start)

    def status(self) -> int:
        return int(self.timeline.status(self._age_seconds()))

    def requested(self) -> str:
        """The time of its arrival, as an API timestamp."""
        return _ago(self._age_seconds())

    def updated(self) -> str:
        """The time of its last change of status, as an API timestamp."""
        age = self._age_seconds()
        return _ago(age - self.timeline.last_change_seconds(age))

    def _age_seconds(self) -> float:
        return time.monotonic() - self.requested_at


def _ago(seconds: float) -> str:
    return format_timestamp(datetime.now(tz=timezone.utc) - timedelta(seconds=seconds))


def clip_name(registration: str, camera: str, start: str) -> str:
    return f"{registration} {camera} {start}"


class Store:
    """The videos of the account. Thread-safe: `_lock` guards `_videos` and `_next_id`."""

    def __init__(self, keep_directory: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._videos: dict[tuple[str, int, str, str], ReceivedVideo] = {}
        self._next_id = 15139
        self._keep_directory = keep_directory

    @property
    def videos(self) -> list[ReceivedVideo]:
        with self._lock:
            return list(self._videos.values())

    def take(self, values: Mapping[str, str], video: bytes, endpoint: str, settings: Settings) -> ReceivedVideo:
        """Store an uploaded video that passed `rejection_reason`; the same clip again is an update."""
        received = ReceivedVideo(
            0,
            values["registration"],
            int(values["camera"]),
            values["start_timestamp"],
            values["end_timestamp"],
            values.get("comments", ""),
            len(video),
            hashlib.sha256(video).hexdigest(),
            endpoint,
            time.monotonic(),
            settings.upload_timeline,
        )
        if self._keep_directory is not None:
            self._keep_directory.mkdir(parents=True, exist_ok=True)
            (self._keep_directory / f"{received.sha256}.mp4").write_bytes(video)
        return self._add(received)

    def request(
        self, registration: str, camera: int, times: tuple[str, str], comments: str, timeline: StatusTimeline
    ) -> ReceivedVideo:
        """Store a request for footage from a camera."""
        requested = ReceivedVideo(
            0, registration, camera, *times, comments, 0, "", "requests", time.monotonic(), timeline
        )
        return self._add(requested)

    def _add(self, video: ReceivedVideo) -> ReceivedVideo:
        key = (video.registration, video.camera, video.start, video.end)
        with self._lock:
            earlier = self._videos.get(key)
            if earlier is None:
                video = replace(video, request_id=self._next_id)
                self._next_id += 1
            else:
                video = replace(video, request_id=earlier.request_id, updates=earlier.updates + 1)
            self._videos[key] = video
        return video


def rejection_reason(fields: Mapping[str, str], video: bytes, settings: Settings) -> str | None:
    """Why the API would reject a file; None if it accepts it."""
    if settings.registrations is not None and fields["registration"] not in settings.registrations:
        return "The registration does not exist or has no active contract."
    if len(video) > settings.max_file_bytes:
        return f"The file is larger than {settings.max_file_bytes} bytes."
    start, end = parse_timestamp(fields["start_timestamp"]), parse_timestamp(fields["end_timestamp"])
    if not 0 <= (end - start).total_seconds() <= settings.max_video_seconds:
        return f"The duration must not be longer than {settings.max_video_seconds // 60} minutes."
    try:
        codec = mp4.read(io.BytesIO(video)).video
    except mp4.Mp4Error:
        codec = None
    if codec is None or codec.codec not in CODECS:
        return "The file is not of MP4 video format."
    return None


def validation_errors(part: Part, index: int | None) -> dict[str, list[str]]:
    """The missing and malformed fields of a record, as in the API's validation errors.

    Args:
        part: the record.
        index: its position in a bulk upload; None for a single upload.
    """
    prefix = "" if index is None else f"data.{index}."
    wrong = {f"{prefix}{name}": [f"The {name} field is required."] for name in REQUIRED if not part.fields.get(name)}
    if part.video is None:
        wrong[f"{prefix}video_file"] = ["The video_file field is required."]
    if not wrong and not part.fields["camera"].isdecimal():
        wrong[f"{prefix}camera"] = ["The camera must be an integer."]
    for name in () if wrong else ("start_timestamp", "end_timestamp"):
        try:
            parse_timestamp(part.fields[name])
        except ValueError:
            wrong[f"{prefix}{name}"] = [f"The {name} must be YYYY-MM-DD HH:MM:SS."]
    return wrong


_FORMAT = "%Y-%m-%d %H:%M:%S"


def parse_timestamp(text: str) -> datetime:
    """Parse an API timestamp, `YYYY-MM-DD HH:MM:SS` without a zone, as aware UTC.

    Raises:
        ValueError: the format differs in any way (strptime alone accepts "2026-1-1 0:0:0").
    """
    instant = datetime.strptime(text, _FORMAT).replace(tzinfo=timezone.utc)
    if format_timestamp(instant) != text:
        raise ValueError(f"{text!r} is not of the form YYYY-MM-DD HH:MM:SS")
    return instant


def format_timestamp(instant: datetime) -> str:
    """Format an aware datetime as an API timestamp."""
    return instant.astimezone(timezone.utc).strftime(_FORMAT)


PAGE_ITEMS = 15


def list_page(videos: Sequence[ReceivedVideo], query: MultiMapping[str]) -> dict[str, Any]:
    """The response body of `GET /vision/videos/requests`: one page of the videos that match the query's filters.

    Raises:
        ValueError: `page` or `limit` is not an integer >= 1.
    """
    page, limit = _positive(query, "page", 1), _positive(query, "limit", PAGE_ITEMS)
    found = [video for video in videos if _matches(video, query)]
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
    return {"data": [list_item(video) for video in shown], "meta": meta}


def list_item(video: ReceivedVideo) -> dict[str, Any]:
    """One item of the list."""
    status = video.status()
    start, end = parse_timestamp(video.start), parse_timestamp(video.end)
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


def _matches(video: ReceivedVideo, query: MultiMapping[str]) -> bool:
    """Whether a video matches the filters of the query. API timestamps sort as strings."""
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
        ("filter[start_request_ts]", "filter[end_request_ts]", video.requested()),
        ("filter[start_updated_ts]", "filter[end_updated_ts]", video.updated()),
    )
    return (
        (not ids or str(video.request_id) in ids)
        and all(query.get(name, value) == value for name, value in exact.items())
        and all(query.get(low, value) <= value <= query.get(high, value) for low, high, value in bounds)
    )
