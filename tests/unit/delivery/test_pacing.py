"""When the next request may be made: a pure function, run here against a clock that jumps to the instant it names."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from agent.delivery.pacing import Action, PacingState, Wait, next_allowed_at

NOW = 1000.0
LATER = NOW + 50.0
# Every gate is open and a clip is ready.
OPEN = PacingState()


def test_with_all_gates_open_a_batch_may_be_sent_at_once() -> None:
    allowed = next_allowed_at(OPEN, NOW)
    assert (allowed.at, allowed.action) == (NOW, Action.UPLOAD)


@pytest.mark.parametrize(
    ("closed", "wait"),
    [
        (replace(OPEN, backoff_until=LATER), Wait.BACKOFF),
        (replace(OPEN, clips_at=LATER), Wait.CLIPS),
        (replace(OPEN, linger_until=LATER), Wait.LINGER),
        (replace(OPEN, slot_at=LATER), Wait.SLOT),
    ],
)
def test_each_gate_alone_delays_the_upload_and_is_named(closed: PacingState, wait: Wait) -> None:
    for preflight_ok, action in ((True, Action.UPLOAD), (False, Action.PREFLIGHT)):
        state = replace(closed, preflight_ok=preflight_ok)
        allowed = next_allowed_at(state, NOW)
        assert (allowed.at, allowed.action, allowed.wait) == (LATER, action, wait)
        allowed = next_allowed_at(state, LATER)
        assert (allowed.at, allowed.action) == (LATER, action)


def test_linger_and_slot_are_waited_for_together() -> None:
    linger_longer = next_allowed_at(replace(OPEN, linger_until=LATER, slot_at=LATER - 1), NOW)
    slot_longer = next_allowed_at(replace(OPEN, linger_until=LATER - 1, slot_at=LATER), NOW)
    assert (linger_longer.at, linger_longer.wait) == (LATER, Wait.LINGER)
    assert (slot_longer.at, slot_longer.wait) == (LATER, Wait.SLOT)


def test_a_clip_that_is_not_due_waits_for_no_slot() -> None:
    allowed = next_allowed_at(replace(OPEN, clips_at=NOW + 1, slot_at=LATER, linger_until=LATER), NOW)
    assert (allowed.at, allowed.wait) == (NOW + 1, Wait.CLIPS)


def test_the_first_request_is_the_preflight_check() -> None:
    assert next_allowed_at(replace(OPEN, preflight_ok=False), NOW).action is Action.PREFLIGHT


def test_a_poll_that_is_due_goes_before_an_upload_that_is_due() -> None:
    allowed = next_allowed_at(replace(OPEN, poll_at=NOW - 1), NOW)
    assert (allowed.at, allowed.action) == (NOW, Action.POLL)


def test_a_poll_is_not_delayed_by_gates_of_uploads_and_does_not_hide_them() -> None:
    allowed = next_allowed_at(replace(OPEN, slot_at=LATER, poll_at=NOW + 5), NOW)
    assert (allowed.at, allowed.action, allowed.wait) == (NOW + 5, Action.POLL, Wait.SLOT)


def test_during_a_backoff_not_even_a_poll_is_made() -> None:
    allowed = next_allowed_at(replace(OPEN, backoff_until=LATER, poll_at=NOW), NOW)
    assert (allowed.at, allowed.wait) == (LATER, Wait.BACKOFF)


def test_without_clips_and_without_polls_it_waits_for_a_clip() -> None:
    allowed = next_allowed_at(replace(OPEN, clips_at=math.inf), NOW)
    assert (allowed.at, allowed.wait) == (math.inf, Wait.CLIPS)


@pytest.mark.parametrize("seed", range(300))
def test_no_request_is_early_and_the_named_waits_always_end(seed: int) -> None:
    rng = random.Random(seed)

    def instant() -> float:
        return rng.choice((-math.inf, NOW, NOW + rng.uniform(-100.0, 300.0)))

    state = PacingState(
        backoff_until=instant(),
        clips_at=instant(),
        linger_until=instant(),
        slot_at=instant(),
        preflight_ok=rng.random() < 0.5,
        poll_at=rng.choice((math.inf, instant())),
    )
    now, waits = NOW, 0
    while (allowed := next_allowed_at(state, now)).at > now:
        now, waits = allowed.at, waits + 1
    assert waits <= 3, "a backoff, then a clip, then its slot or more clips"
    assert now >= state.backoff_until
    if allowed.action is Action.POLL:
        assert now >= state.poll_at
    else:
        assert now >= max(state.clips_at, state.linger_until, state.slot_at)
        assert now < state.poll_at
