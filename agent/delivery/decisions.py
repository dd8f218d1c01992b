"""The decision table: what a delivery attempt decides for each clip and for delivery as a whole. Pure.

A failure of the link, the server or the account never uses up a clip's attempts: an attempt counts only while other
clips succeed. Only an explicit result for a clip releases its bytes; without one they are kept.
"""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from agent.delivery.backoff import LINK_RETRY_SECONDS, clip_delay, link_delay, rate_limit_delay, weak_link_delay
from agent.errors import (
    ClipUnreadable,
    DeliveryBlocked,
    DeliveryError,
    LinkDown,
    RateLimited,
    RequestRejected,
    TooLarge,
)
from agent.model import State, Upload, Verdict
from agent.spool.records import Record
from agent.vision.error_mapping import ErrorClass, classify
from agent.vision.responses import FileResult

# A batch that fails while the API responds is split into so many parts. With 8, isolating the one bad clip sends 2.2
# times the bytes of the batch; halving would send more than 3 times.
SPLIT_FACTOR = 8
# A clip that fails alone is retried at once so often: a passing fault of the link is by far the likeliest cause.
QUICK_RETRIES = 2
BLOCKED_RETRY_SECONDS = 300.0
REGISTRATION_RETRY_SECONDS = 3600.0
CONFIRM_TIMEOUT_SECONDS = 3600.0


class Cause(Enum):
    """Why nothing is sent for now; the value is what `status` shows."""

    LINK = "link down"
    HELD = "held"
    RATE = "rate limit"
    DISK = "disk full"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Nothing is sent for some seconds.

    Args:
        reason: for `status`, written for a technician.
    """

    cause: Cause
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decisions depend on.

    Args:
        attempts: after so many failures of its own a clip is refused.
        confirm: "answer" treats a missing result as success, "poll" waits for confirmation even after success.
        link_retry_seconds: how often a link that stays down is tried.
    """

    attempts: int
    confirm: Literal["auto", "poll", "answer"]
    link_retry_seconds: float = LINK_RETRY_SECONDS


@dataclass(frozen=True, slots=True)
class Decision:
    """What one attempt decided.

    Args:
        verdicts: by clip; all other clips of the batch go back to the queue unchanged.
        backoff: nothing is sent for now; None to go on.
        batch_bytes: from now on no batch may be larger; None for no change.
    """

    verdicts: Mapping[int, Verdict] = field(default_factory=dict)
    backoff: Backoff | None = None
    batch_bytes: int | None = None


def decide_results(
    batch: Sequence[Upload],
    results: Mapping[int, FileResult],
    policy: Policy,
    rng: random.Random,
    *,
    peers_succeed: Container[int] = (),
) -> Decision:
    """The request succeeded: each clip gets what the response says about it.

    Args:
        peers_succeed: ids of the clips of which others succeed meanwhile; only theirs are errors of their own.
    """
    return Decision(
        {u.id: _verdict(u, results.get(u.id), u.id in peers_succeed, policy, rng) for u in batch},
    )


def decide_failure(  # noqa: PLR0911  # a table: one line a row
    batch: Sequence[Upload],
    error: DeliveryError,
    *,
    api_responds: bool,
    peers_succeed: bool = False,
    failures: int,
    policy: Policy,
    rng: random.Random,
) -> Decision:
    """The request failed.

    Args:
        api_responds: whether the API responded to another, small request right after the failure.
        peers_succeed: whether uploads of other clips succeed meanwhile; only then is it the clip's fault.
        failures: requests that failed in a row, this one included.
    """
    match error:
        case ClipUnreadable():
            return Decision({u.id: _unreadable(u, error, policy, rng) for u in batch if u.file == error.file})
        case DeliveryBlocked():
            return Decision(backoff=Backoff(Cause.HELD, BLOCKED_RETRY_SECONDS, str(error)))
        case RateLimited():
            seconds = rate_limit_delay(error.retry_after_seconds, failures, rng)
            return Decision(backoff=Backoff(Cause.RATE, seconds, str(error)))
        case TooLarge():
            return _too_large(batch, error)
        case RequestRejected():
            return _rejected(batch, error, peers_succeed, policy, rng)
        case LinkDown():
            if api_responds:
                backoff = Backoff(Cause.LINK, weak_link_delay(failures, rng), str(error))
                return Decision(_split_or_retry_alone(batch, error, peers_succeed, policy, rng), backoff)
            seconds = link_delay(failures, rng, steady_seconds=policy.link_retry_seconds)
            return Decision(backoff=Backoff(Cause.LINK, seconds, str(error)))
        case _:
            return Decision()


