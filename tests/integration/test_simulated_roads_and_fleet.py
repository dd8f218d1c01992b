"""The simulations of the benchmarks, smaller: waste on a bad link, and a fleet that comes back after an outage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.benchmarks.fleet import COUNTINGS, Counting, Fleet, come_back
from tests.benchmarks.links import SIZES, paced
from tests.benchmarks.roads import ROADS, Road
from tests.benchmarks.simulated import be_quiet
from tests.conftest import Figure


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    be_quiet()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.name)
def test_at_most_a_tenth_of_the_bytes_on_a_bad_road_is_wasted(road: Road, sizes: str, figure: Figure) -> None:
    client = paced(road, SIZES[sizes], seed=1)
    wasted_percent = 100 * client.wasted_bytes / client.sent_bytes
    assert wasted_percent <= 10.0
    figure("wasted bytes on a bad road, %", wasted_percent, most=True)


@pytest.mark.slow
@pytest.mark.parametrize("counting", COUNTINGS)
def test_a_returning_fleet_uses_the_rate_limit_and_does_not_exceed_it(counting: Counting, figure: Figure) -> None:
    back = come_back(Fleet(vehicles=3000, vehicles_key=3000, counting=counting), seed=1)
    assert back.admitted_percent(0.5) >= 90.0
    assert back.refused_percent < 5.0
    assert back.p95_to_median(lambda vehicle: vehicle.last_at) <= 3.0
    assert back.p95_to_median(lambda vehicle: vehicle.first_at) <= 3.0
    figure("requests refused in a fleet that returns, %", back.refused_percent, most=True)
