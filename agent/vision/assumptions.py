"""Our readings of the API where the published reference is silent or contradicts itself: correct them here.

Reference: Fleet API 1.26.0622.1, Vision endpoints.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Protocol
from zoneinfo import ZoneInfo

from agent.model import Upload

# Published for the single upload and for its answers. The fields of a bulk record and of an entry in the list of
# requests are not published: read as the same.
REGISTRATION = "registration"
CAMERA = "camera"
START = "start_timestamp"
END = "end_timestamp"
COMMENTS = "comments"
REQUEST_ID = "request_id"

# Published as a field of the single upload, said to be of type application/x-www-form-urlencoded, which cannot carry a
# file: read as a part of multipart/form-data. In the bulk upload, whose published type is application/json: read as
# base64 text; or, as PHP frameworks read it, as the part `data[0][video_file]` of multipart/form-data.
FILE = "video_file"
BULK = "data"

# Published as `errors` in the result of a file. `error` beside a file's own fields is read as the same.
ERRORS = ("errors", "error")

# Published in the list of requests, except `url` and `duration` as names.
STATUS_ID = "status_id"
URL = "url"
DURATION = "duration"
COMPLETE = 3
PENDING = frozenset((1, 2))
FINAL_FAILURES = {4: "cancelled", 5: "does not exist", 6: "timeout"}
STATUSES = {1: "pending", 2: "in progress", COMPLETE: "complete", **FINAL_FAILURES}

# Published: a link for each camera. Silent on how it is wrapped: anything that begins like this is read as a link.
URL_SCHEMES = ("http://", "https://", "rtmp://", "rtmps://", "rtsp://", "rtsps://", "ws://", "wss://")


class HasKey(Protocol):
    """Whatever carries the four values by which the API names a clip."""

    @property
    def registration(self) -> str: ...
    @property
    def camera(self) -> int: ...
    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime: ...


def format_timestamp(instant: datetime, zone: ZoneInfo) -> str:
    """An instant as the API writes it.

    Published: "YYYY-MM-DD HH:MM:SS". Silent on the zone: read as UTC, set by api.timezone.
    """
    return instant.astimezone(zone).replace(tzinfo=None).isoformat(" ", "seconds")


def parse_timestamp(value: object, zone: ZoneInfo) -> datetime | None:
    """The UTC instant of one of the API's timestamps, or of one in ISO 8601; None if it is neither."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        if not 1970 <= instant.year < 9999:  # the ends of the calendar cannot be converted
            return None
        return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(timezone.utc)
    except ValueError:
        return None


def clean(text: str) -> str:
    """Text that can be sent: without the halves of characters that a file name of another encoding leaves behind."""
    return text.encode("utf-8", "replace").decode()


def record_fields(upload: Upload, zone: ZoneInfo) -> dict[str, str | int]:
    """What the API is told of a clip, without its file."""
    video = upload.key
    told: dict[str, str | int] = {
        REGISTRATION: clean(video.registration),
        CAMERA: video.camera,
        START: format_timestamp(video.start, zone),
        END: format_timestamp(video.end, zone),
    }
    if upload.comments:
        told[COMMENTS] = clean(upload.comments)
    return told


def match_key(named: HasKey, zone: ZoneInfo) -> tuple[str | int, ...]:
    """By what a result is matched with a clip: as the API writes it, so that an hour that comes twice does not matter.

    The reference says that an upload with the same registration, start and end updates the earlier one. That two
    cameras of one vehicle are two videos nevertheless, and that letter case does not matter, are our readings.
    """
    return (
        named.registration.strip().casefold(),
        named.camera,
        format_timestamp(named.start, zone),
        format_timestamp(named.end, zone),
    )
