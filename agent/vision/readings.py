"""Our readings of the API where the published reference is silent or contradicts itself: correct them here.

Reference: Fleet API 1.26.0622.1, Vision endpoints.
"""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from agent.clip import Upload

# Published: "YYYY-MM-DD HH:MM:SS". Silent on the zone: read as UTC, set by api.timezone.
TIMESTAMP = "%Y-%m-%d %H:%M:%S"

# Published for the single upload, which a form of type application/x-www-form-urlencoded is said to carry. That type
# cannot hold a file: read as multipart/form-data. For the bulk upload the fields of a record are not published: read
# as those of the single upload, the file as base64 in `video_file` (JSON) or as a part (multipart, bracket form).
FILE_FIELD = "video_file"

# Published.
COMPLETE = 3
FINAL_FAILURES = {4: "cancelled", 5: "does not exist", 6: "timeout"}
STATUSES = {1: "pending", 2: "in progress", COMPLETE: "complete", **FINAL_FAILURES}


def timestamp(instant: datetime, zone: ZoneInfo) -> str:
    """An instant as the API writes it."""
    return instant.astimezone(zone).strftime(TIMESTAMP)


def read_timestamp(text: object, zone: ZoneInfo) -> datetime | None:
    """The UTC instant of one of the API's timestamps; None if it is not one."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.strptime(text.strip(), TIMESTAMP).replace(tzinfo=zone).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def fields(upload: Upload, zone: ZoneInfo) -> dict[str, str | int]:
    """What the API is told of a clip, without its file."""
    video = upload.video
    told: dict[str, str | int] = {
        "registration": video.registration,
        "camera": video.camera,
        "start_timestamp": timestamp(video.start, zone),
        "end_timestamp": timestamp(video.end, zone),
    }
    if upload.comments:
        told["comments"] = upload.comments
    return told


def same_video(registration: str, camera: int, start: datetime, end: datetime) -> tuple[str, int, datetime, datetime]:
    """By what a result is matched with a clip. The contract says "same registration, start and end"; that two cameras
    of one vehicle are two videos is our reading."""
    return registration.strip().upper(), camera, start, end
