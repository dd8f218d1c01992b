"""How the API's list is queried, and what its entries decide."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.delivery.confirmation import (
    MAX_QUERIES,
    MAX_WINDOW,
    RESTART_GRACE_SECONDS,
    WaitTimes,
    confirm,
    query_windows,
    select_queries,
)
from agent.delivery.decisions import CONFIRM_TIMEOUT_SECONDS, Policy
from agent.model import ClipKey, Footage, State, Verdict
from agent.spool.records import Record
from agent.vision.client import VideoRequest

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
UTC = ZoneInfo("UTC")


def record(id: int, *, hours: float = 0.0, registration: str = "ABC1234X", **changes: object) -> Record:
    start = START + timedelta(hours=hours)
    video = ClipKey(registration, 1, start, start + timedelta(seconds=60))
    footage = Footage(Path(f"/footage/{id}.mp4"), 100, 0)
    return Record(id, State.ACCEPTED, footage, video, None, **changes)  # type: ignore[arg-type]


def entry(status_id: int | None, of: Record, request_id: str = "9") -> VideoRequest:
    video = of.key
    assert video is not None
    return VideoRequest(request_id, video.registration.lower(), 1, status_id, None, video.start, video.end, None, None)


def decide(asked: Record, *statuses: int | None, overdue: bool = False, attempts: int = 5) -> Verdict | None:
    listed = [entry(status, asked, str(position)) for position, status in enumerate(statuses)]
    numbers = {asked.id} if overdue else set()
    policy = Policy(attempts, "auto")
    return confirm([asked], listed, UTC, overdue=numbers, policy=policy, rng=random.Random(1)).get(asked.id)


def test_clips_of_one_vehicle_within_six_hours_share_a_query() -> None:
    clips = [
        record(3, hours=7),
        record(1),
        record(2, hours=5),
        record(4, hours=1, registration="XYZ 9"),
        record(5, hours=900),
    ]
    found = query_windows(clips)
    assert [[clip.id for clip in window.clips] for window in found] == [[1, 2], [3], [5], [4]]
    assert all(window.last - window.first <= MAX_WINDOW for window in found)
    assert (found[0].registration, found[0].first, found[0].last) == ("ABC1234X", START, START + timedelta(hours=5))


def test_many_queries_are_spread_over_polls_in_rotation() -> None:
    found = query_windows([record(id, hours=10 * id) for id in range(20)])
    asked = [clip.id for turn in range(3) for window in select_queries(found, turn) for clip in window.clips]
    assert set(asked) == set(range(20))
    assert len(asked) == 3 * MAX_QUERIES
    assert select_queries(found[:3], 7) != []
    assert len(select_queries(found[:3], 7)) == 3


@pytest.mark.parametrize("statuses", [[3], [5, 3], [3, 1], [None, 99, 3]])
def test_a_complete_entry_delivers(statuses: list[int | None]) -> None:
    verdict = decide(record(1, attempts=2), *statuses)
    assert verdict is not None
    assert (verdict.state, verdict.request_id) == (State.DELIVERED, str(statuses.index(3)))


@pytest.mark.parametrize("statuses", [[1], [2], [6, 2], [5, 1]])
def test_a_pending_entry_is_waited_for_without_limit(statuses: list[int | None]) -> None:
    assert decide(record(1), *statuses, overdue=True) is None


@pytest.mark.parametrize("status", [4, 5, 6])
def test_a_failed_entry_is_sent_again_until_its_attempts_are_used_up(status: int) -> None:
    again = decide(record(1), status)
    assert again is not None
    assert (again.state, again.attempts) == (State.WAITING, 1)
    assert again.retry_in_seconds > 0
    last = decide(record(1, attempts=4), status)
    assert last is not None
    assert last.state is State.REFUSED


@pytest.mark.parametrize("statuses", [[], [7], [None]])
def test_a_clip_without_a_meaningful_entry_is_waited_for_until_overdue(statuses: list[int | None]) -> None:
    assert decide(record(1), *statuses) is None
    verdict = decide(record(1), *statuses, overdue=True)
    assert verdict is not None
    assert (verdict.state, verdict.attempts) == (State.WAITING, 1)


def test_entries_that_identify_no_clip_are_ignored() -> None:
    odd = VideoRequest("1", None, None, 3, None, None, None, None, None)
    policy = Policy(5, "auto")
    assert confirm([record(1)], [odd], UTC, overdue=(), policy=policy, rng=random.Random(1)) == {}


def test_a_clip_is_matched_by_timestamps_as_the_api_writes_them() -> None:
    """In the repeated hour at the end of summer time, the API's timestamps are ambiguous."""
    zone = ZoneInfo("Europe/London")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    video = ClipKey("ABC1234X", 1, first, first + timedelta(seconds=60))
    asked = Record(1, State.ACCEPTED, Footage(Path("/f/1.mp4"), 1, 0), video, None)
    later = timedelta(hours=1)
    listed = VideoRequest("4", "ABC1234X", 1, 3, None, video.start + later, video.end + later, None, None)
    verdicts = confirm([asked], [listed], zone, overdue=(), policy=Policy(5, "auto"), rng=random.Random(1))
    assert verdicts[1].state is State.DELIVERED


def test_waiting_time_is_measured_from_acceptance_on_the_monotonic_clock() -> None:
    waiting = WaitTimes()
    waiting.start(1, 100.0)
    clip = record(1, due=5000.0)
    waiting.track([clip], 150.0)
    assert waiting.overdue([clip], 100.0 + CONFIRM_TIMEOUT_SECONDS - 1, now=1e12) == set()
    assert waiting.overdue([clip], 100.0 + CONFIRM_TIMEOUT_SECONDS, now=0.0) == {1}
    waiting.forget(1)
    assert waiting.overdue([clip], 1e9, now=1e12) == set(), "accepted again, it waits from the beginning"


@pytest.mark.parametrize(
    ("now", "limit"),
    [(4000.0, CONFIRM_TIMEOUT_SECONDS), (6000.0, RESTART_GRACE_SECONDS), (-1e8, RESTART_GRACE_SECONDS)],
)
def test_a_clip_accepted_before_a_restart_gets_a_grace_period(now: float, limit: float) -> None:
    waiting = WaitTimes()
    clip = record(1, due=5000.0)
    waiting.track([clip], 0.0)
    assert waiting.overdue([clip], limit - 1, now) == set()
    assert waiting.overdue([clip], limit, now) == {1}
