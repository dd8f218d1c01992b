"""The endpoints of the contract, with fault injection."""

from __future__ import annotations

import asyncio
import base64
import hmac
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, BinaryIO

from aiohttp import web

from simulator.bodies import BodyError, Part, read_bulk, read_single
from simulator.faults import Fault, Faults
from simulator.responses import Outcome, abort_connection, error, format_results, too_many_requests, unprocessable
from simulator.settings import EXPLANATIONS, Settings, Status, StatusTimeline
from simulator.store import (
    Store,
    clip_name,
    format_timestamp,
    list_item,
    list_page,
    parse_timestamp,
    rejection_reason,
    validation_errors,
)
from simulator.webhooks import Webhooks

BASE = "/rest"
PIECE_BYTES = 256 * 1024
SMALL_BODY_BYTES = 64 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class LoggedRequest:
    """One request and how it was answered; status 0 if the connection was reset."""

    method: str
    path: str
    status: int = 0
    body_bytes: int = 0


# State of the current request. Not stored on the request: its keys differ between versions of aiohttp.
_logged: ContextVar[LoggedRequest] = ContextVar("_logged")
_fault: ContextVar[Fault | None] = ContextVar("_fault")


class Server:
    """The request handlers and their shared state. Used only by the thread of the event loop, unless stated otherwise.

    Args:
        settings: the account; may be replaced at any time, by any thread.
        store: the videos of the account.
        faults: the faults to inject.
        log: called with one line per request and per video.
    """

    def __init__(self, settings: Settings, store: Store, faults: Faults, log: Callable[[str], None]) -> None:
        self.settings = settings
        self.requests: list[LoggedRequest] = []
        self.dropped_until = 0.0
        self._store = store
        self._faults = faults
        self._log = log
        self._rate_limit = RateLimit(60.0)
        self._health_limit = RateLimit(settings.health_interval_seconds)
        self._webhooks = Webhooks(log)

    @property
    def webhook_calls(self) -> list[dict[str, Any]]:
        """The completed webhook calls, in order: url, signature, body, and status or error."""
        return self._webhooks.made

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._middleware], client_max_size=1 << 40)
        vision = f"{BASE}/vision"
        application.add_routes(
            [
                web.post(f"{vision}/video/upload", self._upload),
                web.post(f"{vision}/video/bulk-upload", self._bulk_upload),
                web.get(f"{vision}/videos/requests", self._list),
                web.post(f"{vision}/videos/requests", self._request_footage),
                web.get(f"{vision}/videos/status", self._list_statuses),
                web.post(f"{vision}/livestream/{{registration}}", self._livestream),
                web.get(f"{BASE}/health", self._health_check),
                web.post("/_simulator/faults", self._add_fault),
                web.delete("/_simulator/faults", self._clear_faults),
                web.get("/_simulator/received", self._list_received),
            ]
        )
        application.on_shutdown.append(self._cancel_webhooks)
        return application

    async def _cancel_webhooks(self, _application: web.Application) -> None:
        await self._webhooks.close()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run before every endpoint: faults, rate limit, credentials, the option, the size of the body."""
        if request.path.startswith("/_simulator/"):
            return await handler(request)
        logged = LoggedRequest(request.method, request.path)
        self.requests.append(logged)
        _logged.set(logged)
        if time.monotonic() < self.dropped_until:
            return abort_connection(request)
        fault = self._faults.take(("reset", "answer", "stall", "slow", "drop"), request.path, None)
        _fault.set(fault)
        if fault is not None and fault.action == "drop":
            self.dropped_until = time.monotonic() + fault.seconds
            return abort_connection(request)
        try:
            response = await self._handle(request, handler)
            lost = self._faults.take(("withhold", "truncate"), request.path, None)
            if lost is not None and isinstance(response, web.Response):
                response = await self._lose_response(request, response, lost)
        except ConnectionError:  # the client has disconnected
            response = abort_connection(request)
        if request.transport is None or request.transport.is_closing():
            self._log(f"{request.method} {request.path} -> reset")
            return response
        logged.status = response.status
        self._log(f"{request.method} {request.path} -> {response.status}")
        return response

    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await self._dispatch(request, handler)
        except web.HTTPException as exc:
            response = error(exc.status, exc.reason)
        except BodyError as exc:
            response = error(422, str(exc))
        except _FaultInjected as injected:
            response = injected.response
        # Closing a connection with unread data resets it, and the client might never see the response. So read what
        # was sent together with the headers.
        if request.content_length is not None and request.content_length <= SMALL_BODY_BYTES:
            await request.read()
        return response

    async def _dispatch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = _fault.get()
        takes_files = request.path.startswith(f"{BASE}/vision/video/")
        if fault is not None and fault.action != "slow" and (fault.after_bytes == 0 or not takes_files):
            return await self._inject_fault(request, fault)
        # Not `or`: a response is a mapping, and an empty one is falsy.
        refusal = self._refusal(request)
        return await handler(request) if refusal is None else refusal

    def _refusal(self, request: web.Request) -> web.Response | None:
        settings = self.settings
        if request.path == f"{BASE}/health":
            return None
        wait = self._rate_limit.admit(time.monotonic(), settings.requests_per_minute)
        if wait > 0:
            return too_many_requests(wait, "Too many requests")
        credentials = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, f"Basic {credentials}".encode()):
            return error(401, "Unauthenticated")
        if not settings.option_active:
            return error(403, "The Vision API option is not active")
        if (request.content_length or 0) > settings.max_body_bytes:
            return error(413, "Payload too large")
        return None

    async def _upload(self, request: web.Request) -> web.Response:
        with tempfile.TemporaryFile() as file:
            await self._receive(request, file)
            part = await asyncio.to_thread(read_single, file, request.headers.get("Content-Type", ""))
        await self._after_body(request, [part])
        wrong = validation_errors(part, None)
        if wrong:
            return unprocessable(wrong)
        outcome = await asyncio.to_thread(self._process_part, part, "upload")
        if outcome.error is not None:
            return unprocessable({"video_file": [outcome.error]})
        return web.json_response({"data": {"request_id": outcome.request_id}})

    async def _bulk_upload(self, request: web.Request) -> web.Response:
        with tempfile.TemporaryFile() as file:
            await self._receive(request, file)
            bulk = await asyncio.to_thread(read_bulk, file, request.headers.get("Content-Type", ""))
        await self._after_body(request, bulk.parts)
        wrong: dict[str, list[str]] = {}
        for index, part in enumerate(bulk.parts):
            wrong |= validation_errors(part, index)
        if not 1 <= len(bulk.parts) <= self.settings.max_records:
            wrong["data"] = [f"The data field must have between 1 and {self.settings.max_records} items."]
        if wrong:
            return unprocessable(wrong)
        outcomes = [await asyncio.to_thread(self._process_part, part, "bulk-upload") for part in bulk.parts]
        form = self.settings.answer
        if url := bulk.other_fields.get("webhook_url"):
            # The format of a webhook's body is published, unlike that of the response.
            results = format_results(outcomes, replace(form, grouping="grouped", key=None))
            self._webhooks.call(url, results, self.settings.api_key)
        told = [o for o in outcomes if self._faults.take(("omit_result",), request.path, [_outcome_name(o)]) is None]
        return web.json_response({"data": format_results(told, form)})

    async def _list(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(list_page(self._store.videos, request.query))
        except ValueError as exc:
            return error(422, str(exc))

    async def _request_footage(self, request: web.Request) -> web.Response:
        requested = await _json_object(request)
        try:
            registration, cameras = str(requested["registration"]), [int(camera) for camera in requested["camera"]]
            start = parse_timestamp(requested["start_timestamp"])
            end = start + timedelta(seconds=int(requested["duration"]))
        except (KeyError, TypeError, ValueError) as exc:
            return unprocessable({"data": [f"wrong or missing: {exc}"]})
        timeline = self.settings.request_timeline
        if registration in self.settings.offline:
            timeline = StatusTimeline(timeline.step_seconds, Status.TIMEOUT)
        times = (format_timestamp(start), format_timestamp(end))
        made = [
            self._store.request(registration, camera, times, str(requested.get("comments", "")), timeline)
            for camera in cameras
        ]
        return web.json_response({"data": [list_item(video) for video in made]})

    async def _list_statuses(self, _request: web.Request) -> web.Response:
        rows = [{"status_id": int(s), "name": s.name, "description": words} for s, words in EXPLANATIONS.items()]
        return web.json_response({"data": rows})

    async def _livestream(self, request: web.Request) -> web.Response:
        registration = request.match_info["registration"]
        if registration in self.settings.offline:
            return error(503, "Digital Video Recorder is not online")
        cameras = (await _json_object(request)).get("camera")
        if not isinstance(cameras, list):
            return unprocessable({"camera": ["The camera field must be an array of integers."]})
        links = [f"https://live.example.com/{registration}/{camera}.m3u8" for camera in cameras]
        return web.json_response({"data": links})

    async def _health_check(self, _request: web.Request) -> web.Response:
        wait = self._health_limit.admit(time.monotonic(), 1)
        if wait > 0:
            return too_many_requests(wait, "At most one request every 5 minutes")
        return web.json_response({"data": {"status": "ok"}})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.add(Fault.from_json(await request.json()))
        except (TypeError, ValueError) as exc:
            return error(422, str(exc))
        return web.json_response({"data": "armed"})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({"data": "cleared"})

    async def _list_received(self, _request: web.Request) -> web.Response:
        rows = [list_item(video) | {"sha256": video.sha256, "bytes": video.size_bytes} for video in self._store.videos]
        return web.json_response({"data": rows})

    async def _receive(self, request: web.Request, file: BinaryIO) -> None:
        """Read the body into a file, as far as the injected fault allows."""
        fault = _fault.get()
        logged = _logged.get()
        started = time.monotonic()
        async for piece in request.content.iter_chunked(PIECE_BYTES):
            file.write(piece)
            logged.body_bytes += len(piece)
            if fault is not None and fault.action == "slow":
                await asyncio.sleep(started + logged.body_bytes / fault.bytes_per_second - time.monotonic())
            elif fault is not None and fault.after_bytes is not None and logged.body_bytes >= fault.after_bytes:
                raise _FaultInjected(await self._inject_fault(request, fault))
        file.flush()

    async def _after_body(self, request: web.Request, parts: Iterable[Part]) -> None:
        """Inject the faults that apply after the body was read: those of the request, and those of a clip in it."""
        fault = _fault.get()
        if fault is None or fault.action == "slow":
            names = [_clip_name(part) for part in parts]
            fault = self._faults.take(("reset", "answer", "stall"), request.path, names)
        if fault is not None and fault.after_bytes is None:
            raise _FaultInjected(await self._inject_fault(request, fault))

    async def _lose_response(self, request: web.Request, response: web.Response, fault: Fault) -> web.StreamResponse:
        """Keep the response to a processed request from the client, then reset the connection."""
        if fault.action == "truncate" and isinstance(response.body, bytes):
            headers = {"Content-Type": response.content_type, "Content-Length": str(len(response.body))}
            truncated = web.StreamResponse(status=response.status, headers=headers)
            await truncated.prepare(request)
            await truncated.write(response.body[:-1])
        # Logged before the wait: the request has been processed.
        _logged.get().status = response.status
        await asyncio.sleep(fault.seconds)
        return abort_connection(request)

    async def _inject_fault(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.action == "stall":
            await asyncio.sleep(fault.seconds)
        if fault.action == "answer":
            return web.Response(
                status=fault.status,
                text=fault.content,
                content_type=fault.content_type,
                headers=dict(fault.headers),
            )
        return abort_connection(request)

    def _process_part(self, part: Part, endpoint: str) -> Outcome:
        """Store one file or reject it. Runs in a worker thread."""
        fields = part.fields
        fault = self._faults.take(("reject",), endpoint, [_clip_name(part)])
        request_id, wrong = (None, fault.content) if fault is not None else self._check_and_store(part, endpoint)
        self._log(f"  {_clip_name(part)}: {wrong or f'stored as {request_id}'}")
        return Outcome(
            fields["registration"],
            int(fields["camera"]),
            fields["start_timestamp"],
            fields["end_timestamp"],
            request_id,
            wrong,
        )

    def _check_and_store(self, part: Part, endpoint: str) -> tuple[int | None, str | None]:
        """The request_id, or why the file was rejected."""
        try:
            video = part.video.read() if part.video is not None else b""
        except BodyError:
            return None, "The video_file is not base64."
        wrong = rejection_reason(part.fields, video, self.settings)
        if wrong is not None:
            return None, wrong
        return self._store.take(part.fields, video, endpoint, self.settings).request_id, None


@dataclass
class _FaultInjected(Exception):  # not an error: leaves a handler with the response of a fault
    response: web.StreamResponse


async def _json_object(request: web.Request) -> dict[str, Any]:
    """The JSON body of a small request.

    Raises:
        BodyError: it is not a JSON object.
    """
    try:
        requested = await request.json()
    except ValueError as exc:
        raise BodyError(f"the body is not JSON: {exc}") from exc
    if not isinstance(requested, dict):
        raise BodyError("the body is not a JSON object")
    return requested


def _clip_name(part: Part) -> str:
    fields = part.fields
    return clip_name(fields.get("registration", ""), fields.get("camera", ""), fields.get("start_timestamp", ""))


def _outcome_name(outcome: Outcome) -> str:
    return clip_name(outcome.registration, str(outcome.camera), outcome.start)


class RateLimit:
    """Counts the admitted requests in a sliding window; a refused request does not count.

    Args:
        span_seconds: length of the window.
    """

    def __init__(self, span_seconds: float) -> None:
        self._span_seconds = span_seconds
        self._admitted: deque[float] = deque()

    def admit(self, now_seconds: float, limit: int) -> float:
        """Admit a request if the window has room.

        Args:
            now_seconds: monotonic time.
            limit: how many requests the window holds; at least 1.

        Returns:
            0 if the request is admitted, else the seconds until one would be.
        """
        while self._admitted and self._admitted[0] <= now_seconds - self._span_seconds:
            self._admitted.popleft()
        if len(self._admitted) < limit:
            self._admitted.append(now_seconds)
            return 0.0
        return self._admitted[-limit] + self._span_seconds - now_seconds
