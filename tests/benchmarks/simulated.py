"""Shared by the simulations: the real dispatcher in virtual time, with a spool in memory and clients without sockets.

Only these doubles of the API can simulate hours of 10,000 vehicles within seconds."""

from __future__ import annotations

import heapq
import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import structlog

from agent.config import UploadSettings
from agent.delivery.dispatcher import Dispatcher
from agent.model import ClipKey, Footage, State, Upload, Verdict
from agent.vision.bodies import ProgressCallback, no_progress
from agent.vision.client import UploadResponse
from agent.vision.responses import FileResult

START = datetime(2026, 7, 28, tzinfo=timezone.utc)
BASE64 = 4 / 3
_FILE = Path("/spool/clip.mp4")
_FOOTAGE = Footage(Path("/footage/clip.mp4"), 0, 0)


class Clock:
    """A clock that is moved only by the simulation."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class SimulatedClient(ABC):
    """The uploads of an API client, in simulated time."""

    def upload_single(self, upload: Upload, *, progress: ProgressCallback = no_progress) -> UploadResponse:
        return self._respond([upload], 1.0, progress)

    def upload_bulk(
        self,
        uploads: Sequence[Upload],
        *,
        encoding: str = "json",
        webhook_url: str | None = None,
        progress: ProgressCallback = no_progress,
    ) -> UploadResponse:
        return self._respond(uploads, BASE64 if encoding == "json" else 1.0, progress)

    def _respond(self, uploads: Sequence[Upload], inflation: float, progress: ProgressCallback) -> UploadResponse:
        self._upload(uploads, inflation, progress)
        return UploadResponse({upload.id: _result(upload) for upload in uploads})

    @abstractmethod
    def _upload(self, uploads: Sequence[Upload], inflation: float, progress: ProgressCallback) -> None:
        """Takes the time of one request.

        Args:
            uploads: its clips.
            inflation: bytes sent for each byte of footage.
            progress: as of the real client.

        Raises:
            DeliveryError: the upload fails.
        """


def _result(upload: Upload) -> FileResult:
    """The API's result for a clip that it has stored."""
    video = upload.key
    return FileResult(video.registration, video.camera, video.start, video.end, "1", ())


@dataclass(frozen=True, slots=True)
class _Row:
    """The fields of a record that the dispatcher reads."""

    id: int
    state: State
    reason: str
    footage: Footage = _FOOTAGE


class MemorySpool:
    """The interface of the spool that the dispatcher uses, in memory."""

    def __init__(self, clips: Iterable[Upload], now: Callable[[], float]) -> None:
        self._ready = {clip.id: clip for clip in clips}
        self._sending: dict[int, Upload] = {}
        self._later: list[tuple[float, int, Upload]] = []
        self._now = now
        self.delivered = 0
        self.refused = 0
        self.ledger = self

    @property
    def is_empty(self) -> bool:
        return not (self._ready or self._sending or self._later)

    def count_ready(self, most: int) -> int:
        self._wake()
        return min(most, len(self._ready))

    def claim(self, choose: Callable[[Iterator[Upload]], Sequence[Upload]]) -> list[Upload]:
        self._wake()
        chosen = list(choose(iter(self._ready.values())))
        self._sending = {clip.id: clip for clip in chosen}
        return chosen

    def release(self, ids: Iterable[int]) -> None:
        for id in ids:
            self._sending.pop(id, None)

    def settle(self, verdicts: Mapping[int, Verdict]) -> list[_Row]:
        rows = []
        for id, verdict in verdicts.items():
            self._sending.pop(id, None)
            clip = self._ready.pop(id)
            if verdict.state is State.WAITING:
                changes = {name: getattr(verdict, name) for name in ("attempts", "batch_failures", "max_batch_clips")}
                heapq.heappush(self._later, (self._now() + verdict.retry_in_seconds, id, replace(clip, **changes)))
            else:
                self.delivered += verdict.state is State.DELIVERED
                self.refused += verdict.state is not State.DELIVERED
            rows.append(_Row(id, verdict.state, verdict.reason))
        return rows

    def records(self, _states: Iterable[State]) -> list[_Row]:
        return []

    def next_due(self) -> float | None:
        return self._later[0][0] if self._later else None

    def _wake(self) -> None:
        woken = False
        while self._later and self._later[0][0] <= self._now():
            _, id, clip = heapq.heappop(self._later)
            self._ready[id] = clip
            woken = True
        if woken:
            self._ready = dict(sorted(self._ready.items()))


def clips(count: int, size_bytes: tuple[int, int], rng: random.Random) -> list[Upload]:
    """One clip per minute, with sizes between these."""
    return [_clip(id, rng.randint(*size_bytes)) for id in range(count)]


def _clip(id: int, size_bytes: int) -> Upload:
    return Upload(id, _video(id), "", _FILE, size_bytes, 0)


@cache
def _video(id: int) -> ClipKey:
    start = START + timedelta(minutes=id)
    return ClipKey("ABC1234X", 1, start, start + timedelta(seconds=60))


def dispatcher(
    spool: MemorySpool, client: object, settings: UploadSettings, clock: Clock, rng: random.Random
) -> Dispatcher:
    """The real dispatcher with this spool, client and clock."""
    parts: tuple[Any, Any] = (spool, client)
    return Dispatcher(*parts, settings, threading.Event(), rng=rng, monotonic=clock, now=clock)


def be_quiet() -> None:
    """Silence the log: a fleet would log too much."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
