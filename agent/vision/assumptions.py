"""Our assumptions about the API where its published reference is silent or contradicts itself: correct them here.

Reference: Fleet API 1.26.0622.1, Vision endpoints.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Protocol
from zoneinfo import ZoneInfo

from agent.model import Upload

# Published for the single upload and its responses. The fields of a bulk record and of an entry in the list of requests
# are not published: assumed to be the same.
REGISTRATION = "registration"
CAMERA = "camera"
START = "start_timestamp"
END = "end_timestamp"
COMMENTS = "comments"
REQUEST_ID = "request_id"

# Published as a field of the single upload, with the type application/x-www-form-urlencoded, which cannot carry a file:
# assumed to be a part of multipart/form-data. In the bulk upload, whose published type is application/json: assumed to
# be base64 text; or the part `data[0][video_file]` of multipart/form-data, as PHP frameworks parse it.
FILE = "video_file"
BULK = "data"

# Published as `errors` in the result of a file. `error` beside a file's fields is assumed to mean the same.
ERRORS = ("errors", "error")

# Published for the list of requests, except the names `url` and `duration`.
STATUS_ID = "status_id"
URL = "url"
DURATION = "duration"
COMPLETE = 3
PENDING = frozenset((1, 2))
FINAL_FAILURES = {4: "cancelled", 5: "does not exist", 6: "timeout"}
STATUSES = {1: "pending", 2: "in progress", COMPLETE: "complete", **FINAL_FAILURES}

# Published: a link for each camera, but not its form. Any text that begins like this is assumed to be a link.
URL_SCHEMES = ("http://", "https://", "rtmp://", "rtmps://", "rtsp://", "rtsps://", "ws://", "wss://")


class HasKey(Protocol):
    """Has the four values by which the API identifies a clip."""

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

    Published: "YYYY-MM-DD HH:MM:SS", but not its time zone: assumed to be UTC, can be set by api.timezone.
    """
    return instant.astimezone(zone).replace(tzinfo=None).isoformat(" ", "seconds")


def parse_timestamp(value: object, zone: ZoneInfo) -> datetime | None:
    """The UTC instant of a timestamp in the API's format or in ISO 8601; None if it is neither."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        if not 1970 <= instant.year < 9999:  # the ends of the calendar overflow when converted
            return None
        return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(timezone.utc)
    except ValueError:
        return None


def clean(text: str) -> str:
    """Text that can be encoded: file names in another encoding contain surrogates, which become "?"."""
    return text.encode("utf-8", "replace").decode()


def record_fields(upload: Upload, zone: ZoneInfo) -> dict[str, str | int]:
    """The fields of an upload, except the file."""
    key = upload.key
    record: dict[str, str | int] = {
        REGISTRATION: clean(key.registration),
        CAMERA: key.camera,
        START: format_timestamp(key.start, zone),
        END: format_timestamp(key.end, zone),
    }
    if upload.comments:
        record[COMMENTS] = clean(upload.comments)
    return record


def match_key(clip: HasKey, zone: ZoneInfo) -> tuple[str | int, ...]:
    """The key that matches a result with a clip. It has the API's timestamps, which cannot tell the two hours apart
    that the end of summer time makes of one.

    Published: an upload with the same registration, start and end updates the earlier one. Assumed: two cameras of one
    vehicle are two videos nevertheless, and letter case does not matter.
    """
    return (
        clip.registration.strip().casefold(),
        clip.camera,
        format_timestamp(clip.start, zone),
        format_timestamp(clip.end, zone),
    )
