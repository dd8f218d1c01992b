from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from agent.model import ClipKey
from agent.vision.assumptions import format_timestamp, match_key, parse_timestamp

UTC = ZoneInfo("UTC")
LISBON = ZoneInfo("Europe/Lisbon")
NOON = datetime(2026, 7, 1, 12, 0, 0, tzinfo=timezone.utc)


def test_a_timestamp_survives_the_round_trip_in_the_zone_of_the_api() -> None:
    assert format_timestamp(NOON, UTC) == "2026-07-01 12:00:00"
    assert format_timestamp(NOON, LISBON) == "2026-07-01 13:00:00"
    assert parse_timestamp("2026-07-01 13:00:00", LISBON) == NOON


@pytest.mark.parametrize("text", ["2026-07-01T12:00:00Z", "2026-07-01T14:00:00+02:00", " 2026-07-01 12:00:00 "])
def test_iso_8601_timestamps_are_parsed_too(text: str) -> None:
    assert parse_timestamp(text, UTC) == NOON


@pytest.mark.parametrize(
    "value", [None, 5, True, [], "", "soon", "2026-02-30 00:00:00", "0001-01-01 00:00:00", "9999-12-31T23:59:59-14:00"]
)
def test_other_values_are_not_parsed_as_timestamps(value: object) -> None:
    assert parse_timestamp(value, LISBON) is None


def test_a_clip_in_the_repeated_hour_of_dst_is_matched() -> None:
    sent = datetime(2026, 10, 25, 1, 30, 0, tzinfo=timezone.utc)  # 01:30 in Lisbon for the second time
    back = parse_timestamp(format_timestamp(sent, LISBON), LISBON)
    assert back is not None
    assert back != sent
    minute = timedelta(minutes=1)
    assert match_key(ClipKey("A", 1, back, back + minute), LISBON) == match_key(
        ClipKey("A", 1, sent, sent + minute), LISBON
    )


def test_match_keys_ignore_case_and_blanks_but_not_cameras() -> None:
    end = NOON + timedelta(minutes=1)
    key = match_key(ClipKey("abc 1", 1, NOON, end), UTC)
    assert key == match_key(ClipKey(" ABC 1 ", 1, NOON, end), UTC)
    assert key != match_key(ClipKey("abc 1", 2, NOON, end), UTC)