def vehicles_to_hold(batch: Sequence[Upload], verdicts: Mapping[int, Verdict]) -> dict[tuple[str, int], Verdict]:
    """The registrations and cameras of which the API rejected a clip and accepted none, each with the verdict."""
    held: dict[tuple[str, int], Verdict] = {}
    accepted: set[tuple[str, int]] = set()
    for upload in batch:
        verdict, vehicle = verdicts.get(upload.id), (upload.key.registration, upload.key.camera)
        if verdict is not None and verdict.state is State.HELD:
            held[vehicle] = verdict
        elif verdict is not None and verdict.state in (State.DELIVERED, State.ACCEPTED):
            accepted.add(vehicle)
    return {vehicle: verdict for vehicle, verdict in held.items() if vehicle not in accepted}


def failed_attempt(upload: Upload | Record, reason: str, policy: Policy, rng: random.Random) -> Verdict:
    """The clip failed through its own fault: it is retried later, or refused if its attempts are used up."""
    attempts = upload.attempts + 1
    verdict = replace(_again(upload, reason), attempts=attempts)
    if attempts >= policy.attempts:
        return replace(verdict, state=State.REFUSED, reason=f"gave up after {attempts} attempts: {reason}")
    return replace(verdict, retry_in_seconds=clip_delay(attempts, rng))


def _again(upload: Upload | Record, reason: str = "") -> Verdict:
    """The clip is sent again; what is known about it stays."""
    return Verdict(
        State.WAITING,
        reason,
        attempts=upload.attempts,
        batch_failures=upload.batch_failures,
        max_batch_clips=upload.max_batch_clips,
    )


def hold_all(message: str, holds: int, rng: random.Random) -> Backoff:
    """Every clip is rejected: the fault of the server or the account. One clip is enough to ask with, ever less often.

    Args:
        message: why a clip was rejected.
        holds: how often in a row delivery was held for this, this time included.
    """
    reason = f"no clip is accepted, so the server or the account may be at fault: {message}"
    return Backoff(Cause.HELD, clip_delay(holds, rng), reason)


def _verdict(
    upload: Upload, result: FileResult | None, peers_succeed: bool, policy: Policy, rng: random.Random
) -> Verdict:
    kept = Verdict(State.DELIVERED, attempts=upload.attempts)
    if result is None:
        if policy.confirm == "answer":
            return replace(kept, reason="the response named no error (upload.confirm = answer)")
        return _accepted(kept, "accepted without a result for this clip")
    if result.errors:
        return _per_file_error(upload, "; ".join(result.errors), peers_succeed, policy, rng)
    kept = replace(kept, request_id=result.request_id)
    return _accepted(kept, "accepted, to be confirmed (upload.confirm = poll)") if policy.confirm == "poll" else kept


def _accepted(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, state=State.ACCEPTED, reason=reason, retry_in_seconds=CONFIRM_TIMEOUT_SECONDS)


def _held(upload: Upload, message: str) -> Verdict:
    """The API rejects the vehicle. One clip is enough to ask with later, so it is sent alone."""
    reason = f"the API does not accept {upload.key.registration}: {message}"
    return Verdict(
        State.HELD, reason, retry_in_seconds=REGISTRATION_RETRY_SECONDS, attempts=upload.attempts, max_batch_clips=1
    )


