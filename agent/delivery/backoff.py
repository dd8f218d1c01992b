"""How long to wait after failures. Pure: only the loop waits."""

from __future__ import annotations

import random

LINK_FIRST_SECONDS = 1.0
LINK_MOST_SECONDS = 300.0
CLIP_FIRST_SECONDS = 30.0
CLIP_MOST_SECONDS = 3600.0


def link_delay(failures: int, rng: random.Random) -> float:
    """Seconds to wait for the link after so many failures in a row: doubling, with full jitter.

    Full jitter spreads the vehicles of a fleet that lost the network together evenly over the interval.
    """
    return rng.uniform(0.0, _doubled(LINK_FIRST_SECONDS, failures, LINK_MOST_SECONDS))


def clip_delay(attempts: int, rng: random.Random) -> float:
    """Seconds until one clip is tried again after so many failures of its own: doubling, with a quarter of jitter."""
    return _doubled(CLIP_FIRST_SECONDS, attempts, CLIP_MOST_SECONDS) * rng.uniform(0.75, 1.0)


def rate_delay(retry_after_seconds: float | None, failures: int, rng: random.Random) -> float:
    """Seconds to wait after a 429: what the server asks for and up to a tenth more, else as for a failing link."""
    if retry_after_seconds is None:
        return max(1.0, link_delay(failures + 3, rng))
    return retry_after_seconds * rng.uniform(1.0, 1.1) + rng.uniform(0.0, 1.0)


def _doubled(first: float, times: int, most: float) -> float:
    return float(min(most, first * 2.0 ** min(max(times - 1, 0), 30)))
