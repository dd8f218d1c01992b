"""Adaptive batch sizing: a minute of the link, or less where the link breaks often."""

from __future__ import annotations

import pytest

from agent.delivery.batch_size import BatchSizer


def sent(sizer: BatchSizer, bytes_per_second: float, requests: int) -> None:
    """So many requests of the proposed size succeed on a link with this throughput."""
    for _ in range(requests):
        sizer.record_success(sizer.request_bytes, sizer.request_bytes / bytes_per_second)


def test_the_first_request_carries_a_minute_at_a_megabit() -> None:
    assert BatchSizer(60.0).request_bytes == 7_500_000
    assert BatchSizer(600.0).request_bytes == 75_000_000


@pytest.mark.parametrize("bytes_per_second", [10_000.0, 125_000.0, 3_000_000.0])
def test_requests_converge_to_one_minute_at_any_throughput(bytes_per_second: float) -> None:
    sizer = BatchSizer(60.0)
    sent(sizer, bytes_per_second, 12)
    assert sizer.request_bytes / bytes_per_second == pytest.approx(60.0, rel=0.1)


def test_one_fast_response_is_enough_to_fill_the_next_request() -> None:
    sizer = BatchSizer(60.0)
    sizer.record_success(40_000_000, 0.4)
    assert sizer.request_bytes > 200_000_000


def test_a_break_makes_the_next_request_smaller() -> None:
    sizer = BatchSizer(60.0)
    sent(sizer, 1_000_000.0, 10)
    before = sizer.request_bytes
    sizer.record_failure(5_000_000, 65.0)
    assert sizer.request_bytes < before / 2


def test_requests_are_short_while_the_link_breaks_often_and_long_once_it_holds() -> None:
    sizer = BatchSizer(60.0)
    for _ in range(20):
        for _ in range(9):
            sizer.record_success(20_000_000, 20.0)
        sizer.record_failure(10_000_000, 10.0)
    assert 15.0 < sizer.target_seconds < 25.0
    for _ in range(60):
        sizer.record_success(60_000_000, 60.0)
    assert sizer.target_seconds == 60.0


def test_requests_are_never_sized_below_ten_seconds_or_the_configured_maximum() -> None:
    for most, least in ((60.0, 10.0), (3.0, 3.0)):
        sizer = BatchSizer(most)
        for _ in range(200):
            sizer.record_failure(1000, 1.0)
        assert sizer.target_seconds == least


def test_a_link_without_throughput_still_allows_one_clip() -> None:
    sizer = BatchSizer(60.0)
    for _ in range(100):
        sizer.record_failure(0, 3600.0)
    assert sizer.request_bytes >= 1


def test_a_response_in_zero_seconds_is_no_error() -> None:
    sizer = BatchSizer(60.0)
    sizer.record_success(100, 0.0)
    assert sizer.request_bytes > 0
