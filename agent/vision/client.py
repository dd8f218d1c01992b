"""The Vision API's endpoints: typed values in and out, and every foreign error translated here, once.

Source: Fleet API reference 1.26.0622.1, Vision endpoints and `GET /health`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote

import urllib3
from requests import PreparedRequest, RequestException, Response, Timeout

from agent.clip import Upload
from agent.config import Api
from agent.errors import (
    CameraOffline,
    CredentialsRejected,
    DeliveryError,
    LinkDown,
    OptionInactive,
    RateLimited,
    RequestRejected,
    Stopped,
    TooLarge,
    WrongAddress,
)
from agent.vision.answers import (
    FileResult,
    camera_number,
    error_message,
    item_errors,
    match,
    read_results,
    single_result,
)
from agent.vision.bodies import Body, JsonBulkBody, MultipartBulkBody, Progress, SingleBody, Stopping, no_progress
from agent.vision.readings import read_timestamp, timestamp
from agent.vision.transport import LiveSocket, open_session

ANSWER_BYTES = 4 << 20
LIST_PAGES = 50
LIST_LIMIT = 100
RETRY_MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a bulk upload: a result for each clip of which the API said something explicit."""

    results: Mapping[int, FileResult]


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One entry of the account's list of videos; what the API leaves out is None."""

    request_id: str | None
    registration: str | None
    camera: int | None
    status_id: int | None
    url: str | None
    start: datetime | None
    end: datetime | None
    comments: str | None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """One page of the list."""

    items: tuple[VideoRequest, ...]
    current_page: int
    last_page: int
    total: int


