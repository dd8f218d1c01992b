"""A fleet comes back at once after an outage and shares the account's limit of requests, in simulated time.

Each vehicle is a dispatcher of the daemon's own; none knows of another. Every request counts: the check before the
first upload, uploads, and those that are refused are answered 429 with the time after which there is room again.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from agent.clip import Upload
from agent.config import UploadSettings
from agent.delivery.dispatcher import Dispatcher
from agent.errors import LinkDown, RateLimited
from agent.vision.answers import FileResult
from agent.vision.bodies import Progress, no_progress
from agent.vision.client import Answer
from tests.benchmarks.figures import Figure, at_least, at_most
from tests.benchmarks.links import BASE64, taken
from tests.benchmarks.simulated import Clock, MemorySpool, be_quiet, clips, dispatcher

REQUESTS_PER_MINUTE = 1000
WINDOW_SECONDS = 60.0
ROUND_TRIP_SECONDS = 0.2
# Within this time each vehicle has a new clip and notices the outage.
NOTICED_SECONDS = 60.0

Counting = Literal["admitted", "all", "calendar"]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What comes back.

    Args:
        vehicles: how many there are.
        vehicles_key: `upload.vehicles` of their configurations.
        outage_seconds: how long the API could not be reached by any of them.
        clips: that each has waiting.
        size_bytes: of a clip, the smallest and the largest.
        megabits: of each vehicle's link, upwards, the slowest and the fastest.
        counting: what the API counts within the last minute: the requests it "admitted", or "all"; or it admits so
            many in each minute of the "calendar".
    """

    vehicles: int = 10_000
    vehicles_key: int = 10_000
    outage_seconds: float = 3600.0
    clips: int = 30
    size_bytes: tuple[int, int] = (8_000_000, 14_000_000)
    megabits: tuple[float, float] = (4.0, 12.0)
    counting: Counting = "admitted"


class Account:
    """What the API counts. Times are seconds since the outage began; until `back_at` the API cannot be reached."""

    def __init__(self, counting: Counting, back_at: float) -> None:
        self.back_at = back_at
        self._counting = counting
        self._counted: deque[float] = deque()
        self.checks = 0
        self.uploads = 0
        self.refused = 0
        self.last_upload_at = 0.0

    def request(self, at: float, *, upload: bool) -> None:
        """A request that comes at this time.

        Raises:
            LinkDown: the API cannot be reached.
            RateLimited: the account has made too many.
        """
        if at < self.back_at:
            raise LinkDown("the outage")
        begins_at = at // WINDOW_SECONDS * WINDOW_SECONDS if self._counting == "calendar" else at - WINDOW_SECONDS
        while self._counted and self._counted[0] < begins_at:
            self._counted.popleft()
        if len(self._counted) >= REQUESTS_PER_MINUTE:
            free_at = self._counted[-REQUESTS_PER_MINUTE] + WINDOW_SECONDS
            if self._counting == "calendar":
                free_at = begins_at + WINDOW_SECONDS
            if self._counting == "all":
                self._counted.append(at)
            self.refused += 1
            raise RateLimited("too many requests", free_at - at)
        self._counted.append(at)
        self.uploads += upload
        self.checks += not upload
        if upload:
            self.last_upload_at = at - self.back_at


class FleetClient:
    """The account's API, through the link of one vehicle."""

    def __init__(self, account: Account, clock: Clock, bytes_per_second: float) -> None:
        self._account = account
        self._clock = clock
        self._bytes_per_second = bytes_per_second

    def videos_status(self) -> None:
        self._account.request(self._clock.seconds, upload=False)
        self._clock.seconds += ROUND_TRIP_SECONDS

    def upload_single(self, upload: Upload, *, progress: Progress = no_progress) -> FileResult:
        self._upload([upload], 1.0)
        return taken(upload)

    def upload_bulk(
        self,
        uploads: Sequence[Upload],
        *,
        encoding: str = "json",
        webhook_url: str | None = None,
        progress: Progress = no_progress,
    ) -> Answer:
        self._upload(uploads, BASE64 if encoding == "json" else 1.0)
        return Answer({upload.id: taken(upload) for upload in uploads})

    def _upload(self, uploads: Sequence[Upload], inflation: float) -> None:
        self._account.request(self._clock.seconds, upload=True)
        size_bytes = sum(upload.size_bytes for upload in uploads)
        self._clock.seconds += ROUND_TRIP_SECONDS + size_bytes * inflation / self._bytes_per_second