def _per_file_error(upload: Upload, message: str, peers_succeed: bool, policy: Policy, rng: random.Random) -> Verdict:
    """Retrying cannot help a bad file, but a contract can be activated, and a fault of the server will pass."""
    match classify(message):
        case ErrorClass.FILE:
            return Verdict(State.REFUSED, f"the API rejects the file: {message}", attempts=upload.attempts + 1)
        case ErrorClass.REGISTRATION:
            return _held(upload, message)
        case ErrorClass.UNKNOWN if peers_succeed:
            return failed_attempt(_suspect(upload), f"the API said: {message}", policy, rng)
        case ErrorClass.UNKNOWN | ErrorClass.TRANSIENT:
            return _retry_alone(upload, f"the API said: {message}", rng)


def _split_or_retry_alone(
    batch: Sequence[Upload], error: LinkDown, peers_succeed: bool, policy: Policy, rng: random.Random
) -> dict[int, Verdict]:
    """The batch fails although the API responds: one of its clips may be poison. Splitting the batch isolates it."""
    if len(batch) > 1:
        part = -(-len(batch) // SPLIT_FACTOR)
        parts = [replace(u, batch_failures=u.batch_failures + 1, max_batch_clips=part) for u in batch]
        return {upload.id: _again(upload) for upload in parts}
    upload = batch[0]
    if peers_succeed:
        reason = f"fails alone while other clips succeed: {error}"
        return {upload.id: failed_attempt(_suspect(upload), reason, policy, rng)}
    reason = f"fails alone, but no other clip has succeeded since, so the link may be to blame: {error}"
    return {upload.id: _retry_alone(upload, reason, rng, quick_retries=QUICK_RETRIES)}


def _retry_alone(upload: Upload, reason: str, rng: random.Random, *, quick_retries: int = 0) -> Verdict:
    """Sent again alone, at growing intervals; its attempts are not used up."""
    suspect = _suspect(upload)
    retries = suspect.batch_failures - quick_retries
    return replace(_again(suspect, reason), retry_in_seconds=clip_delay(retries, rng) if retries > 0 else 0.0)


def _suspect(upload: Upload) -> Upload:
    """The clip after one more failure; sent alone from now on."""
    return replace(upload, batch_failures=upload.batch_failures + 1, max_batch_clips=1)


def _unreadable(upload: Upload, error: ClipUnreadable, policy: Policy, rng: random.Random) -> Verdict:
    if error.is_transient:
        # Send it alone from now on, so that it cannot fail other clips.
        return failed_attempt(replace(upload, max_batch_clips=1), f"its stored file {error.reason}", policy, rng)
    return Verdict(State.LOST, f"its stored file {error.reason}", attempts=upload.attempts)


def _too_large(batch: Sequence[Upload], error: TooLarge) -> Decision:
    if len(batch) == 1:
        return Decision({batch[0].id: Verdict(State.REFUSED, f"too large for the server even alone: {error}")})
    return Decision(batch_bytes=max(1, sum(upload.size_bytes for upload in batch) // 2))


def _rejected(
    batch: Sequence[Upload], error: RequestRejected, peers_succeed: bool, policy: Policy, rng: random.Random
) -> Decision:
    named = {batch[index].id: message for index, message in error.items.items() if 0 <= index < len(batch)}
    if named:
        return Decision({u.id: _item_error(u, named[u.id]) for u in batch if u.id in named})
    if len(batch) == 1 and batch[0].max_batch_clips == 1:
        return Decision({batch[0].id: _per_file_error(batch[0], str(error), peers_succeed, policy, rng)})
    # Clips that must be sent alone go through the single upload, whose response is about one file: it will tell which.
    return Decision({u.id: _again(replace(u, max_batch_clips=1)) for u in batch})


def _item_error(upload: Upload, message: str) -> Verdict:
    """A validation error that names the clip: its fields are wrong and stay wrong, unless it is about the vehicle."""
    if classify(message) is ErrorClass.REGISTRATION:
        return _held(upload, message)
    return Verdict(State.REFUSED, f"the API rejects the clip: {message}", attempts=upload.attempts + 1)