class VisionClient:
    """The API. One thread at a time may call it; `abort` may be called from any other.

    Args:
        api: where it is, and the credentials.
        stopping: asked while a body is sent.
        now: Unix seconds, for answers that name an instant.

    Every method raises, beside what it names: LinkDown, CredentialsRejected, OptionInactive, WrongAddress,
    RateLimited, RequestRejected, Stopped.
    """

    def __init__(self, api: Api, *, stopping: Stopping = lambda: False, now: Callable[[], float] = time.time) -> None:
        self._api = api
        self._base = api.base_url.rstrip("/")
        self._stopping = stopping
        self._now = now
        self._live = LiveSocket(api.stall_timeout_seconds)
        self._session = open_session(api, self._live)

    def upload_bulk(
        self,
        uploads: Sequence[Upload],
        *,
        encoding: Literal["json", "multipart"],
        webhook_url: str | None = None,
        progress: Progress = no_progress,
    ) -> Answer:
        """POST /vision/video/bulk-upload: at most 100 clips.

        Raises:
            ClipUnreadable: a stored file is gone or changed.
            TooLarge: the server does not take a body of this size.
        """
        kind = JsonBulkBody if encoding == "json" else MultipartBulkBody
        body = kind(uploads, self._api.timezone, webhook_url, progress=progress, stopping=self._stopping)
        payload = self._call("POST", "/vision/video/bulk-upload", body=body)
        return Answer(match(read_results(payload.get("data"), self._api.timezone), uploads))

    def upload_single(self, upload: Upload, *, progress: Progress = no_progress) -> FileResult:
        """POST /vision/video/upload: the answer is about this clip.

        Raises:
            ClipUnreadable: the stored file is gone or changed.
            TooLarge: the server does not take a file of this size.
        """
        body = SingleBody([upload], self._api.timezone, progress=progress, stopping=self._stopping)
        return single_result(self._call("POST", "/vision/video/upload", body=body), upload)

    def videos_status(self) -> dict[int, str]:
        """GET /vision/videos/status: the table of status codes. Costs little: whether all is well is known by it."""
        data = self._call("GET", "/vision/videos/status").get("data")
        rows = data if isinstance(data, list) else []
        found = {}
        for row in rows:
            if isinstance(row, Mapping):
                number = camera_number(row.get("status_id", row.get("id")))
                if number is not None:
                    found[number] = str(row.get("name", row.get("description", "")))
        return found

    def requests(
        self,
        *,
        registration: str | None = None,
        request_ids: Sequence[str] = (),
        camera: int | None = None,
        status_id: int | None = None,
        start_from: datetime | None = None,
        start_to: datetime | None = None,
        page: int = 1,
        limit: int = LIST_LIMIT,
    ) -> RequestPage:
        """GET /vision/videos/requests: one page of the account's videos and requests, whoever made them."""
        zone = self._api.timezone
        query: dict[str, Any] = {
            "filter[registration]": registration,
            "filter[request_id][]": list(request_ids) or None,
            "filter[camera]": camera,
            "filter[status_id]": status_id,
            "filter[video_start_ts_from]": timestamp(start_from, zone) if start_from else None,
            "filter[video_start_ts_to]": timestamp(start_to, zone) if start_to else None,
            "page": page,
            "limit": limit,
        }
        payload = self._call("GET", "/vision/videos/requests", query=query)
        data, meta = payload.get("data"), payload.get("meta")
        rows = data if isinstance(data, list) else []
        meta = meta if isinstance(meta, Mapping) else {}
        return RequestPage(
            tuple(self._video_request(row) for row in rows if isinstance(row, Mapping)),
            current_page=camera_number(meta.get("current_page")) or page,
            last_page=camera_number(meta.get("last_page")) or page,
            total=camera_number(meta.get("total")) or len(rows),
        )

    def all_requests(self, *, start_from: datetime, start_to: datetime) -> Iterator[VideoRequest]:
        """All pages of the videos that start between two instants, up to 5,000 of them."""
        for page in range(1, LIST_PAGES + 1):
            found = self.requests(start_from=start_from, start_to=start_to, page=page)
            yield from found.items
            if page >= found.last_page or not found.items:
                return

    def create_request(
        self, registration: str, start: datetime, duration_seconds: int, cameras: Sequence[int], comments: str = ""
    ) -> tuple[str, ...]:
        """POST /vision/videos/requests: asks the vehicle's camera for footage.

        Returns:
            The numbers of the requests that were made, as far as the answer names them.
        """
        payload = self._call(
            "POST",
            "/vision/videos/requests",
            json_body={
                "registration": registration,
                "start_timestamp": timestamp(start, self._api.timezone),
                "duration": duration_seconds,
                "camera": list(cameras),
                "comments": comments,
            },
        )
        return tuple(_request_ids(payload.get("data")))

    def livestream(self, registration: str, cameras: Sequence[int]) -> tuple[str, ...]:
        """POST /vision/livestream/{registration}: short-lived links, one a camera; never keep them.

        Raises:
            CameraOffline: the camera has no link now.
        """
        path = f"/vision/livestream/{quote(registration, safe='')}"
        data = self._call("POST", path, json_body={"camera": list(cameras)}, livestream=True).get("data")
        return tuple(_links(data))

    def health(self) -> bool:
        """GET /health: whether the API says that it is well. No credentials; at most once in 5 minutes."""
        self._call("GET", "/health", authenticated=False)
        return True

    def abort(self) -> None:
        """Ends a request that another thread is waiting for."""
        self._live.cut()

    def close(self) -> None:
        self._session.close()

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json_body: Mapping[str, Any] | None = None,
        body: Body | None = None,
        authenticated: bool = True,
        livestream: bool = False,
    ) -> Mapping[str, Any]:
        try:
            with self._session.request(
                method,
                self._base + path,
                params={key: value for key, value in (query or {}).items() if value is not None},
                json=json_body,
                data=body,
                headers={"Content-Type": body.content_type} if body is not None else {},
                auth=None if authenticated else _no_credentials,
                timeout=(self._api.connect_timeout_seconds, self._api.stall_timeout_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = response.raw.read(ANSWER_BYTES + 1, decode_content=True)
        except DeliveryError:
            self._session.close()
            raise
        except (
            RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            UnicodeError,
            ValueError,
        ) as exc:
            self._session.close()
            if self._stopping():
                raise Stopped("asked to stop") from exc
            raise LinkDown(_link_trouble(exc, self._base)) from exc
        return self._understand(response, content, livestream=livestream)

    def _understand(self, response: Response, content: bytes, *, livestream: bool) -> Mapping[str, Any]:
        """The answer's JSON, or the decision that its status stands for.

        An answer that is not the API's JSON comes from something in between (a captive portal, a proxy): whatever
        its status says, it decides nothing but that the link is down. A 413 is the exception: it usually comes from
        the web server in front of the API.
        """
        status = response.status_code
        payload = _parse(content)
        said = error_message(payload) or f"HTTP {status}"
        if status == 413:
            raise TooLarge(f"the server takes no body of this size ({said})")
        if not isinstance(payload, Mapping) or not ("data" in payload or "error" in payload or "errors" in payload):
            if status == 200 and response.request.url == f"{self._base}/health":
                return {}
            raise LinkDown(_not_the_api(response))
        if status in (200, 201) and "data" in payload and not payload.get("error"):
            return payload
        match status:
            case 401:
                raise CredentialsRejected(
                    f"the API refuses the credentials or they are for another region ({said}): check api.username, "
                    f"the password and api.region"
                )
            case 403:
                raise OptionInactive(
                    f"the account has no active Vision API option ({said}): have it activated; it takes up to 10 "
                    f"minutes to work"
                )
            case 404:
                raise WrongAddress(f"{self._base} is not the address of the API ({said}): check api.region or base_url")
            case 429:
                raise RateLimited("the account's request limit is reached", self._retry_after(response.headers))
            case 503 if livestream:
                raise CameraOffline(said)
            case _ if 400 <= status < 500:
                raise RequestRejected(said, item_errors(payload))
        raise LinkDown(f"the API is in trouble: HTTP {status} ({said})")

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait, from any of the headers that say so; instants count against the answer's own Date."""
        for name in ("X-RateLimit-Retry-After-Seconds", "Retry-After"):
            seconds = _number(headers.get(name))
            if seconds is not None:
                return min(seconds, RETRY_MOST_SECONDS)
        answered = _instant(headers.get("Date")) or self._now()
        instants = (_number(headers.get("X-RateLimit-Retry-At")), _instant(headers.get("Retry-After")))
        for instant in instants:
            if instant is not None:
                return min(max(0.0, instant - answered), RETRY_MOST_SECONDS)
        return None

    def _video_request(self, row: Mapping[str, Any]) -> VideoRequest:
        def text(name: str) -> str | None:
            value = row.get(name)
            return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None

        zone = self._api.timezone
        return VideoRequest(
            request_id=text("request_id"),
            registration=text("registration"),
            camera=camera_number(row.get("camera")),
            status_id=camera_number(row.get("status_id")),
            url=text("url"),
            start=read_timestamp(row.get("start_timestamp"), zone),
            end=read_timestamp(row.get("end_timestamp"), zone),
            comments=text("comments"),
        )


def _no_credentials(request: PreparedRequest) -> PreparedRequest:
    return request


def _parse(content: bytes) -> object:
    if len(content) > ANSWER_BYTES:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _not_the_api(response: Response) -> str:
    status = response.status_code
    if 300 <= status < 400:
        return (
            f"the link is not open to the internet: a redirect came instead of the API's answer (a login page of the "
            f"network?): {response.headers.get('Location', '')[:200]}"
        )
    kind = response.headers.get("Content-Type", "nothing known").split(";")[0][:60]
    return (
        f"something between here and the API answered in its place (HTTP {status}, {kind} instead of the API's JSON): "
        f"a login page of the network, or a proxy"
    )


def _link_trouble(exc: BaseException, base: str) -> str:
    """What happened on the way, for a technician; the whole chain of causes is looked at, as libraries wrap."""
    chain = _chain(exc)
    text = " / ".join(str(cause) for cause in chain)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        detail = text.split("CERTIFICATE_VERIFY_FAILED] ")[-1].split(" (_ssl")[0]
        clock = datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return f"the server's certificate is not accepted ({detail}); this device's clock says {clock}: is that right?"
    if any(isinstance(cause, urllib3.exceptions.NameResolutionError) for cause in chain):
        return f"the name in {base} cannot be resolved: no internet, or no DNS"
    if any(isinstance(cause, (TimeoutError, Timeout)) for cause in chain):
        return f"nothing moved on the link to {base} for too long"
    last = str(chain[-1]) or type(chain[-1]).__name__
    return f"no connection to {base}: {last[:200]}"


def _chain(exc: BaseException) -> list[BaseException]:
    chain = [exc]
    while len(chain) < 10:
        last = chain[-1]
        reason = getattr(last, "reason", None)
        following = last.__cause__ or last.__context__ or (reason if isinstance(reason, BaseException) else None)
        if following is None or following in chain:
            break
        chain.append(following)
    return chain


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e12 else None


def _instant(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError):
        return None


def _request_ids(data: object) -> Iterator[str]:
    rows = data if isinstance(data, list) else [data]
    for row in rows:
        if isinstance(row, Mapping) and isinstance(row.get("request_id"), (int, str)):
            yield str(row["request_id"])


def _links(data: object) -> Iterator[str]:
    if isinstance(data, str) and data.startswith(("http://", "https://", "rtmp", "rtsp", "wss:")):
        yield data
    elif isinstance(data, list):
        for item in data[:100]:
            yield from _links(item)
    elif isinstance(data, Mapping):
        for item in list(data.values())[:100]:
            yield from _links(item)
