"""The endpoints of the contract, and the faults that may befall a request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from agent.simulator import timestamps
from agent.simulator.answers import Outcome, shape
from agent.simulator.bodies import BodyError, Part, read_json, read_multipart, read_single
from agent.simulator.faults import Fault, Faults
from agent.simulator.lifecycle import EXPLANATIONS, Life, Status
from agent.simulator.rate_limit import RateLimit
from agent.simulator.settings import Settings
from agent.simulator.store import ReceivedVideo, Store, complaint, invalid, name_of

BASE = "/rest"
PIECE_BYTES = 256 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(slots=True)
class LoggedRequest:
    """One request, as it was answered; status 0 if the connection was cut."""

    method: str
    path: str
    status: int = 0
    body_bytes: int = 0


class Server:
    """The handlers, and what they share.

    Args:
        store: the account's videos.
        faults: what is to go wrong.
        tell: called with one sentence for a person, per request and per video.
    """

    def __init__(self, settings: Settings, store: Store, faults: Faults, tell: Callable[[str], None]) -> None:
        self.settings = settings
        self.requests: list[LoggedRequest] = []
        self.webhook_calls: list[dict[str, Any]] = []
        self.dropped_until = 0.0
        self._store = store
        self._faults = faults
        self._tell = tell
        self._rate = RateLimit(60.0)
        self._health = RateLimit(settings.health_interval_seconds)
        self._webhooks: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=1 << 40)
        vision = f"{BASE}/vision"
        application.add_routes(
            [
                web.post(f"{vision}/video/upload", self._upload),
                web.post(f"{vision}/video/bulk-upload", self._bulk_upload),
                web.get(f"{vision}/videos/requests", self._list),
                web.post(f"{vision}/videos/requests", self._request_footage),
                web.get(f"{vision}/videos/status", self._statuses),
                web.post(f"{vision}/livestream/{{registration}}", self._livestream),
                web.get(f"{BASE}/health", self._say_healthy),
                web.post("/_simulator/faults", self._add_fault),
                web.delete("/_simulator/faults", self._clear_faults),
                web.get("/_simulator/received", self._received),
            ]
        )
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """What precedes every endpoint: faults, the rate limit, credentials, the option, the size of the body."""
        if request.path.startswith("/_simulator/"):
            return await handler(request)
        logged = LoggedRequest(request.method, request.path)
        self.requests.append(logged)
        request["logged"] = logged
        if time.monotonic() < self.dropped_until:
            return _cut(request)
        fault = self._faults.take(("reset", "answer", "stall", "slow", "drop"), request.path, None)
        request["fault"] = fault
        if fault is not None and fault.action == "drop":
            self.dropped_until = time.monotonic() + fault.seconds
            return _cut(request)
        if fault is not None and fault.after_bytes == 0:
            return await self._befall(request, fault)
        try:
            # Not `or`: an answer is a mapping, and an empty one counts as false.
            refusal = self._refusal(request)
            response = await handler(request) if refusal is None else refusal
        except web.HTTPNotFound:
            response = _error(404, "Not found")
        except _Befallen as befallen:
            response = befallen.response
        logged.status = response.status
        self._tell(f"{request.method} {request.path} → {response.status}")
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        settings = self.settings
        if request.path == f"{BASE}/health":
            return None
        wait = self._rate.wait_seconds(time.monotonic(), settings.requests_per_minute)
        if wait > 0:
            headers = {
                "X-RateLimit-Retry-After-Seconds": str(int(wait) + 1),
                "X-RateLimit-Retry-At": str(int(time.time() + wait) + 1),
            }
            return _error(429, "Too many requests", headers)
        credentials = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Basic {credentials}"):
            return _error(401, "Unauthenticated")
        if not settings.option_active:
            return _error(403, "The Vision API option is not active")
        if (request.content_length or 0) > settings.max_body_bytes:
            return _error(413, "Payload too large")
        return None

    async def _upload(self, request: web.Request) -> web.Response:
        with tempfile.TemporaryFile() as file:
            await self._receive(request, file)
            try:
                part = read_single(file, request.headers.get("Content-Type", ""))
            except BodyError as exc:
                return _error(422, str(exc))
        await self._after_body(request, [part])
        wrong = invalid(part, None)
        if wrong:
            return _invalid(wrong)
        outcome = self._take(part, "upload")
        if outcome.error is not None:
            return _invalid({"video_file": [outcome.error]})
        return web.json_response({"data": {"request_id": outcome.request_id}})

    async def _bulk_upload(self, request: web.Request) -> web.Response:
        outside: dict[str, str] = {}
        content_type = request.headers.get("Content-Type", "")
        outcomes: list[Outcome] = []
        with tempfile.TemporaryFile() as file:
            await self._receive(request, file)

            def parts() -> Iterator[Part]:
                file.seek(0)
                if content_type.startswith("application/json"):
                    return read_json(file, outside)
                return read_multipart(file, content_type, outside)

            try:
                wrong: dict[str, list[str]] = {}
                names: list[str] = []
                for index, part in enumerate(parts()):
                    wrong |= invalid(part, index)
                    names.append(_name(part))
                if not names or len(names) > self.settings.max_records:
                    wrong["data"] = [f"The data field must have between 1 and {self.settings.max_records} items."]
                await self._after_names(request, names)
                if wrong:
                    return _invalid(wrong)
                outcomes = [self._take(part, "bulk-upload") for part in parts()]
            except BodyError as exc:
                return _error(422, str(exc))
        told = [o for o in outcomes if self._faults.take(("silence",), request.path, [_name_of(o)]) is None]
        self._call_webhook(outside.get("webhook_url"), outcomes)
        return web.json_response({"data": shape(told, self.settings.answer)})

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        videos = [video for video in self._store.videos if _fits(video, query)]
        limit = max(1, int(query.get("limit", "15")))
        page = max(1, int(query.get("page", "1")))
        shown = videos[(page - 1) * limit : page * limit]
        meta = {
            "from": (page - 1) * limit + 1 if shown else None,
            "to": (page - 1) * limit + len(shown) if shown else None,
            "current_page": page,
            "per_page": limit,
            "last_page": max(1, -(-len(videos) // limit)),
            "total": len(videos),
        }
        return web.json_response({"data": [_listed(video) for video in shown], "meta": meta})

    async def _request_footage(self, request: web.Request) -> web.Response:
        asked = await request.json()
        try:
            registration, cameras = str(asked["registration"]), [int(camera) for camera in asked["camera"]]
            start = timestamps.read(asked["start_timestamp"])
            end = start + timedelta(seconds=int(asked["duration"]))
        except (KeyError, TypeError, ValueError) as exc:
            return _invalid({"data": [f"wrong or missing: {exc}"]})
        life = self.settings.request_life
        if registration in self.settings.offline:
            life = Life(life.step_seconds, Status.TIMEOUT)
        times = (timestamps.write(start), timestamps.write(end))
        made = [
            self._store.request(registration, camera, times, str(asked.get("comments", "")), life) for camera in cameras
        ]
        return web.json_response({"data": [_listed(video) for video in made]})

    async def _statuses(self, _request: web.Request) -> web.Response:
        rows = [{"status_id": int(s), "name": s.name, "description": words} for s, words in EXPLANATIONS.items()]
        return web.json_response({"data": rows})

    async def _livestream(self, request: web.Request) -> web.Response:
        registration = request.match_info["registration"]
        if registration in self.settings.offline:
            return _error(503, "Digital Video Recorder is not online")
        asked = await request.json()
        links = [f"https://live.example.com/{registration}/{camera}.m3u8" for camera in asked.get("camera", [])]
        return web.json_response({"data": links})

    async def _say_healthy(self, _request: web.Request) -> web.Response:
        if self._health.wait_seconds(time.monotonic(), 1) > 0:
            return _error(429, "At most one request every 5 minutes")
        return web.json_response({"data": {"status": "ok"}})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.add(Fault.from_json(await request.json()))
        except (TypeError, ValueError) as exc:
            return _error(422, str(exc))
        return web.json_response({"data": "armed"})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({"data": "cleared"})

    async def _received(self, _request: web.Request) -> web.Response:
        rows = [_listed(video) | {"sha256": video.sha256, "bytes": video.size_bytes} for video in self._store.videos]
        return web.json_response({"data": rows})

    async def _receive(self, request: web.Request, file: BinaryIO) -> None:
        """Reads the body into a file, as well as the fault lets it."""
        fault: Fault | None = request["fault"]
        logged: LoggedRequest = request["logged"]
        started = time.monotonic()
        async for piece in request.content.iter_chunked(PIECE_BYTES):
            file.write(piece)
            logged.body_bytes += len(piece)
            if fault is not None and fault.action == "slow":
                await asyncio.sleep(started + logged.body_bytes / fault.bytes_per_second - time.monotonic())
            elif fault is not None and fault.after_bytes is not None and logged.body_bytes >= fault.after_bytes:
                raise _Befallen(await self._befall(request, fault))
        file.flush()

    async def _after_body(self, request: web.Request, parts: Iterable[Part]) -> None:
        await self._after_names(request, [_name(part) for part in parts])

    async def _after_names(self, request: web.Request, names: list[str]) -> None:
        """The faults that strike when the body was read: those of the request, and those of a clip in it."""
        fault: Fault | None = request["fault"]
        if fault is None or fault.action == "slow":
            fault = self._faults.take(("reset", "answer", "stall"), request.path, names)
        if fault is not None and fault.after_bytes is None:
            raise _Befallen(await self._befall(request, fault))

    async def _befall(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.action == "stall":
            await asyncio.sleep(fault.seconds)
        if fault.action == "answer":
            return web.Response(
                status=fault.status,
                text=fault.content,
                content_type=fault.content_type,
                headers=dict(fault.headers),
            )
        return _cut(request)

    def _take(self, part: Part, endpoint: str) -> Outcome:
        fields = part.fields
        fault = self._faults.take(("complain",), endpoint, [_name(part)])
        error = fault.content if fault is not None else complaint(part, self.settings)
        request_id = None if error is not None else self._store.take(part, endpoint, self.settings).request_id
        self._tell(f"  {_name(part)}: {error or f'taken as {request_id}'}")
        return Outcome(
            fields["registration"],
            int(fields["camera"]),
            fields["start_timestamp"],
            fields["end_timestamp"],
            request_id,
            error,
        )

    def _call_webhook(self, url: str | None, outcomes: list[Outcome]) -> None:
        if not url:
            return
        if urlsplit(url).hostname not in LOOPBACK:
            self._tell(f"  webhook {url} is not called: only addresses on this computer are")
            return
        body = json.dumps(shape(outcomes, self.settings.answer)).encode()
        task = asyncio.get_running_loop().create_task(self._post_webhook(url, body))
        self._webhooks.add(task)
        task.add_done_callback(self._webhooks.discard)

    async def _post_webhook(self, url: str, body: bytes) -> None:
        signature = hmac.new(self.settings.api_key.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Webhook-Signature": signature, "Content-Type": "application/json"}
        call: dict[str, Any] = {"url": url, "signature": signature, "body": body.decode()}
        try:
            timeout = aiohttp.ClientTimeout(total=5.0)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                answer = await session.post(url, data=body, headers=headers)
                call["status"] = answer.status
        except (aiohttp.ClientError, TimeoutError) as exc:
            call["error"] = str(exc)
        self.webhook_calls.append(call)


@dataclass
class _Befallen(Exception):  # not an error: the way out of a handler that a fault has struck
    response: web.StreamResponse = field()


def _cut(request: web.Request) -> web.Response:
    """Resets the connection; the response that is returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        transport.abort()
    return web.Response(status=500)


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=code, headers=headers)


