"""Adaptive batch sizing: a request carries about as many bytes as the link sends in the time a request may take.

A request that breaks is sent again from its first byte. So requests must be short where the link breaks often, and need
not be where it holds.
"""

from __future__ import annotations

import math

# Before anything is known: 1 Mb/s, weighted as if measured for so long.
FIRST_BYTES_PER_SECOND = 125_000.0
FIRST_SECONDS = 10.0
# Time constants of the exponential averages. A moving vehicle has another throughput after a minute; how often its link
# breaks is a property of the whole road.
GOODPUT_SECONDS = 60.0
BREAKS_SECONDS = 1800.0
# Before anything is known: one break in so many requests.
FIRST_BREAK_REQUESTS = 20
# A break costs half a request on average: requests of a tenth of the time between breaks waste about a twentieth.
TARGET_SHARE = 0.1
MIN_SECONDS = 10.0


class BatchSizer:
    """Learns throughput and stability of the link from the uploads of this run. Used by the delivery thread only.

    Args:
        request_seconds: the longest time that a request should take.
    """

    def __init__(self, request_seconds: float) -> None:
        self._max_seconds = request_seconds
        self._bytes = FIRST_BYTES_PER_SECOND * FIRST_SECONDS
        self._seconds = FIRST_SECONDS
        self._sending_seconds = FIRST_BREAK_REQUESTS * request_seconds
        self._breaks = 1.0

    def record_success(self, size_bytes: float, seconds: float) -> None:
        """An upload of so many bytes of footage succeeded."""
        seconds = max(seconds, 0.001)
        decay = math.exp(-seconds / GOODPUT_SECONDS)
        self._bytes = self._bytes * decay + size_bytes
        self._seconds = self._seconds * decay + seconds
        decay = math.exp(-seconds / BREAKS_SECONDS)
        self._sending_seconds = self._sending_seconds * decay + seconds
        self._breaks *= decay

    def record_failure(self, size_bytes: float, seconds: float) -> None:
        """An upload broke after so many bytes of footage and seconds, including the time for which it was stalled."""
        self.record_success(size_bytes, seconds)
        self._breaks += 1.0

    @property
    def bytes_per_second(self) -> float:
        return self._bytes / self._seconds

    @property
    def target_seconds(self) -> float:
        """How long the next request should take."""
        between_breaks = self._sending_seconds / self._breaks if self._breaks > 0 else math.inf
        min_seconds = min(MIN_SECONDS, self._max_seconds)
        return min(self._max_seconds, max(min_seconds, TARGET_SHARE * between_breaks))

    @property
    def request_bytes(self) -> int:
        """Bytes of footage for the next request, at least 1; configured limits may be lower."""
        return max(1, int(self.bytes_per_second * self.target_seconds))
