"""Fair sharing of the account's rate limit between vehicles that do not coordinate. Pure.

After an outage all vehicles come back with footage at once (a thundering herd). If each keeps to its own slots from the
first request on, the limit is used and not exceeded.
"""

from __future__ import annotations

import math
import random

from agent.delivery.backoff import LINK_RETRY_SECONDS

# The API's default, for all vehicles of the account together.
REQUESTS_PER_MINUTE = 1000
# Chance puts more vehicles into one minute than into another: without it every other minute would exceed the limit.
MARGIN = 1.08
# A herd is gone after so many slots, and not before ten minutes; if it is not, the API answers 429.
HERD_SLOTS = 10
HERD_SECONDS = 600.0
# The API counts by the minute: the wait after a 429 without a time, and the shortest slot after two 429 in a row.
MINUTE_SECONDS = 60.0
MAX_SLOT_SECONDS = 3600.0


def slot_seconds(vehicles: int) -> float:
    """The interval in which each vehicle of the account may make one request."""
    return 60.0 * vehicles / REQUESTS_PER_MINUTE * MARGIN


def link_retry_seconds(vehicles: int) -> float:
    """How often a link that stays down is tried: a fleet that comes back together does so spread over this time."""
    return max(LINK_RETRY_SECONDS, slot_seconds(vehicles))


def poll_interval(vehicles: int, shortest: tuple[float, float]) -> tuple[float, float]:
    """Shortest and longest time between two polls; longer in a large fleet, where polls would use the slots of uploads.

    Args:
        shortest: the same for a small fleet, as the API asks for it.
    """
    if vehicles <= REQUESTS_PER_MINUTE:
        return shortest
    slot = slot_seconds(vehicles)
    return max(shortest[0], slot), max(shortest[1], 2.0 * slot)


class RequestScheduler:
    """Says when this vehicle may make its next request: at once, but once a slot while there may be a herd.

    All instants (`at`) are monotonic seconds. Used by the delivery thread only.

    Args:
        vehicles: how many share the account.
        rng: for jitter.

    Attributes:
        strict_slots: the fleet has more vehicles than the account has requests a minute, so that slots always apply,
            and the preflight check needs one of its own. In a smaller fleet check and upload are made together, and the
            slots of both are waited for afterwards.
        next_at: when the next request may be made; may be in the past.
    """

    def __init__(self, vehicles: int, rng: random.Random) -> None:
        self._fleet_slot_seconds = slot_seconds(vehicles)
        self._slot_seconds = self._fleet_slot_seconds
        self.strict_slots = vehicles > REQUESTS_PER_MINUTE
        self.next_at = -math.inf
        self._rng = rng
        self._herd_until = -math.inf
        self._is_rate_limited = False

    def record_request(self, at: float) -> None:
        """A request of any kind is made that reaches the API."""
        if self.strict_slots or at < self._herd_until:
            self.next_at = max(self.next_at, at) + self._jittered_slot()

    def record_success(self) -> None:
        """An upload was not rate limited: slots shrink towards the fleet's."""
        self._is_rate_limited = False
        self._slot_seconds = max(self._fleet_slot_seconds, self._slot_seconds * 0.7)

    def record_outage(self, at: float) -> None:
        """The API has been unreachable for a while, perhaps for all vehicles."""
        self._expect_herd(at)

    def record_rate_limit(self, at: float, retry_after_seconds: float | None) -> None:
        """The API answered 429; twice in a row, the slots grow."""
        if self._is_rate_limited:
            self._slot_seconds = min(MAX_SLOT_SECONDS, max(MINUTE_SECONDS, 2.0 * self._slot_seconds))
        self._is_rate_limited = True
        self._expect_herd(at)
        # A whole slot, not a part of it: the vehicles that one minute rejected would else crowd into the next.
        wait_seconds = MINUTE_SECONDS if retry_after_seconds is None else retry_after_seconds
        self.next_at = at + max(wait_seconds, self._jittered_slot())

    def _jittered_slot(self) -> float:
        return self._slot_seconds * self._rng.uniform(0.9, 1.1)

    def _expect_herd(self, at: float) -> None:
        self._herd_until = at + max(HERD_SECONDS, HERD_SLOTS * self._slot_seconds)
