from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from agent.errors import FootageRefused
from agent.intake.identify.recording_time import check_recording_time, is_ambiguous, parse_iso, to_utc

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 7, 28, 12, 0, tzinfo=timezone.utc)


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "2026-07-28T14:41:41",
        "2026-07-28 14:41:41",
        "2026-07-28_14-41-41",
        "2026-07-28T14.41.41",
        "20260728T144141",
        "20260728144141",
        "20260728_144141",
        " 2026-07-28t14:41:41.999 ",
        "2026-07-28T14:41:41,5",
    ],
)
def test_a_time_without_a_zone_is_read_in_its_usual_forms(text: str) -> None:
    assert parse_iso(text) == datetime(2026, 7, 28, 14, 41, 41)


def test_seconds_may_be_left_out() -> None:
    assert parse_iso("2026-07-28T14:41") == datetime(2026, 7, 28, 14, 41)


@pytest.mark.parametrize(
    "text",
    [
        "2026-07-28T14:41:41Z",
        "20260728T144141z",
        "2026-07-28T16:41:41+02:00",
        "2026-07-28T16:41:41+02",
        "20260728T101141-0430",
        "20260728T094141-05",
        "2026-07-28 14:41:41 +0000",
    ],
)
def test_a_time_with_a_zone_is_aware(text: str) -> None:
    assert parse_iso(text) == utc(2026, 7, 28, 14, 41).replace(second=41)


def test_a_compact_time_without_seconds_keeps_its_zone() -> None:
    assert parse_iso("20260728T0941-05") == utc(2026, 7, 28, 14, 41)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-07-28", "2026-0728T144141", "14:41:41", "2026-07-28T14:41:41+99", "2026-02-30T00:00"],
)
def test_an_invalid_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_iso(text)


def test_local_time_becomes_utc_by_the_zone_of_the_camera() -> None:
    instant = to_utc(datetime(2026, 7, 28, 14, 0), BERLIN)
    assert instant.utc == utc(2026, 7, 28, 12, 0)
    assert instant.utc.tzinfo is timezone.utc
    assert instant.note is None


def test_a_time_with_its_own_zone_does_not_use_that_of_the_camera() -> None:
    tokyo = datetime(2026, 7, 28, 14, 0, tzinfo=timezone(timedelta(hours=9)))
    assert to_utc(tokyo, BERLIN).utc == utc(2026, 7, 28, 5, 0)


class TestClockChange:
    TWICE = datetime(2026, 10, 25, 2, 30)
    FIRST = utc(2026, 10, 25, 0, 30)
    SECOND = utc(2026, 10, 25, 1, 30)

    def test_an_ambiguous_hour_is_the_first_without_a_hint(self) -> None:
        instant = to_utc(self.TWICE, BERLIN)
        assert instant.utc == self.FIRST
        assert instant.note == "2026-10-25 02:30:00 Europe/Berlin came twice: the first was taken, 00:30:00 UTC"

    def test_it_is_the_second_if_the_file_was_written_then(self) -> None:
        instant = to_utc(self.TWICE, BERLIN, self.SECOND + timedelta(seconds=4))
        assert instant.utc == self.SECOND
        assert instant.note is not None
        assert "the second was taken, 01:30:00 UTC, by the file's date" in instant.note

    @pytest.mark.parametrize(
        "probable",
        [
            FIRST + timedelta(seconds=4),
            FIRST + timedelta(minutes=35),
            SECOND + timedelta(days=3),
            FIRST - timedelta(days=3),
        ],
        ids=["the first", "between the two", "copied days later", "days before"],
    )
    def test_it_is_the_first_unless_the_file_date_clearly_says_second(self, probable: datetime) -> None:
        assert to_utc(self.TWICE, BERLIN, probable).utc == self.FIRST

    def test_a_skipped_hour_is_moved_forward(self) -> None:
        instant = to_utc(datetime(2026, 3, 29, 2, 30), BERLIN)
        assert instant.utc == utc(2026, 3, 29, 1, 30)
        assert instant.utc.astimezone(BERLIN).hour == 3
        assert instant.note is not None
        assert "was skipped by the clock change: taken as 03:30:00" in instant.note


@pytest.mark.parametrize("year", [1, 1899, 9999])
def test_years_at_the_edge_of_the_calendar_are_refused_and_do_not_overflow(year: int) -> None:
    with pytest.raises(FootageRefused, match="check the camera's clock"):
        to_utc(datetime(year, 1, 1), ZoneInfo("Pacific/Auckland"))


def test_a_recording_of_today_passes() -> None:
    check_recording_time(NOW - timedelta(minutes=5), NOW, NOW)


def test_a_camera_clock_that_is_a_little_fast_passes() -> None:
    check_recording_time(NOW, NOW + timedelta(minutes=5), NOW)


def test_a_camera_whose_clock_was_never_set_is_refused_for_good() -> None:
    with pytest.raises(FootageRefused, match=r"2000-01-01 00:03:00 UTC is before 2015: the camera's clock") as refused:
        check_recording_time(utc(2000, 1, 1, 0, 3), utc(2000, 1, 1, 0, 4), NOW)
    assert refused.value.retry_after_seconds is None


def test_a_recording_from_the_future_is_refused_with_both_times_and_retried() -> None:
    with pytest.raises(FootageRefused) as refused:
        check_recording_time(NOW, NOW + timedelta(minutes=5, seconds=1), NOW)
    assert "recording time 2026-07-28 12:00:00 to 12:05:01 UTC" in refused.value.reason
    assert "this device's clock says 2026-07-28 12:00:00 UTC. Either clock may be wrong" in refused.value.reason
    assert refused.value.retry_after_seconds == 3600


@pytest.mark.parametrize(
    ("local", "twice"),
    [
        (datetime(2025, 10, 26, 2, 30), True),
        (datetime(2025, 10, 26, 3, 0), False),
        (datetime(2025, 3, 30, 2, 30), False),
        (datetime(2025, 10, 26, 2, 30, tzinfo=timezone.utc), False),
        (datetime(1, 1, 1), False),
    ],
)
def test_an_ambiguous_hour_is_recognised(local: datetime, twice: bool) -> None:
    assert is_ambiguous(local, BERLIN) is twice
