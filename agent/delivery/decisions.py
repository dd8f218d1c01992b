"""The decision table: what a delivery attempt decides for the clips and for delivery as a whole. Pure.

The link's trouble is not the clip's fault: it never uses up a clip's attempts. And only an explicit result for a clip
lets its bytes go; silence means that they are kept.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
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

# A batch that fails while the API answers is divided by this. By 8, a batch and its parts come to 2.2 times its bytes
# until the clip to blame is alone; halving would make that more than 3.
SPLIT_FACTOR = 8
# A clip that fails alone is tried again so often at once, as passing trouble of the link is by far the likeliest.
QUICK_RETRIES = 2
BLOCKED_RETRY_SECONDS = 300.0
REGISTRATION_RETRY_SECONDS = 3600.0
CONFIRM_TIMEOUT_SECONDS = 3600.0


class Cause(Enum):
    """Why nothing is sent for now."""

    LINK = "link down"
    HELD = "held"
    RATE = "rate limit"
    DISK = "disk full"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Nothing is sent for some seconds.

    Args:
        reason: for `status`, in a technician's words.
    """

    cause: Cause
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What of the configuration the decisions depend on.

    Args:
        attempts: after so many failures of its own a clip is refused.
        confirm: "answer" takes silence about a clip for success, "poll" waits for confirmation even of success.
        link_seconds: how often a link that stays down is tried.
    """

    attempts: int
    confirm: Literal["auto", "poll", "answer"]
    link_retry_seconds: float = LINK_RETRY_SECONDS


@dataclass(frozen=True, slots=True)
class Decision:
    """What one attempt decided.

    Args:
        verdicts: for these clips; all other clips of the batch go back untouched.
        pause: nothing is sent for now; None to go on.
        batch_bytes: from now on no request may carry more; None for no change.
    """

    verdicts: Mapping[int, Verdict] = field(default_factory=dict)
    pause: Backoff | None = None
    batch_bytes: int | None = None


def decide_results(
    batch: Sequence[Upload], results: Mapping[int, FileResult], policy: Policy, rng: random.Random
) -> Decision:
    """The request was answered: each clip gets what the answer says of it."""
    return Decision({upload.id: _verdict(upload, results.get(upload.id), policy, rng) for upload in batch})


def decide_failure(  # noqa: PLR0911  # a table: one line a row
    batch: Sequence[Upload],
    error: DeliveryError,
    *,
    api_answers: bool,
    peers_succeed: bool = False,
    failures: int,
    policy: Policy,
    rng: random.Random,
) -> Decision:
    """The request failed.

    Args:
        api_answers: whether the API answered another, small request right after the failure.
        others_pass: whether uploads of other clips pass meanwhile: only then it is the clip's fault and not the link's.
        failures: how many requests in a row have failed, this one included.
    """
    match error:
        case ClipUnreadable():
            return Decision({u.id: _unreadable(u, error, policy, rng) for u in batch if u.file == error.file})
        case DeliveryBlocked():
            return Decision(pause=Backoff(Cause.HELD, BLOCKED_RETRY_SECONDS, str(error)))
        case RateLimited():
            seconds = rate_limit_delay(error.retry_after_seconds, failures, rng)
            return Decision(pause=Backoff(Cause.RATE, seconds, str(error)))
        case TooLarge():
            return _too_large(batch, error)
        case RequestRejected():
            return _rejected(batch, error, policy, rng)
        case LinkDown():
            if api_answers:
                pause = Backoff(Cause.LINK, weak_link_delay(failures, rng), str(error))
                return Decision(_split_or_retry_alone(batch, error, peers_succeed, policy, rng), pause)
            seconds = link_delay(failures, rng, steady_seconds=policy.link_retry_seconds)
            return Decision(pause=Backoff(Cause.LINK, seconds, str(error)))
        case _:
            return Decision()


def failed_attempt(upload: Upload | Record, reason: str, policy: Policy, rng: random.Random) -> Verdict:
    """One more failure that is the clip's own: it waits, or is refused when its attempts are used up."""
    attempts = upload.attempts + 1
    kept = Verdict(
        State.WAITING,
        reason,
        attempts=attempts,
        batch_failures=upload.batch_failures,
        max_batch_clips=upload.max_batch_clips,
    )
    if attempts >= policy.attempts:
        return replace(kept, state=State.REFUSED, reason=f"gave up after {attempts} attempts: {reason}")
    return replace(kept, retry_in_seconds=clip_delay(attempts, rng))


