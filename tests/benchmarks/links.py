"""The cost of a breaking link: the share of sent bytes that must be sent again, on three roads, in virtual time.

The dispatcher is the real one. Every outage, however short, breaks the current request, as with a modem that reconnects
with another address. Compared with fixed batches of 20 clips.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median

from agent.config import UploadSettings
from agent.errors import LinkDown
from agent.model import Upload
from agent.vision.bodies import ProgressCallback
from tests.benchmarks.figures import Figure, at_most
from tests.benchmarks.roads import ROADS, Road, Stretch
from tests.benchmarks.simulated import Clock, MemorySpool, SimulatedClient, be_quiet, clips, dispatcher

DRIVE_SECONDS = 8 * 3600.0
FIXED_CLIPS = 20
# A minute of video each: what most recorders write in Full HD, and in 4K after cutting, near the API's limit.
SIZES = {"8 to 14 MB": (8_000_000, 14_000_000), "40 to 48 MB": (40_000_000, 48_000_000)}
# Connection, TLS and the answer.
OVERHEAD_SECONDS = 0.5
STALL_SECONDS = 60.0


class RoadClient(SimulatedClient):
    """The API through the link of a vehicle on a road.

    Attributes:
        sent_bytes, wasted_bytes: bytes of footage; those sent in requests that broke are wasted.
    """

    def __init__(self, trace: Iterator[Stretch], clock: Clock) -> None:
        self._trace = trace
        self._clock = clock
        self._here = next(trace)
        self._ends_at = self._here.seconds
        self.sent_bytes = 0.0
        self.wasted_bytes = 0.0

    def videos_status(self) -> None:
        self._transfer(0.0)

    def _upload(self, uploads: Sequence[Upload], inflation: float, progress: ProgressCallback) -> None:
        size_bytes = float(sum(upload.size_bytes for upload in uploads))
        left_bytes = self._transfer(size_bytes * inflation)
        sent_bytes = size_bytes - left_bytes / inflation
        self.sent_bytes += sent_bytes
        if left_bytes:
            self.wasted_bytes += sent_bytes
            progress(int(sent_bytes * inflation), 0)
            raise LinkDown("an outage")

    def _transfer(self, size_bytes: float) -> float:
        """Sends so many bytes and waits for the answer.

        Returns:
            How many of them did not get through.

        Raises:
            LinkDown: there was no link before the first of them.
        """
        self._clock.seconds += OVERHEAD_SECONDS
        self._move_on()
        if self._here.bytes_per_second == 0:
            self._give_up()
            raise LinkDown("no link")
        while True:
            needed_seconds = size_bytes / self._here.bytes_per_second
            left_seconds = self._ends_at - self._clock.seconds
            if needed_seconds <= left_seconds:
                self._clock.seconds += needed_seconds
                return 0.0
            size_bytes -= left_seconds * self._here.bytes_per_second
            self._clock.seconds = self._ends_at
            self._move_on()
            if self._here.bytes_per_second == 0:
                self._give_up()
                return size_bytes

    def _move_on(self) -> None:
        """To where the vehicle is by now."""
        while self._ends_at <= self._clock.seconds:
            self._here = next(self._trace)
            self._ends_at += self._here.seconds

    def _give_up(self) -> None:
        """The outage ends, or it takes too long."""
        self._clock.seconds = min(self._ends_at, self._clock.seconds + STALL_SECONDS)


def paced(road: Road, size_bytes: tuple[int, int], seed: int) -> RoadClient:
    """The daemon on this road, with more footage than it can send."""
    rng = random.Random(seed)
    clock = Clock()
    client = RoadClient(road.trace(2 * DRIVE_SECONDS, rng), clock)
    spool = MemorySpool(clips(4000, size_bytes, rng), clock)
    settings = UploadSettings(linger_seconds=0.0, batch_bytes=10**10)
    device = dispatcher(spool, client, settings, clock, rng)
    while clock.seconds < DRIVE_SECONDS and not spool.is_empty:
        pause_seconds = device.step()
        clock.seconds += pause_seconds
    return client


def fixed(road: Road, size_bytes: tuple[int, int], seed: int) -> RoadClient:
    """Batches of a fixed number of clips on the same road, each repeated until it has arrived."""
    rng = random.Random(seed)
    clock = Clock()
    client = RoadClient(road.trace(2 * DRIVE_SECONDS, rng), clock)
    waiting = iter(clips(4000, size_bytes, rng))
    while clock.seconds < DRIVE_SECONDS and (batch := list(islice(waiting, FIXED_CLIPS))):
        while clock.seconds < DRIVE_SECONDS:
            try:
                client.upload_bulk(batch)
                break
            except LinkDown:
                clock.seconds += 1.0
    return client


def measure(rounds: int) -> Iterator[Figure]:
    """The share of bytes wasted on each road."""
    be_quiet()
    for road in ROADS:
        for sizes, size_bytes in SIZES.items():
            ours = [paced(road, size_bytes, seed) for seed in range(rounds)]
            theirs = [fixed(road, size_bytes, seed) for seed in range(rounds)]
            yield Figure(
                f"wasted bytes, {road.name} road, clips of {sizes}",
                "%",
                [100 * client.wasted_bytes / client.sent_bytes for client in ours],
                at_most(10.0),
                f"{_middle(theirs):.0f} % in batches of {FIXED_CLIPS}",
            )


def _middle(clients: Sequence[RoadClient]) -> float:
    return 100 * median(client.wasted_bytes / client.sent_bytes for client in clients)