def _invalid(errors: dict[str, list[str]]) -> web.Response:
    message = "; ".join(words[0] for words in errors.values())[:300]
    body = {"error": {"code": 422, "message": message}, "errors": errors, "data": None}
    return web.json_response(body, status=422)


def _name(part: Part) -> str:
    fields = part.fields
    return name_of(fields.get("registration", ""), fields.get("camera", ""), fields.get("start_timestamp", ""))


def _name_of(outcome: Outcome) -> str:
    return name_of(outcome.registration, str(outcome.camera), outcome.start)


def _listed(video: ReceivedVideo) -> dict[str, Any]:
    status = video.status()
    url = f"https://videos.example.com/{video.request_id}.mp4" if status == Status.COMPLETE else None
    start, end = timestamps.read(video.start), timestamps.read(video.end)
    return {
        "request_id": video.request_id,
        "registration": video.registration,
        "camera": video.camera,
        "status_id": status,
        "url": url,
        "start_timestamp": video.start,
        "end_timestamp": video.end,
        "duration": int((end - start).total_seconds()),
        "comments": video.comments,
    }


def _fits(video: ReceivedVideo, query: Any) -> bool:
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
    )
    return (
        (not ids or str(video.request_id) in ids)
        and all(query.get(name, value) == value for name, value in exact.items())
        and all(query.get(low, value) <= value <= query.get(high, value) for low, high, value in bounds)
    )