@dataclass(slots=True)
class Vehicle:
    """One vehicle and when it got something through, in seconds since the API came back."""

    device: Dispatcher
    spool: MemorySpool
    clock: Clock
    back_at: float
    first_at: float = 0.0
    last_at: float = 0.0

    def step(self) -> float:
        """Returns when the next step is due."""
        before = self.spool.delivered
        pause_seconds = self.device.step()
        if self.spool.delivered > before:
            self.first_at = self.first_at or self.clock.seconds - self.back_at
            self.last_at = self.clock.seconds - self.back_at
        return self.clock.seconds + pause_seconds


@dataclass(frozen=True, slots=True)
class Return:
    """How a fleet came back."""

    account: Account
    vehicles: Sequence[Vehicle]

    @property
    def goodput_percent(self) -> float:
        """Requests that were admitted, of what the limit allows until the last upload of all."""
        return self._of_the_limit(self.account.checks + self.account.uploads)

    @property
    def uploads_percent(self) -> float:
        """The same for uploads alone."""
        return self._of_the_limit(self.account.uploads)

    @property
    def refused_percent(self) -> float:
        account = self.account
        return 100.0 * account.refused / (account.checks + account.uploads + account.refused)

    def p95_to_median(self, of: Callable[[Vehicle], float]) -> float:
        waits = [of(vehicle) for vehicle in self.vehicles]
        return quantiles(waits, n=20)[-1] / median(waits)

    def _of_the_limit(self, requests: int) -> float:
        return 100.0 * requests / (REQUESTS_PER_MINUTE * max(1.0, self.account.last_upload_at / 60.0))


def come_back(fleet: Fleet, seed: int) -> Return:
    """Lets the outage begin and end, and the fleet deliver everything."""
    rng = random.Random(seed)
    account = Account(fleet.counting, fleet.outage_seconds)
    vehicles = [_vehicle(fleet, account, rng) for _ in range(fleet.vehicles)]
    queue = [(vehicle.clock.seconds, number) for number, vehicle in enumerate(vehicles)]
    heapq.heapify(queue)
    while queue:
        at, number = heapq.heappop(queue)
        vehicle = vehicles[number]
        vehicle.clock.seconds = at
        next_at = vehicle.step()
        if not vehicle.spool.is_empty:
            heapq.heappush(queue, (next_at, number))
    assert all(vehicle.spool.delivered == fleet.clips for vehicle in vehicles)
    return Return(account, vehicles)


def _vehicle(fleet: Fleet, account: Account, rng: random.Random) -> Vehicle:
    clock = Clock()
    clock.seconds = rng.uniform(0.0, min(NOTICED_SECONDS, fleet.outage_seconds))
    spool = MemorySpool(clips(fleet.clips, fleet.size_bytes, rng), clock)
    client = FleetClient(account, clock, rng.uniform(*fleet.megabits) * 125_000.0)
    settings = UploadSettings(linger_seconds=0.0, vehicles=fleet.vehicles_key)
    device = dispatcher(spool, client, settings, clock, random.Random(rng.random()))
    return Vehicle(device, spool, clock, account.back_at)


def measure(rounds: int) -> Iterator[Figure]:
    """10,000 vehicles after an outage of an hour, whichever way the API counts."""
    be_quiet()
    returns = [come_back(Fleet(), seed) for seed in range(rounds)]
    yield Figure(
        "fleet of 10,000 after an outage: requests admitted, of the limit",
        "%",
        [back.goodput_percent for back in returns],
        at_least(90.0),
        f"uploads alone {median(back.uploads_percent for back in returns):.0f} %",
    )
    yield Figure(
        "answered 429, of all requests", "%", [back.refused_percent for back in returns], at_most(5.0)
    )
    yield Figure(
        "until a vehicle's last clip: 95th percentile to median",
        "×",
        [back.p95_to_median(lambda vehicle: vehicle.last_at) for back in returns],
        at_most(3.0),
    )
    yield Figure(
        "until a vehicle's first clip: 95th percentile to median",
        "×",
        [back.p95_to_median(lambda vehicle: vehicle.first_at) for back in returns],
        at_most(3.0),
    )
