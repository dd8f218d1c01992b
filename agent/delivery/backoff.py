"""How long to wait after failures. Pure: only the loop waits."""

from __future__ import annotations

import random

LINK_MIN_SECONDS = 1.0
LINK_MAX_SECONDS = 300.0
LINK_QUICK_FAILURES = 6
LINK_RETRY_SECONDS = 120.0
CLIP_MIN_SECONDS = 30.0
CLIP_MAX_SECONDS = 3600.0


def link_delay(failures: int, rng: random.Random, *, steady_seconds: float = LINK_RETRY_SECONDS) -> float:
    """Seconds to wait for the link after so many failures in a row: about a minute of quick tries, then steadily.

    The last quick try is followed by a part of the steady interval, at random, and that interval then hardly changes:
    so the vehicles of a fleet that lost the network together stay spread over it, and come back so.

    Args:
        least_often_seconds: the steady interval.
    """
    if failures <= LINK_QUICK_FAILURES:
        return _doubled(LINK_MIN_SECONDS, failures, LINK_MAX_SECONDS) * rng.uniform(0.5, 1.0)
    if failures == LINK_QUICK_FAILURES + 1:
        return rng.uniform(0.0, steady_seconds)
    return steady_seconds * rng.uniform(0.9, 1.1)


def weak_link_delay(failures: int, rng: random.Random) -> float:
    """The same for a link that carries small requests but no footage: trying it costs data. Doubling, full jitter."""
    return rng.uniform(0.0, _doubled(LINK_MIN_SECONDS, failures, LINK_MAX_SECONDS))


def clip_delay(attempts: int, rng: random.Random) -> float:
    """Seconds until one clip is tried again after so many failures of its own: doubling, with a quarter of jitter."""
    return _doubled(CLIP_MIN_SECONDS, attempts, CLIP_MAX_SECONDS) * rng.uniform(0.75, 1.0)


def rate_limit_delay(retry_after_seconds: float | None, failures: int, rng: random.Random) -> float:
    """Seconds to wait after a 429: what the server asks for and up to a tenth more, else longer and longer."""
    if retry_after_seconds is None:
        return max(1.0, weak_link_delay(failures + 3, rng))
    return retry_after_seconds * rng.uniform(1.0, 1.1) + rng.uniform(0.0, 1.0)


def _doubled(first: float, times: int, most: float) -> float:
    return float(min(most, first * 2.0 ** min(max(times - 1, 0), 30)))
