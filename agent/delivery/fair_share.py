"""How the vehicles of an account share its limit of requests, though none knows of another. Pure.

After an outage all of them come back with footage at once. If each keeps to its share from the first request on, the
limit is used and not exceeded.
"""

from __future__ import annotations

import math
import random

from agent.delivery.backoff import LINK_RETRY_SECONDS

# The API's default, for all vehicles of the account together.
REQUESTS_PER_MINUTE = 1000
# Chance puts more vehicles into one minute than into another: a full limit would be exceeded every other minute.
MARGIN = 1.08
# The crowd after an outage is gone after so many turns, and not before some minutes; if it is not, the API says so.
HERD_SLOTS = 10
HERD_SECONDS = 600.0
# The API counts by the minute: so long a refusal lasts that names no time, and so far apart are requests at least when
# it refuses one after the other. More than an hour is no better.
MINUTE_SECONDS = 60.0
MAX_SLOT_SECONDS = 3600.0


def slot_seconds(vehicles: int) -> float:
    """How long it takes until each vehicle of the account has made one request."""
    return 60.0 * vehicles / REQUESTS_PER_MINUTE * MARGIN


def link_retry_seconds(vehicles: int) -> float:
    """How often a link that stays down is tried. All vehicles of a fleet that comes back do so within that time."""
    return max(LINK_RETRY_SECONDS, slot_seconds(vehicles))


def poll_interval(vehicles: int, least: tuple[float, float]) -> tuple[float, float]:
    """How often the API's list is asked, from and to: in a large fleet not once a turn, or uploads would have no room.

    Args:
        least: the same in a smaller fleet, as the API wishes it.
    """
    if vehicles <= REQUESTS_PER_MINUTE:
        return least
    turn = slot_seconds(vehicles)
    return max(least[0], turn), max(least[1], 2.0 * turn)


class RequestScheduler:
    """Says when this vehicle may make its next request: at once, but one in each turn while there may be a crowd.

    Args:
        vehicles: how many share the account. More than it has requests a minute are always a crowd.
        rng: for jitter.

    Attributes:
        one_by_one: whether even the check before an upload has a turn of its own. In a smaller fleet the two go
            together, and both are waited for afterwards.
    """

    def __init__(self, vehicles: int, rng: random.Random) -> None:
        self._slot_seconds = slot_seconds(vehicles)
        self._spacing_seconds = self._slot_seconds
        self.strict_slots = vehicles > REQUESTS_PER_MINUTE
        self._rng = rng
        self._next_at = -math.inf
        self._herd_until = -math.inf
        self._refused_before = False

    def seconds_to_next(self, at: float) -> float:
        """Until the next request may be made. `at`: monotonic seconds, here and below."""
        return max(0.0, self._next_at - at)

    def record_request(self, at: float) -> None:
        """A request is made that reaches the API, of whatever kind."""
        if self.strict_slots or at < self._herd_until:
            self._next_at = max(self._next_at, at) + self._slot()

    def record_success(self) -> None:
        """An upload was not refused."""
        self._refused_before = False
        self._spacing_seconds = max(self._slot_seconds, self._spacing_seconds * 0.7)

    def record_outage(self, at: float) -> None:
        """The API has not been reached for a while, and may not have been by any vehicle."""
        self._expect_herd(at)

    def record_rate_limit(self, at: float, retry_after_seconds: float | None) -> None:
        """The API says that the account makes too many requests. Twice in a row: that turns must be longer."""
        if self._refused_before:
            self._spacing_seconds = min(MAX_SLOT_SECONDS, max(MINUTE_SECONDS, 2.0 * self._spacing_seconds))
        self._refused_before = True
        self._expect_herd(at)
        # Its next turn, and not somewhere between: the refused ones of one minute would crowd another.
        wait_seconds = MINUTE_SECONDS if retry_after_seconds is None else retry_after_seconds
        self._next_at = at + max(wait_seconds, self._slot())

    def _slot(self) -> float:
        return self._spacing_seconds * self._rng.uniform(0.9, 1.1)

    def _expect_herd(self, at: float) -> None:
        self._herd_until = at + max(HERD_SECONDS, HERD_SLOTS * self._spacing_seconds)
