"""Whether a failing upload is the clip's fault or the link's: only uploads of other clips can tell."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.delivery.poison import FRESH_SECONDS, PoisonDetector
from agent.model import ClipKey, Upload

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)


def upload(id: int, batch_failures: int = 0) -> Upload:
    video = ClipKey("ABC1234X", 1, START, START + timedelta(seconds=60))
    return Upload(id, video, "", Path(f"/spool/{id}.mp4"), 100, 0, batch_failures=batch_failures)


def test_no_clip_is_suspected_before_others_succeed() -> None:
    poison = PoisonDetector()
    assert not poison.peers_succeed(upload(1), 0.0)
    poison.record_failure([upload(1)], 1.0)
    assert not poison.peers_succeed(upload(1), 2.0)
    poison.record_success([upload(2)], 3.0)
    assert poison.peers_succeed(upload(1), 4.0)


def test_a_success_before_the_first_failure_of_the_clip_proves_nothing() -> None:
    poison = PoisonDetector()
    poison.record_success([upload(2)], 1.0)
    poison.record_failure([upload(1, batch_failures=1)], 2.0)
    assert not poison.peers_succeed(upload(1, batch_failures=1), 3.0)


def test_a_success_long_ago_proves_nothing() -> None:
    poison = PoisonDetector()
    poison.record_failure([upload(1)], 1.0)
    poison.record_success([upload(2)], 2.0)
    assert poison.peers_succeed(upload(1), 2.0 + FRESH_SECONDS - 1)
    assert not poison.peers_succeed(upload(1), 2.0 + FRESH_SECONDS)


def test_a_failure_of_an_unsuspected_clip_casts_doubt_on_the_link() -> None:
    poison = PoisonDetector()
    poison.record_failure([upload(1)], 1.0)
    poison.record_success([upload(2)], 2.0)
    poison.record_failure([upload(3, batch_failures=2)], 3.0)
    assert poison.peers_succeed(upload(1), 4.0)
    poison.record_failure([upload(4)], 5.0)
    assert not poison.peers_succeed(upload(1), 6.0)


def test_a_clip_that_succeeded_or_is_settled_is_no_longer_suspected() -> None:
    poison = PoisonDetector()
    poison.record_failure([upload(1), upload(2)], 1.0)
    poison.record_success([upload(1)], 2.0)
    poison.forget([2, 3])
    assert not poison.peers_succeed(upload(1), 3.0)
    assert not poison.peers_succeed(upload(2), 3.0)
