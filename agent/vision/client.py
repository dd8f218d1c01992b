"""The Vision API's endpoints: typed values in and out; every error of a library becomes one of `agent.errors`.

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
from agent.vision.transport import Body, HttpResponse, Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FileResult", "RequestPage", "UploadResponse", "VideoRequest", "VisionClient"]

PAGE_ITEMS = 100


class Filters(TypedDict, total=False):
    """Which entries are listed: those that match all filters. Instants are aware; None is no filter."""

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
    """The response to an upload.

    Args:
        results: explicit results by upload id. A clip that is missing was accepted with the request, and nothing else
            is known about it yet.
        all_errors_matched: whether every error in the response is one of these results; if not, a missing result says
            nothing about the clip.
    """

    results: Mapping[int, FileResult]
    all_errors_matched: bool = True


class VisionClient:
    """The API. Belongs to one thread, except `abort`, which any thread may call.

    Args:
        api: address, credentials and timeouts.
        stopping: called several times a second during a request; once it returns true, the request raises Cancelled.
        now: Unix seconds, for responses that name an instant.

    Attributes:
        timezone: of the API's timestamps.

    In addition to its own errors, every method raises LinkDown, CredentialsRejected, FeatureDisabled, EndpointNotFound,
    RateLimited, RequestRejected or Cancelled, and no others.
    """

    def __init__(self, api: Api, *, stopping: ShouldStop = never_stop, now: Callable[[], float] = time.time) -> None:
        self.timezone = api.timezone
        self._stopping = stopping
        self._now = now
        self._is_verified = api.base_url.lower().startswith("https://")
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
            webhook_url: where the API is to send the results as well.
            progress: called with the bytes of the body sent so far and the position of the current clip, from 0.

        Raises:
            ClipUnreadable: a stored file is missing, was changed, or cannot be read.
            TooLarge: the server does not accept a request of this size.
        """
        kind = JsonBulkBody if encoding == "json" else MultipartBulkBody
        body = kind(uploads, self.timezone, webhook_url, progress=progress, stopping=self._stopping)
        payload, is_regular = self._upload("/vision/video/bulk-upload", body)
        results = match_results(parse_results(payload, self.timezone), uploads, self.timezone)
        errors = sum(bool(result.errors) for result in results.values())
        return UploadResponse(results, is_regular and count_errors(payload) <= errors)

    def upload_single(self, upload: Upload, *, progress: ProgressCallback = no_progress) -> UploadResponse:
        """POST /vision/video/upload: the response is about this clip.

        Raises:
            ClipUnreadable: the stored file is missing, was changed, or cannot be read.
            TooLarge: the server does not accept a file of this size.
        """
        body = SingleBody(upload, self.timezone, progress=progress, stopping=self._stopping)
        payload, is_regular = self._upload("/vision/video/upload", body)
        result = single_result(payload, upload)
        is_explicit = is_regular or result.errors or result.request_id
        return UploadResponse({upload.id: result} if is_explicit else {}, is_regular)

    def _upload(self, path: str, body: Body) -> tuple[object, bool]:
        """Sends footage.

        Returns:
            The JSON of the response, and whether it has the API's form. A response of success in another form (202,
            204, a bare list) counts only over TLS, where nobody else can answer: the clips may have been accepted, so
            that the list is asked before they are sent again.
        """
        response = self._transport.exchange("POST", path, body=body)
        payload = _json(response)
        if self._is_verified and 200 <= response.status < 300 and not error_mapping.is_api_error(payload):
            return payload, isinstance(payload, Mapping) and "data" in payload
        return self._require_success(response), True

    def videos_status(self) -> None:
        """GET /vision/videos/status: a static table. A small request that fails as an upload would."""
        self._require_success(self._transport.exchange("GET", "/vision/videos/status"))

    def requests(self, *, page: int = 1, limit: int = PAGE_ITEMS, **filters: Unpack[Filters]) -> RequestPage:
        """GET /vision/videos/requests: one page of the account's clips and clip requests, whoever made them."""
        query = [*query_pairs(filters, self.timezone), ("page", str(page)), ("limit", str(limit))]
        payload = self._require_success(self._transport.exchange("GET", "/vision/videos/requests", query=query))
        return parse_page(payload, self.timezone, page)

    def all_requests(self, **filters: Unpack[Filters]) -> Iterator[VideoRequest]:
        """The same for all pages; each is requested when its first entry is read."""
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
        """POST /vision/videos/requests: requests footage from a vehicle's cameras.

        Returns:
            The ids of the requests, as far as the response names them (its form is not published).
        """
        document = {
            REGISTRATION: clean(registration),
            START: format_timestamp(start, self.timezone),
            DURATION: duration_seconds,
            CAMERA: list(cameras),
            COMMENTS: clean(comments),
        }
        payload = self._require_success(self._transport.exchange("POST", "/vision/videos/requests", document=document))
        ids = (as_id(record.get(REQUEST_ID)) for record in objects(payload["data"]))
        return tuple(dict.fromkeys(id for id in ids if id))

    def livestream(self, registration: str, cameras: Sequence[int]) -> tuple[str, ...]:
        """POST /vision/livestream/{registration}: one short-lived link for each camera; not to be stored.

        Raises:
            CameraOffline: the camera is off, or has no connection.
        """
        path = f"/vision/livestream/{quote(clean(registration), safe='')}"
        response = self._transport.exchange("POST", path, document={CAMERA: list(cameras)})
        payload = _json(response)
        if response.status == 503 and error_mapping.is_api_error(payload):
            raise CameraOffline(error_mapping.server_message(payload))
        if 200 <= response.status < 300 and isinstance(payload, list):
            return urls(payload)  # "an array of links": perhaps a bare one
        return urls(self._require_success(response)["data"])

    def abort(self) -> None:
        """End the current request at once with Cancelled, and every later one. For any thread."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _require_success(self, response: HttpResponse) -> Mapping[str, Any]:
        """The JSON of a response that reports success; raises the error that any other stands for."""
        payload = _json(response)
        if 200 <= response.status < 300 and isinstance(payload, Mapping) and "data" in payload:
            if isinstance(payload.get("error"), Mapping):
                raise LinkDown(f"the API reports an error as a success: {error_mapping.server_message(payload)}")
            return payload
        raise error_mapping.error_for(response, payload, self._now())


def _json(response: HttpResponse) -> object:
    """The JSON of a response; None if it is not JSON."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def query_pairs(filters: Filters, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    """The filters as names and values of the query string."""
    for name, value in filters.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, datetime):
                yield _QUERY_NAMES[name], format_timestamp(one, zone)
            elif one is not None:
                yield _QUERY_NAMES[name], clean(str(one))
