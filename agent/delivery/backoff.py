"""How long to wait after failures: exponential backoff with jitter. Pure: only the dispatcher waits."""

from __future__ import annotations

import random

LINK_MIN_SECONDS = 1.0
LINK_MAX_SECONDS = 300.0
LINK_QUICK_FAILURES = 6
LINK_RETRY_SECONDS = 120.0
CLIP_MIN_SECONDS = 30.0
CLIP_MAX_SECONDS = 3600.0


def link_delay(failures: int, rng: random.Random, *, steady_seconds: float = LINK_RETRY_SECONDS) -> float:
    """Seconds to wait for a link that is down: about a minute of quick retries, then a steady interval.

    The first steady wait is a random part of the interval, and the interval then hardly varies. So vehicles that lost
    the network together stay spread over the interval, and come back spread over it.

    Args:
        failures: requests that failed in a row.
        steady_seconds: the steady interval.
    """
    if failures <= LINK_QUICK_FAILURES:
        return _exponential(LINK_MIN_SECONDS, failures, LINK_MAX_SECONDS) * rng.uniform(0.5, 1.0)
    if failures == LINK_QUICK_FAILURES + 1:
        return rng.uniform(0.0, steady_seconds)
    return steady_seconds * rng.uniform(0.9, 1.1)


def weak_link_delay(failures: int, rng: random.Random) -> float:
    """The same for a link that passes small requests but no footage, where each try costs data: full jitter."""
    return rng.uniform(0.0, _exponential(LINK_MIN_SECONDS, failures, LINK_MAX_SECONDS))


def clip_delay(attempts: int, rng: random.Random) -> float:
    """Seconds until a clip is retried after so many failures of its own, with a quarter of jitter."""
    return _exponential(CLIP_MIN_SECONDS, attempts, CLIP_MAX_SECONDS) * rng.uniform(0.75, 1.0)


def rate_limit_delay(retry_after_seconds: float | None, failures: int, rng: random.Random) -> float:
    """Seconds to wait after a 429: what the server asks for plus up to a tenth, else exponential backoff."""
    if retry_after_seconds is None:
        return max(1.0, weak_link_delay(failures + 3, rng))
    return retry_after_seconds * rng.uniform(1.0, 1.1) + rng.uniform(0.0, 1.0)


def _exponential(min_seconds: float, failures: int, max_seconds: float) -> float:
    return float(min(max_seconds, min_seconds * 2.0 ** min(max(failures - 1, 0), 30)))
