"""When the next request may be made, and which. Pure: only the dispatcher waits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """A request that the dispatcher can make."""

    POLL = "look for accepted clips in the API's list"
    PREFLIGHT = "ask, at the cost of a small request, whether the API takes uploads now"
    UPLOAD = "send a batch"


class Wait(Enum):
    """What clips wait for; the value is what `status` shows."""

    BACKOFF = "backoff"
    CLIPS = "idle"
    LINGER = "waiting for more clips"
    SLOT = "waiting for its turn"


@dataclass(frozen=True, slots=True)
class PacingState:
    """All that decides when the next request may be made. Instants are seconds on a monotonic clock.

    A further condition on uploads (such as a policy for metered links) is one more instant here, and one more line in
    `next_allowed_at`.

    Args:
        backoff_until: no request of any kind before it.
        clips_at: when a clip is ready to be sent; in the past if one is.
        linger_until: until then more clips may join the batch; in the past if it is full.
        slot_at: the vehicle's next slot in the account's rate limit.
        preflight_ok: whether the API is known to take uploads.
        poll_at: when the API's list may be asked again; infinite if no clip waits for confirmation.
    """

    backoff_until: float = -math.inf
    clips_at: float = -math.inf
    linger_until: float = -math.inf
    slot_at: float = -math.inf
    preflight_ok: bool = True
    poll_at: float = math.inf


@dataclass(frozen=True, slots=True)
class NextRequest:
    """The answer of `next_allowed_at`.

    Args:
        at: when it may be made: now, or later.
        action: what it is.
        wait: what clips wait for until they can be sent, also if a poll comes first. Of no interest if `at` is now.
    """

    at: float
    action: Action
    wait: Wait


def next_allowed_at(state: PacingState, now: float) -> NextRequest:
    """When the next request may be made, which one, and why not earlier.

    A poll that is due goes before an upload that is: it is small, and a long queue must not put it off for ever.
    """
    upload = Action.UPLOAD if state.preflight_ok else Action.PREFLIGHT
    if state.backoff_until > now:
        return NextRequest(state.backoff_until, upload, Wait.BACKOFF)
    if state.clips_at > now:
        at, wait = state.clips_at, Wait.CLIPS
    elif state.linger_until > max(now, state.slot_at):
        at, wait = state.linger_until, Wait.LINGER
    else:
        at, wait = max(now, state.slot_at), Wait.SLOT
    poll_at = max(now, state.poll_at)
    return NextRequest(poll_at, Action.POLL, wait) if poll_at <= at else NextRequest(at, upload, wait)
