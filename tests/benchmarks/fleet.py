"""A fleet reconnects at once after an outage and shares the account's rate limit, in virtual time.

Each vehicle is a real dispatcher; they do not coordinate. Every request counts: preflight requests and uploads.
Rejected ones get 429 with the time after which there is room again.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median, quantiles
from typing import Literal, get_args

from agent.config import UploadSettings
from agent.delivery.dispatcher import Dispatcher
from agent.errors import LinkDown, RateLimited
from agent.model import Upload
from agent.vision.bodies import ProgressCallback
from tests.benchmarks.figures import Figure, at_least, at_most
from tests.benchmarks.simulated import Clock, MemorySpool, SimulatedClient, be_quiet, clips, dispatcher

REQUESTS_PER_MINUTE = 1000
WINDOW_SECONDS = 60.0
ROUND_TRIP_SECONDS = 0.2
# Within this time each vehicle has a new clip and notices the outage.
NOTICED_SECONDS = 60.0

Counting = Literal["admitted", "all", "calendar"]
COUNTINGS: tuple[Counting, ...] = get_args(Counting)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The parameters of a simulation.

    Args:
        vehicles: number of vehicles.
        vehicles_key: `upload.vehicles` of their configurations.
        outage_seconds: how long no vehicle could reach the API.
        clips: number of waiting clips per vehicle.
        size_bytes: smallest and largest size of a clip.
        megabits: slowest and fastest uplink of a vehicle.
        counting: what the API counts within the last minute: the requests it "admitted", or "all"; or it admits so
            many in each minute of the "calendar".
    """

    vehicles: int = 10_000
    vehicles_key: int = 10_000
    outage_seconds: float = 1800.0
    clips: int = 30
    size_bytes: tuple[int, int] = (8_000_000, 14_000_000)
    megabits: tuple[float, float] = (20.0, 60.0)
    counting: Counting = "admitted"


class Account:
    """The rate limit of the API. Times are seconds since the outage began; the API is unreachable until `back_at`."""

    def __init__(self, counting: Counting, back_at: float) -> None:
        self.back_at = back_at
        self._counting = counting
        self._counted: deque[float] = deque()
        self.refused = 0
        self.admitted_at: list[float] = []

    def request(self, at: float) -> None:
        """A request at this time.

        Raises:
            LinkDown: the API cannot be reached.
            RateLimited: the account has made too many requests.
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
        self.admitted_at.append(at - self.back_at)


class FleetClient(SimulatedClient):
    """The API through the link of one vehicle."""

    def __init__(self, account: Account, clock: Clock, bytes_per_second: float) -> None:
        self._account = account
        self._clock = clock
        self._bytes_per_second = bytes_per_second

    def videos_status(self) -> None:
        self._account.request(self._clock.seconds)
        self._clock.seconds += ROUND_TRIP_SECONDS

    def _upload(self, uploads: Sequence[Upload], inflation: float, progress: ProgressCallback) -> None:
        self._account.request(self._clock.seconds)
        size_bytes = sum(upload.size_bytes for upload in uploads)
        self._clock.seconds += ROUND_TRIP_SECONDS + size_bytes * inflation / self._bytes_per_second


@dataclass(slots=True)
class Vehicle:
    """A vehicle, and when its requests succeeded, in seconds since the API came back."""

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
    """The result of a simulation."""

    account: Account
    vehicles: Sequence[Vehicle]

    def admitted_percent(self, done: float) -> float:
        """Requests that were admitted until this part of the vehicles, 0 to 1, was done, of what the limit allows.

        Whoever is done leaves room, which the others cannot know of.
        """
        lasts = sorted(vehicle.last_at for vehicle in self.vehicles)
        until = lasts[int(done * (len(lasts) - 1))]
        admitted = sum(at <= until for at in self.account.admitted_at)
        return 100.0 * admitted * WINDOW_SECONDS / (REQUESTS_PER_MINUTE * until)

    @property
    def refused_percent(self) -> float:
        account = self.account
        return 100.0 * account.refused / (len(account.admitted_at) + account.refused)

    def p95_to_median(self, of: Callable[[Vehicle], float]) -> float:
        waits = [of(vehicle) for vehicle in self.vehicles]
        return quantiles(waits, n=20)[-1] / median(waits)


def come_back(fleet: Fleet, seed: int) -> Return:
    """Simulate the outage, and let the fleet deliver everything."""
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
    """10,000 vehicles after an outage; the rounds also differ in how the API counts."""
    be_quiet()
    returns = [come_back(Fleet(counting=counting), seed) for seed, counting in zip(range(rounds), cycle(COUNTINGS))]
    later = ", ".join(
        f"{median(back.admitted_percent(done) for back in returns):.0f} % until {words}"
        for done, words in ((0.9, "nine in ten"), (1.0, "the last"))
    )
    yield Figure(
        "fleet of 10,000: requests admitted until half of it is done, of the limit",
        "%",
        [back.admitted_percent(0.5) for back in returns],
        at_least(90.0),
        f"{later} is done",
    )
    yield Figure(
        "fleet of 10,000: answered 429, of all requests",
        "%",
        [back.refused_percent for back in returns],
        at_most(5.0),
    )
    yield Figure(
        "fleet of 10,000: until all is delivered, 95th percentile",
        "×",
        [back.p95_to_median(lambda vehicle: vehicle.last_at) for back in returns],
        at_most(3.0),
        "of the median vehicle",
    )
    yield Figure(
        "fleet of 10,000: until the first clip is delivered, 95th percentile",
        "×",
        [back.p95_to_median(lambda vehicle: vehicle.first_at) for back in returns],
        at_most(3.0),
        "of the median vehicle",
    )
