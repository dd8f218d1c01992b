"""The decision table, row by row: what a delivery attempt decides."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import pytest

from agent.delivery.backoff import clip_delay, link_delay, rate_limit_delay, weak_link_delay
from agent.delivery.batching import BatchLimits, fill_batch
from agent.delivery.decisions import Cause, Decision, Policy, decide_failure, decide_results, hold_all
from agent.errors import (
    ClipUnreadable,
    CredentialsRejected,
    DeliveryError,
    EndpointNotFound,
    FeatureDisabled,
    LinkDown,
    RateLimited,
    RequestRejected,
    TooLarge,
)
from agent.model import ClipKey, State, Upload
from agent.vision.responses import FileResult

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
POLICY = Policy(attempts=3, confirm="auto")


def upload(
    id: int, *, size_bytes: int = 100, attempts: int = 0, batch_failures: int = 0, max_batch_clips: int | None = None
) -> Upload:
    start = START + timedelta(minutes=id)
    video = ClipKey("ABC1234X", 1, start, start + timedelta(seconds=60))
    return Upload(id, video, "", Path(f"/spool/{id}.mp4"), size_bytes, 0, attempts, batch_failures, max_batch_clips)


def result(of: Upload, *errors: str, request_id: str | None = None) -> FileResult:
    video = of.key
    return FileResult(video.registration, video.camera, video.start, video.end, request_id, tuple(errors))


def fail(
    error: DeliveryError, *batch: Upload, api_responds: bool = False, peers_succeed: bool = False, failures: int = 1
) -> Decision:
    return decide_failure(
        batch,
        error,
        api_responds=api_responds,
        peers_succeed=peers_succeed,
        failures=failures,
        policy=POLICY,
        rng=random.Random(1),
    )


def answered(
    of: Upload,
    found: FileResult | None,
    confirm: Literal["auto", "poll", "answer"] = "auto",
    *,
    peers_succeed: bool = False,
) -> Decision:
    results = {} if found is None else {of.id: found}
    suspects = {of.id} if peers_succeed else set()
    return decide_results([of], results, Policy(3, confirm), random.Random(1), peers_succeed=suspects)


def test_a_link_that_is_down_releases_the_batch_unchanged_and_backs_off() -> None:
    decision = fail(LinkDown("no route"), upload(1), upload(2))
    assert decision.verdicts == {}
    assert decision.backoff is not None
    assert (decision.backoff.cause, decision.backoff.reason) == (Cause.LINK, "no route")
    assert 0 <= decision.backoff.seconds <= 1


@pytest.mark.parametrize(("clips", "part"), [(2, 1), (8, 1), (9, 2), (20, 3), (100, 13)])
def test_a_batch_that_fails_while_the_api_responds_is_split(clips: int, part: int) -> None:
    verdicts = fail(LinkDown("500"), *(upload(id) for id in range(clips)), api_responds=True).verdicts
    assert len(verdicts) == clips
    assert {
        (v.state, v.batch_failures, v.max_batch_clips, v.attempts, v.retry_in_seconds) for v in verdicts.values()
    } == {(State.WAITING, 1, part, 0, 0.0)}


def test_a_clip_that_fails_alone_while_others_succeed_is_refused_in_the_end() -> None:
    first = fail(
        LinkDown("500"), upload(1, batch_failures=5, max_batch_clips=1), api_responds=True, peers_succeed=True
    ).verdicts[1]
    assert (first.state, first.attempts, first.max_batch_clips) == (State.WAITING, 1, 1)
    assert first.retry_in_seconds > 0
    suspect = upload(1, batch_failures=7, max_batch_clips=1, attempts=2)
    last = fail(LinkDown("500"), suspect, api_responds=True, peers_succeed=True).verdicts[1]
    assert last.state is State.REFUSED
    assert "gave up after 3 attempts" in last.reason


def test_a_clip_that_fails_alone_while_none_succeeds_backs_off_without_an_attempt() -> None:
    verdicts = [
        fail(LinkDown("reset"), upload(1, batch_failures=batch_failures, attempts=2), api_responds=True).verdicts[1]
        for batch_failures in range(14)
    ]
    assert {(v.state, v.attempts, v.max_batch_clips) for v in verdicts} == {(State.WAITING, 2, 1)}
    assert [v.batch_failures for v in verdicts] == list(range(1, 15))
    delays = [v.retry_in_seconds for v in verdicts]
    assert delays[:2] == [0.0, 0.0]
    assert 22 <= delays[2] <= 30
    assert 2700 <= delays[-1] <= 3600


@pytest.mark.parametrize("error", [CredentialsRejected("401"), FeatureDisabled("403"), EndpointNotFound("404")])
def test_an_error_that_a_person_must_fix_holds_all_delivery_for_five_minutes(error: DeliveryError) -> None:
    decision = fail(error, upload(1))
    assert decision.verdicts == {}
    assert decision.backoff is not None
    assert (decision.backoff.cause, decision.backoff.seconds, decision.backoff.reason) == (Cause.HELD, 300, str(error))


def test_a_body_that_is_too_large_halves_the_byte_limit() -> None:
    decision = fail(TooLarge("413"), upload(1, size_bytes=600), upload(2, size_bytes=400))
    assert (decision.batch_bytes, decision.verdicts) == (500, {})


def test_a_single_clip_that_is_too_large_is_refused() -> None:
    verdict = fail(TooLarge("413"), upload(1)).verdicts[1]
    assert verdict.state is State.REFUSED
    assert "too large" in verdict.reason


def test_a_rejection_that_names_items_refuses_those_and_releases_the_others() -> None:
    error = RequestRejected("invalid", {1: "The video_file field is required."})
    verdicts = fail(error, upload(1), upload(2), upload(3)).verdicts
    assert {id: verdict.state for id, verdict in verdicts.items()} == {2: State.REFUSED}


def test_a_rejection_that_names_the_registration_of_an_item_holds_it() -> None:
    error = RequestRejected("invalid", {0: "The registration has no active contract."})
    assert fail(error, upload(1), upload(2)).verdicts[1].state is State.HELD


def test_a_rejection_of_the_whole_request_sends_the_clips_one_by_one() -> None:
    verdicts = fail(RequestRejected("invalid"), upload(1), upload(2)).verdicts
    assert {(v.state, v.max_batch_clips, v.attempts) for v in verdicts.values()} == {(State.WAITING, 1, 0)}


def test_a_rejection_of_a_single_upload_is_about_its_file() -> None:
    verdict = fail(RequestRejected("The file is not of MP4 video format."), upload(1, max_batch_clips=1)).verdicts[1]
    assert verdict.state is State.REFUSED


def test_a_rate_limit_waits_as_long_as_the_server_says_and_a_little_more() -> None:
    decision = fail(RateLimited("429", 20.0), upload(1))
    assert decision.verdicts == {}
    assert decision.backoff is not None
    assert decision.backoff.cause is Cause.RATE
    assert 20 <= decision.backoff.seconds <= 23


@pytest.mark.parametrize(
    "words", ["The file is not of MP4 video format.", "The duration must not be longer than 5 minutes.", "too large"]
)
def test_an_error_about_the_file_refuses_at_once(words: str) -> None:
    verdict = answered(upload(1), result(upload(1), words)).verdicts[1]
    assert verdict.state is State.REFUSED
    assert words in verdict.reason


def test_an_error_about_the_registration_holds_the_clip_for_an_hour() -> None:
    verdict = answered(upload(1), result(upload(1), "The registration has no active contract.")).verdicts[1]
    assert (verdict.state, verdict.retry_in_seconds, verdict.attempts) == (State.HELD, 3600, 0)


def test_another_error_retries_that_clip_alone_until_its_attempts_are_used_up() -> None:
    first = answered(upload(1), result(upload(1), "Oops"), peers_succeed=True).verdicts[1]
    assert (first.state, first.attempts, first.max_batch_clips) == (State.WAITING, 1, 1)
    assert first.retry_in_seconds > 0
    last = answered(upload(1, attempts=2), result(upload(1), "Oops"), peers_succeed=True).verdicts[1]
    assert last.state is State.REFUSED


@pytest.mark.parametrize(("words", "peers_succeed"), [("Oops", False), ("Try again later", False), ("Busy", True)])
def test_an_error_that_may_pass_backs_off_to_an_hour_without_an_attempt(words: str, peers_succeed: bool) -> None:
    verdicts = [
        answered(
            upload(1, attempts=2, batch_failures=failures), result(upload(1), words), peers_succeed=peers_succeed
        ).verdicts[1]
        for failures in range(12)
    ]
    assert {(v.state, v.attempts, v.max_batch_clips) for v in verdicts} == {(State.WAITING, 2, 1)}
    assert 22 <= verdicts[0].retry_in_seconds <= 30
    assert 2700 <= verdicts[-1].retry_in_seconds <= 3600


def test_a_4xx_to_a_clip_alone_counts_only_while_others_succeed() -> None:
    alone = upload(1, max_batch_clips=1, attempts=2)
    assert fail(RequestRejected("Conflict"), alone).verdicts[1].state is State.WAITING
    assert fail(RequestRejected("Conflict"), alone, peers_succeed=True).verdicts[1].state is State.REFUSED


def test_a_hold_for_rejections_grows_to_an_hour_and_names_the_message() -> None:
    holds = [hold_all("Oops", number, random.Random(1)) for number in range(1, 12)]
    assert {hold.cause for hold in holds} == {Cause.HELD}
    assert all("Oops" in hold.reason and "server or the account" in hold.reason for hold in holds)
    assert 22 <= holds[0].seconds <= 30
    assert 2700 <= holds[-1].seconds <= 3600


def test_a_result_with_an_id_is_delivered() -> None:
    verdict = answered(upload(1), result(upload(1), request_id="15139")).verdicts[1]
    assert (verdict.state, verdict.request_id) == (State.DELIVERED, "15139")


def test_a_clip_without_a_result_is_accepted_not_delivered() -> None:
    assert answered(upload(1), None).verdicts[1].state is State.ACCEPTED


def test_upload_confirm_decides_what_counts_as_delivered() -> None:
    assert answered(upload(1), None, "answer").verdicts[1].state is State.DELIVERED
    assert answered(upload(1), result(upload(1), request_id="7"), "poll").verdicts[1].state is State.ACCEPTED


def test_a_missing_stored_file_is_lost_and_the_other_clips_go_on() -> None:
    decision = fail(ClipUnreadable(Path("/spool/2.mp4"), "gone"), upload(1), upload(2))
    assert {id: verdict.state for id, verdict in decision.verdicts.items()} == {2: State.LOST}
    assert decision.backoff is None


def test_a_stored_file_that_is_unreadable_for_now_is_kept_and_retried() -> None:
    unreadable = ClipUnreadable(Path("/spool/2.mp4"), "cannot be read: Input/output error", is_transient=True)
    verdict = fail(unreadable, upload(1), upload(2)).verdicts[2]
    assert (verdict.state, verdict.attempts, verdict.max_batch_clips) == (State.WAITING, 1, 1)
    assert verdict.retry_in_seconds > 0
    assert fail(unreadable, upload(2, attempts=2)).verdicts[2].state is State.REFUSED


def test_a_link_that_is_down_is_retried_quickly_then_every_two_minutes() -> None:
    rng = random.Random(2)
    for failures in range(1, 7):
        assert all(2.0 ** (failures - 2) <= link_delay(failures, rng) <= 2.0 ** (failures - 1) for _ in range(50))
    assert all(0 <= link_delay(7, rng) <= 120 for _ in range(50))
    assert all(108 <= link_delay(failures, rng) <= 132 for failures in range(8, 40))
    assert all(540 <= link_delay(9, rng, steady_seconds=600.0) <= 660 for _ in range(50))


def test_a_link_that_passes_no_footage_backs_off_to_five_minutes() -> None:
    rng = random.Random(2)
    for failures in range(1, 40):
        most = min(300.0, 2.0 ** (failures - 1))
        assert all(0 <= weak_link_delay(failures, rng) <= most for _ in range(50))
    assert max(weak_link_delay(30, rng) for _ in range(200)) > 250


def test_the_backoff_of_a_clip_grows_to_an_hour() -> None:
    rng = random.Random(3)
    assert 22 <= clip_delay(1, rng) <= 30
    assert 2700 <= clip_delay(50, rng) <= 3600


def test_a_rate_limit_without_a_time_backs_off_too() -> None:
    assert rate_limit_delay(None, 1, random.Random(4)) >= 1


def test_a_batch_is_filled_up_to_its_limits() -> None:
    clips = [upload(id, size_bytes=40) for id in range(10)]
    assert [u.id for u in fill_batch(iter(clips), BatchLimits(3, 1000))] == [0, 1, 2]
    assert [u.id for u in fill_batch(iter(clips), BatchLimits(9, 100))] == [0, 1]


def test_a_clip_over_the_byte_limit_is_sent_alone() -> None:
    assert [u.id for u in fill_batch(iter([upload(1, size_bytes=500), upload(2)]), BatchLimits(5, 100))] == [1]


def test_suspected_clips_share_a_batch_only_with_each_other_and_in_small_numbers() -> None:
    clips = [upload(1, max_batch_clips=2), upload(2), upload(3, max_batch_clips=2), upload(4, max_batch_clips=2)]
    assert [u.id for u in fill_batch(iter(clips), BatchLimits(5, 1000))] == [1, 3]
    assert [u.id for u in fill_batch(iter([upload(5), *clips]), BatchLimits(5, 1000))] == [5, 2]


def test_after_a_failure_unsuspected_clips_go_first() -> None:
    clips = [
        upload(1, batch_failures=2, max_batch_clips=1),
        upload(2, batch_failures=1, max_batch_clips=3),
        upload(3),
        upload(4),
    ]
    limits = BatchLimits(5, 1000)
    assert [u.id for u in fill_batch(iter(clips), limits, prefer_unsuspected=True)] == [3, 4]
    assert [u.id for u in fill_batch(iter(clips[:2]), limits, prefer_unsuspected=True)] == [2]
    assert [u.id for u in fill_batch(iter(clips), limits)] == [1]
    assert fill_batch(iter([]), limits, prefer_unsuspected=True) == []


def test_two_clips_with_the_same_key_never_share_a_request() -> None:
    twin = Upload(9, upload(1).key, "", Path("/spool/9.mp4"), 100, 0)
    assert [u.id for u in fill_batch(iter([upload(1), twin, upload(2)]), BatchLimits(5, 1000))] == [1, 2]
