"""The Vision API's endpoints: typed values in and out, and every foreign error translated.

Source: Fleet API reference 1.26.0622.1, Vision endpoints.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import quote
from zoneinfo import ZoneInfo

from agent.config import Api
from agent.errors import CameraOffline, LinkDown
from agent.model import Upload
from agent.vision import error_mapping
from agent.vision.assumptions import (
    CAMERA,
    COMMENTS,
    DURATION,
    REGISTRATION,
    REQUEST_ID,
    START,
    clean,
    format_timestamp,
)
from agent.vision.bodies import (
    JsonBulkBody,
    MultipartBulkBody,
    ProgressCallback,
    ShouldStop,
    SingleBody,
    never_stop,
    no_progress,
)
from agent.vision.responses import (
    FileResult,
    RequestPage,
    VideoRequest,
    as_id,
    count_errors,
    match_results,
    objects,
    parse_page,
    parse_results,
    single_result,
    urls,
)
from agent.vision.transport import HttpResponse, Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FileResult", "RequestPage", "UploadResponse", "VideoRequest", "VisionClient"]

PAGE_ITEMS = 100


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
class UploadResponse:
    """The answer to a bulk upload.

    Args:
        results: what the API said explicitly of a clip, by the upload's id. A clip that is missing here was taken
            with the request, and nothing is known of it yet.
        is_clear: whether every error that it holds is one of these results': else silence about a clip means nothing.
    """

    results: Mapping[int, FileResult]
    all_errors_matched: bool = True


class VisionClient:
    """The API. One thread at a time may use it; `abort` may be called from any.

    Args:
        api: where it is, the credentials, and how patient to be.
        stopping: asked several times a second during a request; once it is true, the request ends with Stopped.
        now: Unix seconds, for answers that name an instant.

    Attributes:
        timezone: of the API's timestamps.

    Beside what it names, every method raises LinkDown, CredentialsRejected, OptionInactive, WrongAddress, RateLimited,
    RequestRejected or Stopped, and nothing else.
    """

    def __init__(self, api: Api, *, stopping: ShouldStop = never_stop, now: Callable[[], float] = time.time) -> None:
        self.timezone = api.timezone
        self._stopping = stopping
        self._now = now
        self._transport = Transport(api, stopping)

    def upload_bulk(
        self,
        uploads: Sequence[Upload],
        *,
        encoding: Literal["json", "multipart"],
        webhook_url: str | None = None,
        progress: ProgressCallback = no_progress,
    ) -> UploadResponse:
        """POST /vision/video/bulk-upload.

        Args:
            uploads: 1 to 100 clips.
            webhook_url: where the API shall send the results too.
            progress: called with the bytes of the body that have left, and the position of their clip, from 0.

        Raises:
            ClipUnreadable: a stored file is gone, was changed, or cannot be read.
            TooLarge: the server does not take a request of this size.
        """
        kind = JsonBulkBody if encoding == "json" else MultipartBulkBody
        body = kind(uploads, self.timezone, webhook_url, progress=progress, stopping=self._stopping)
        payload = self._require_success(self._transport.exchange("POST", "/vision/video/bulk-upload", body=body))
        results = match_results(parse_results(payload, self.timezone), uploads, self.timezone)
        return UploadResponse(results, count_errors(payload) <= sum(bool(result.errors) for result in results.values()))

    def upload_single(self, upload: Upload, *, progress: ProgressCallback = no_progress) -> FileResult:
        """POST /vision/video/upload: the answer is about this clip.

        Raises:
            ClipUnreadable: the stored file is gone, was changed, or cannot be read.
            TooLarge: the server does not take a file of this size.
        """
        body = SingleBody(upload, self.timezone, progress=progress, stopping=self._stopping)
        return single_result(
            self._require_success(self._transport.exchange("POST", "/vision/video/upload", body=body)), upload
        )

    def videos_status(self) -> None:
        """GET /vision/videos/status: a static table. It costs little and raises whatever an upload would raise."""
        self._require_success(self._transport.exchange("GET", "/vision/videos/status"))

    def requests(self, *, page: int = 1, limit: int = PAGE_ITEMS, **filters: Unpack[Filters]) -> RequestPage:
        """GET /vision/videos/requests: one page of the account's clips and clip requests, whoever made them."""
        query = [*query_pairs(filters, self.timezone), ("page", str(page)), ("limit", str(limit))]
        payload = self._require_success(self._transport.exchange("GET", "/vision/videos/requests", query=query))
        return parse_page(payload, self.timezone, page)

    def all_requests(self, **filters: Unpack[Filters]) -> Iterator[VideoRequest]:
        """The same, page after page, to the end."""
        page = 1
        while True:
            found = self.requests(page=page, **filters)
            yield from found.items
            if page >= found.last_page or not found.items:
                return
            page += 1

    def create_request(
        self, registration: str, start: datetime, duration_seconds: int, cameras: Sequence[int], comments: str = ""
    ) -> tuple[str, ...]:
        """POST /vision/videos/requests: asks a vehicle's cameras for footage.

        Returns:
            The numbers of the requests, as far as the answer names them (its form is not published).
        """
        document = {
            REGISTRATION: clean(registration),
            START: format_timestamp(start, self.timezone),
            DURATION: duration_seconds,
            CAMERA: list(cameras),
            COMMENTS: clean(comments),
        }
        payload = self._require_success(self._transport.exchange("POST", "/vision/videos/requests", document=document))
        found = (as_id(record.get(REQUEST_ID)) for record in objects(payload["data"]))
        return tuple(dict.fromkeys(number for number in found if number))

    def livestream(self, registration: str, cameras: Sequence[int]) -> tuple[str, ...]:
        """POST /vision/livestream/{registration}: short-lived links, one a camera; never to be kept.

        Raises:
            CameraOffline: the camera is off or has no link.
        """
        path = f"/vision/livestream/{quote(clean(registration), safe='')}"
        reply = self._transport.exchange("POST", path, document={CAMERA: list(cameras)})
        payload = _json(reply)
        if reply.status == 503 and error_mapping.is_api_error(payload):
            raise CameraOffline(error_mapping.server_message(payload))
        if 200 <= reply.status < 300 and isinstance(payload, list):
            return urls(payload)  # "an array of links": perhaps a bare one
        return urls(self._require_success(reply)["data"])

    def abort(self) -> None:
        """End the request under way, at once, with Stopped; later ones end so too. For any thread."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _require_success(self, reply: HttpResponse) -> Mapping[str, Any]:
        """The answer, if it is one of the API's that says "done"."""
        payload = _json(reply)
        if 200 <= reply.status < 300 and isinstance(payload, Mapping) and "data" in payload:
            if isinstance(payload.get("error"), Mapping):
                raise LinkDown(f"the API reports an error as if all were well: {error_mapping.server_message(payload)}")
            return payload
        raise error_mapping.error_for(reply, payload, self._now())


def _json(reply: HttpResponse) -> object:
    """The answer's JSON; None if it is none."""
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        return None


def query_pairs(filters: Filters, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    """The names and values of a query."""
    for name, value in filters.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, datetime):
                yield _QUERY_NAMES[name], format_timestamp(one, zone)
            elif one is not None:
                yield _QUERY_NAMES[name], clean(str(one))