def _verdict(upload: Upload, result: FileResult | None, policy: Policy, rng: random.Random) -> Verdict:
    kept = Verdict(State.WAITING, attempts=upload.attempts)
    if result is None:
        if policy.confirm == "answer":
            return replace(kept, state=State.DELIVERED, reason="the answer named no error (upload.confirm = answer)")
        return _accepted(kept, "taken without a result of its own")
    if result.errors:
        return per_file_error(upload, "; ".join(result.errors), policy, rng)
    if policy.confirm == "poll":
        return _accepted(replace(kept, request_id=result.request_id), "taken; to be confirmed (upload.confirm = poll)")
    return replace(kept, state=State.DELIVERED, request_id=result.request_id)


def _accepted(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, state=State.ACCEPTED, reason=reason, retry_in_seconds=CONFIRM_TIMEOUT_SECONDS)


def _held(upload: Upload, words: str) -> Verdict:
    """The vehicle is not taken. Looked at again alone: one clip is enough to ask with."""
    reason = f"the API does not take {upload.key.registration}: {words}"
    return Verdict(
        State.HELD, reason, retry_in_seconds=REGISTRATION_RETRY_SECONDS, attempts=upload.attempts, max_batch_clips=1
    )


def per_file_error(upload: Upload, words: str, policy: Policy, rng: random.Random) -> Verdict:
    """The API's words about one clip: retrying cannot help a file, but a contract can be activated."""
    match classify(words):
        case ErrorClass.FILE:
            return Verdict(State.REFUSED, f"the API refuses the file: {words}", attempts=upload.attempts + 1)
        case ErrorClass.REGISTRATION:
            return _held(upload, words)
        case ErrorClass.UNKNOWN:
            return failed_attempt(upload, f"the API said: {words}", policy, rng)


def _split_or_retry_alone(
    batch: Sequence[Upload], error: LinkDown, peers_succeed: bool, policy: Policy, rng: random.Random
) -> dict[int, Verdict]:
    """The batch fails though the API answers: some clip in it may be to blame. Dividing the batch finds which."""
    if len(batch) > 1:
        part = -(-len(batch) // SPLIT_FACTOR)
        return {
            u.id: Verdict(State.WAITING, attempts=u.attempts, batch_failures=u.batch_failures + 1, max_batch_clips=part)
            for u in batch
        }
    alone = replace(batch[0], batch_failures=batch[0].batch_failures + 1, max_batch_clips=1)
    if peers_succeed:
        return {alone.id: failed_attempt(alone, f"sent alone, while other clips pass: {error}", policy, rng)}
    again = alone.batch_failures - QUICK_RETRIES
    verdict = Verdict(
        State.WAITING,
        f"sent alone, and no other clip has passed since, so the link may be to blame: {error}",
        retry_in_seconds=clip_delay(again, rng) if again > 0 else 0.0,
        attempts=alone.attempts,
        batch_failures=alone.batch_failures,
        max_batch_clips=1,
    )
    return {alone.id: verdict}


def _unreadable(upload: Upload, error: ClipUnreadable, policy: Policy, rng: random.Random) -> Verdict:
    if error.is_transient:
        # From now on it spoils no request but its own.
        return failed_attempt(replace(upload, max_batch_clips=1), f"its stored file {error.reason}", policy, rng)
    return Verdict(State.LOST, f"its stored file {error.reason}", attempts=upload.attempts)


def _too_large(batch: Sequence[Upload], error: TooLarge) -> Decision:
    if len(batch) == 1:
        return Decision({batch[0].id: Verdict(State.REFUSED, f"too large for the server even alone: {error}")})
    return Decision(batch_bytes=max(1, sum(upload.size_bytes for upload in batch) // 2))


def _rejected(batch: Sequence[Upload], error: RequestRejected, policy: Policy, rng: random.Random) -> Decision:
    named = {batch[index].id: words for index, words in error.items.items() if 0 <= index < len(batch)}
    if named:
        return Decision({u.id: item_error(u, named[u.id]) for u in batch if u.id in named})
    if len(batch) == 1 and batch[0].max_batch_clips == 1:
        return Decision({batch[0].id: per_file_error(batch[0], str(error), policy, rng)})
    # The single upload, whose answer is about one file, will tell: a clip that must travel alone goes there.
    return Decision(
        {
            u.id: Verdict(State.WAITING, attempts=u.attempts, batch_failures=u.batch_failures, max_batch_clips=1)
            for u in batch
        }
    )


def item_error(upload: Upload, words: str) -> Verdict:
    """A validation error that names the clip: its fields are wrong and stay wrong, unless it is about the vehicle."""
    if classify(words) is ErrorClass.REGISTRATION:
        return _held(upload, words)
    return Verdict(State.REFUSED, f"the API refuses the clip: {words}", attempts=upload.attempts + 1)
