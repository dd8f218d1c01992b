"""How much the next request carries: about as many seconds of the link as it may take. Pure.

A request that breaks is sent again from its first byte. So it must be short where links break often, and it need not be
where they hold.
"""

from __future__ import annotations

import math

# Before anything is known: 1 Mb/s, believed as if it had been seen for so long.
FIRST_BYTES_PER_SECOND = 125_000.0
FIRST_SECONDS = 10.0
# The link of a vehicle is another one after a minute on the road. How often it breaks belongs to the whole road.
GOODPUT_SECONDS = 60.0
BREAKS_SECONDS = 1800.0
# As if the link had broken once in so many requests before.
FIRST_BREAK_REQUESTS = 20
# A break costs half a request on average: a tenth of the time between two breaks keeps the waste near a twentieth.
PART_OF_THE_TIME_BETWEEN_BREAKS = 0.1
MIN_SECONDS = 10.0


class BatchSizer:
    """Learns what the link carries and how long it holds, from the uploads of this run.

    Args:
        request_seconds: how long a request may take at most.
    """

    def __init__(self, request_seconds: float) -> None:
        self._most_seconds = request_seconds
        self._bytes = FIRST_BYTES_PER_SECOND * FIRST_SECONDS
        self._seconds = FIRST_SECONDS
        self._sending_seconds = FIRST_BREAK_REQUESTS * request_seconds
        self._breaks = 1.0

    def record_success(self, size_bytes: float, seconds: float) -> None:
        """An upload went through. `size_bytes`: of footage, here and below."""
        seconds = max(seconds, 0.001)
        fades = math.exp(-seconds / GOODPUT_SECONDS)
        self._bytes = self._bytes * fades + size_bytes
        self._seconds = self._seconds * fades + seconds
        fades = math.exp(-seconds / BREAKS_SECONDS)
        self._sending_seconds = self._sending_seconds * fades + seconds
        self._breaks *= fades

    def record_failure(self, size_bytes: float, seconds: float) -> None:
        """An upload broke after so many bytes and seconds; standing still before it was given up counts too."""
        self.record_success(size_bytes, seconds)
        self._breaks += 1.0

    @property
    def bytes_per_second(self) -> float:
        return self._bytes / self._seconds

    @property
    def seconds(self) -> float:
        """How long the next request should take."""
        held_seconds = self._sending_seconds / self._breaks if self._breaks > 0 else math.inf
        shortest = min(MIN_SECONDS, self._most_seconds)
        return min(self._most_seconds, max(shortest, PART_OF_THE_TIME_BETWEEN_BREAKS * held_seconds))

    @property
    def request_bytes(self) -> int:
        """What the next request should carry; the caller's limits may be narrower, and one clip may exceed it."""
        return max(1, int(self.bytes_per_second * self.seconds))
