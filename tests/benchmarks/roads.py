"""Three roads: bandwidth and outages of the mobile link of a vehicle."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

STEP_SECONDS = 5.0
# How much of the bandwidth of one step is that of the step before, in logarithms.
INERTIA = 0.8


@dataclass(frozen=True, slots=True)
class Stretch:
    """A period in which the link does not change.

    Args:
        bytes_per_second: uplink; 0 without a link.
    """

    seconds: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Road:
    """A kind of road.

    Args:
        megabits: median uplink bandwidth per second.
        spread: the standard deviation of its natural logarithm.
        link_seconds: shortest and longest time between two outages.
        outage_seconds: shortest and longest outage.
    """

    name: str
    megabits: float
    spread: float
    link_seconds: tuple[float, float]
    outage_seconds: tuple[float, float]

    def trace(self, seconds: float, rng: random.Random) -> Iterator[Stretch]:
        """A drive of at least this many seconds."""
        deviation = rng.gauss(0.0, self.spread)
        while seconds > 0:
            link_seconds = rng.uniform(*self.link_seconds)
            for _ in range(math.ceil(link_seconds / STEP_SECONDS)):
                deviation = INERTIA * deviation + rng.gauss(0.0, self.spread * math.sqrt(1 - INERTIA**2))
                yield Stretch(STEP_SECONDS, self.megabits * 125_000.0 * math.exp(deviation))
            outage_seconds = rng.uniform(*self.outage_seconds)
            yield Stretch(outage_seconds, 0.0)
            seconds -= link_seconds + outage_seconds


ROADS = (
    Road("city", 6.0, 0.6, (120.0, 1200.0), (5.0, 40.0)),
    Road("rural", 2.5, 0.8, (240.0, 1800.0), (30.0, 300.0)),
    Road("tunnel", 10.0, 0.4, (120.0, 420.0), (20.0, 90.0)),
)
