"""Vehicles share the account's rate limit: each keeps to its slots while there may be a thundering herd."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from agent.delivery.backoff import LINK_RETRY_SECONDS, link_delay
from agent.delivery.fair_share import (
    HERD_SECONDS,
    REQUESTS_PER_MINUTE,
    RequestScheduler,
    link_retry_seconds,
    poll_interval,
    slot_seconds,
)


def scheduler(vehicles: int) -> RequestScheduler:
    return RequestScheduler(vehicles, random.Random(5))


def requests_made(of: RequestScheduler, *, since: float, until: float) -> int:
    """How many requests a vehicle makes in this time that always has something to send."""
    at, count = since, 0
    while (at := max(at, of.next_at)) < until:
        of.record_request(at)
        at += 0.1
        count += 1
    return count


def test_without_an_outage_no_request_waits_for_a_slot() -> None:
    ordinary = scheduler(1000)
    for at in range(100):
        assert ordinary.next_at <= at
        ordinary.record_request(float(at))


@pytest.mark.parametrize("vehicles", [100, 1000, 10_000])
def test_after_an_outage_the_fleet_stays_just_below_the_rate_limit(vehicles: int) -> None:
    vehicle = scheduler(vehicles)
    vehicle.record_outage(0.0)
    seconds = HERD_SECONDS if vehicles <= REQUESTS_PER_MINUTE else 100 * slot_seconds(vehicles)
    count = requests_made(vehicle, since=0.0, until=seconds)
    assert 0.85 * REQUESTS_PER_MINUTE < vehicles * count / (seconds / 60.0) < 1.1 * REQUESTS_PER_MINUTE


def test_the_thundering_herd_window_ends_after_ten_minutes() -> None:
    vehicle = scheduler(1000)
    vehicle.record_outage(0.0)
    requests_made(vehicle, since=0.0, until=HERD_SECONDS + 200.0)
    assert requests_made(vehicle, since=HERD_SECONDS + 200.0, until=HERD_SECONDS + 201.0) > 5


def test_a_fleet_larger_than_the_rate_limit_always_keeps_to_slots() -> None:
    large = scheduler(5000)
    assert large.strict_slots
    assert not scheduler(1000).strict_slots
    large.record_request(0.0)
    assert 0.8 * slot_seconds(5000) < large.next_at < 1.2 * slot_seconds(5000)


def test_two_requests_in_a_row_use_two_slots() -> None:
    vehicle = scheduler(1000)
    vehicle.record_outage(0.0)
    vehicle.record_request(0.0)
    vehicle.record_request(0.1)
    assert 1.8 * slot_seconds(1000) < vehicle.next_at - 0.1 < 2.2 * slot_seconds(1000)


def test_after_a_429_the_next_request_waits_for_its_slot_and_the_named_time() -> None:
    for vehicles, retry_after_seconds in ((10, 300.0), (10, None), (10_000, 20.0)):
        refused = scheduler(vehicles)
        refused.record_rate_limit(0.0, retry_after_seconds)
        assert refused.next_at >= (60.0 if retry_after_seconds is None else retry_after_seconds)
        assert refused.next_at >= 0.9 * slot_seconds(vehicles)


def test_slots_grow_while_the_api_answers_429_and_shrink_on_success() -> None:
    vehicle = scheduler(1000)
    waits = []
    for _ in range(12):
        vehicle.record_rate_limit(0.0, 1.0)
        waits.append(vehicle.next_at)
    assert waits[4] > 8 * waits[0]
    assert max(waits) <= 4000.0
    for _ in range(20):
        vehicle.record_success()
    vehicle.record_rate_limit(0.0, 1.0)
    assert vehicle.next_at < 1.2 * slot_seconds(1000)


@pytest.mark.parametrize("vehicles", [1, 1000, 10_000])
@pytest.mark.parametrize("hours", [0.5, 6.0])
def test_vehicles_that_lost_the_network_together_retry_spread_over_time(vehicles: int, hours: float) -> None:
    interval = link_retry_seconds(vehicles)
    assert interval >= max(LINK_RETRY_SECONDS, slot_seconds(vehicles))
    tenths: Counter[int] = Counter()
    for seed in range(2000):
        rng = random.Random(seed)
        at, failures = 0.0, 0
        while at < hours * 3600.0:
            failures += 1
            at += link_delay(failures, rng, steady_seconds=interval)
        tenths[int((at - hours * 3600.0) / interval * 10)] += 1
    assert sum(tenths[tenth] for tenth in range(9)) > 1700
    assert max(tenths.values()) < 320


def test_a_large_fleet_polls_the_list_less_often() -> None:
    assert poll_interval(1000, (30.0, 60.0)) == (30.0, 60.0)
    first, last = poll_interval(10_000, (30.0, 60.0))
    assert 10_000 / first * 60.0 < REQUESTS_PER_MINUTE
    assert last == 2 * first
