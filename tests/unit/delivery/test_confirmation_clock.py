from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.clip import Footage, State, Video
from agent.delivery.confirmation import confirm
from agent.spool.records import Record

NOW = 1_790_000_000.0
START = datetime(2026, 7, 28, tzinfo=timezone.utc)
ACCEPTED = Record(
    id=1,
    state=State.ACCEPTED,
    footage=Footage(Path("/card/a.mp4"), 1000, 0),
    video=Video("ABC1234X", 1, START, START + timedelta(seconds=60)),
    stored=None,
    due=NOW + 3600.0,
)


@pytest.mark.parametrize(
    ("now", "again"), [(NOW, False), (NOW + 3599.0, False), (NOW + 3600.0, True), (NOW - 365 * 86_400.0, True)]
)
def test_a_clock_set_back_by_a_year_does_not_keep_a_clip_unconfirmed_for_a_year(now: float, again: bool) -> None:
    verdicts = confirm([ACCEPTED], [], now)
    assert [verdict.state for verdict in verdicts.values()] == ([State.WAITING] if again else [])
