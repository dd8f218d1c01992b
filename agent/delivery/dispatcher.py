"""The loop that delivers: claim a batch, send it, carry out what the attempt decided, pause when there is reason to."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from agent.config import UploadSettings
from agent.delivery.backoff import LINK_QUICK_FAILURES
from agent.delivery.batch_size import BatchSizer
from agent.delivery.batching import BatchLimits, fill_batch
from agent.delivery.confirmation import POLL_SECONDS, ConfirmationPoller
from agent.delivery.decisions import Backoff, Cause, Decision, Policy, decide_failure, decide_results
from agent.delivery.fair_share import RequestScheduler, link_retry_seconds, poll_interval
from agent.delivery.poison import PoisonDetector
from agent.delivery.progress import Activity
from agent.errors import Cancelled, DeliveryError, LinkDown, RateLimited, SpoolFull
from agent.model import State, Upload, Verdict
from agent.spool import Spool
from agent.vision.client import VisionClient

log = structlog.get_logger()

IDLE_SECONDS = 15.0
FULL_SECONDS = 10.0
LOG_STATES = {State.REFUSED: "clip_refused", State.HELD: "clip_held", State.LOST: "clip_lost"}


class Dispatcher:
    """Delivers the clips of a spool until it is told to stop.

    Args:
        spool: where the clips wait.
        client: the API.
        settings: [upload].
        stop: set when the daemon is to stop.
        on_change: called when `activity` is another one; of progress only from clip to clip.
        rng: for jitter.
        monotonic: seconds of a clock that no one sets; pauses are counted on it.
        now: Unix seconds, as the spool counts its due times.
    """

    def __init__(
        self,
        spool: Spool,
        client: VisionClient,
        settings: UploadSettings,
        stop: threading.Event,
        *,
        on_change: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._client = client
        self._settings = settings
        self._stop = stop
        self._on_change = on_change
        self._rng = rng or random.Random()  # noqa: S311  # jitter, not a secret
        self._monotonic = monotonic
        self._now = now
        clips = 1 if settings.mode == "single" else settings.batch_clips
        self._limits = BatchLimits(clips, settings.batch_bytes)
        self._policy = Policy(settings.attempts, settings.confirm, link_retry_seconds(settings.vehicles))
        self._batch_sizer = BatchSizer(settings.request_seconds)
        self._scheduler = RequestScheduler(settings.vehicles, self._rng)
        self._wake = threading.Event()
        self._activity = Activity()
        self._preflight_ok = False
        self._failures = 0
        self._backoff_until = 0.0
        self._linger_until: float | None = None
        # What was decided but is not in the spool yet: the verdicts, and the clips of the batch.
        self._pending_write: tuple[Mapping[int, Verdict], list[int]] = ({}, [])
        self._poison = PoisonDetector()
        # After a failure that the API's answers do not excuse, the clips go first that have nothing to do with it.
        self._prefer_unsuspected = False
        polls = poll_interval(settings.vehicles, POLL_SECONDS)
        self._poller = ConfirmationPoller(
            spool, client, self._policy, self._rng, seconds=polls, monotonic=monotonic, now=now
        )

    @property
    def activity(self) -> Activity:
        return self._activity

    def wake(self) -> None:
        """Says that there may be something to send: a clip was taken in, or someone asked for a retry."""
        self._wake.set()

    def run(self, alive: Callable[[], None] = lambda: None) -> None:
        """Delivers until `stop` is set.

        Args:
            alive: called several times a minute, as a sign that the loop moves.
        """
        while not self._stop.is_set():
            alive()
            seconds = self.step()
            if self._wake.wait(min(seconds, IDLE_SECONDS)):
                self._wake.clear()
        with suppress(SpoolFull):
            self._flush_pending()

    def step(self) -> float:
        """One turn: at most one request that carries clips.

        While the spool's disk is too full for the last batch's verdicts nothing more is sent: a verdict that is not
        written would have its clip sent again.

        Returns:
            Seconds until there may be something to do; 0 to go on at once.
        """
        paused = self._backoff_until - self._monotonic()
        if paused > 0:
            return paused
        try:
            self._flush_pending()
            return self._turn()
        except SpoolFull as exc:
            self._back_off(Backoff(Cause.DISK, FULL_SECONDS, f"{exc}: nothing is sent until its result can be noted"))
            return FULL_SECONDS

    def _turn(self) -> float:
        self._poll()
        if self._backoff_until > self._monotonic():
            return self._backoff_until - self._monotonic()
        waiting = self._spool.count_ready(self._limits.clips)
        if waiting == 0:
            self._linger_until = None
            self._set_status("idle", reason="")
            return self._seconds_to_next()
        not_yet = self._linger_seconds(waiting) or self._slot_wait_seconds()
        if not_yet > 0:
            return not_yet
        if not self._preflight_ok and not self._preflight():
            return max(0.0, self._backoff_until - self._monotonic())
        spare = self._prefer_unsuspected
        limits = replace(self._limits, size_bytes=min(self._limits.size_bytes, self._batch_sizer.request_bytes))
        batch = self._spool.claim(lambda ready: fill_batch(ready, limits, prefer_unsuspected=spare))
        self._linger_until = None
        if batch:
            self._attempt(batch)
        return max(0.0, self._backoff_until - self._monotonic())

    def _linger_seconds(self, waiting: int) -> float:
        """Seconds to let more clips come, so that a burst shares one request."""
        if waiting >= self._limits.clips or self._settings.mode == "single":
            return 0.0
        if self._linger_until is None:
            self._linger_until = self._monotonic() + self._settings.linger_seconds
        seconds = max(0.0, self._linger_until - self._monotonic())
        if seconds > 0:
            self._set_status("waiting for more clips")
        return seconds

    def _slot_wait_seconds(self) -> float:
        """Seconds to leave to the other vehicles of the account."""
        seconds = self._scheduler.seconds_to_next(self._monotonic())
        if seconds > 0:
            self._set_status(
                "waiting for its turn", reason=f"upload.vehicles = {self._settings.vehicles} share the requests"
            )
        return seconds

    def _preflight(self) -> bool:
        """Asks for the status table, which costs little, before any footage is sent; decides whether to start now."""
        try:
            self._client.videos_status()
        except Cancelled:
            return False
        except DeliveryError as error:
            self._handle_failure(error, [], api_answers=False)
            return False
        self._scheduler.record_request(self._monotonic())
        self._preflight_ok = True
        return not self._scheduler.strict_slots

    def _attempt(self, batch: list[Upload]) -> None:
        self._set_status("uploading", batch_clips=len(batch), batch_position=1, sent_bytes=0, batch_bytes=_size(batch))
        started = self._monotonic()
        self._scheduler.record_request(started)
        try:
            results, all_errors_matched = self._send(batch)
        except LinkDown as error:
            self._batch_sizer.record_failure(self._sent_footage(batch), self._monotonic() - started)
            self._handle_failure(error, batch, api_answers=self._api_answers())
            return
        except Cancelled:
            self._spool.release(upload.id for upload in batch)
            return
        except DeliveryError as error:
            self._handle_failure(error, batch, api_answers=False)
            return
        except BaseException:
            self._spool.release(upload.id for upload in batch)
            raise
        seconds = max(self._monotonic() - started, 0.001)
        self._batch_sizer.record_success(_size(batch), seconds)
        self._scheduler.record_success()
        self._failures = 0
        self._poison.record_success(batch, self._monotonic())
        self._prefer_unsuspected = False
        self._set_status("idle", link="ok", reason="")
        # Silence is success only where every error of the answer is that of a clip.
        policy = self._policy
        if policy.confirm == "answer" and not all_errors_matched:
            policy = replace(policy, confirm="auto")
        self._apply(decide_results(batch, results, policy, self._rng), batch)
        log.info("batch_sent", clips=len(batch), bytes=_size(batch), seconds=round(seconds, 2))

    def _send(self, batch: list[Upload]):  # type: ignore[no-untyped-def]
        alone = len(batch) == 1 and (self._settings.mode == "single" or batch[0].max_batch_clips == 1)
        if alone:
            return {batch[0].id: self._client.upload_single(batch[0], progress=self._progress)}, True
        answer = self._client.upload_bulk(
            batch,
            encoding=self._settings.encoding,
            webhook_url=self._settings.webhook_url,
            progress=self._progress,
        )
        return answer.results, answer.all_errors_matched

    def _progress(self, sent_bytes: int, position: int) -> None:
        before = self._activity
        self._activity = replace(before, sent_bytes=sent_bytes, batch_position=position + 1)
        if self._activity.batch_position != before.batch_position:
            self._on_change()

    def _sent_footage(self, batch: list[Upload]) -> float:
        """How many bytes of footage have left with the request that broke."""
        share = 0.75 if self._settings.encoding == "json" else 1.0  # base64
        return min(share * self._activity.sent_bytes, _size(batch))

    def _api_answers(self) -> bool:
        try:
            self._client.videos_status()
        except (Cancelled, DeliveryError):
            return False
        self._scheduler.record_request(self._monotonic())
        return True

    def _handle_failure(self, error: DeliveryError, batch: list[Upload], *, api_answers: bool) -> None:
        self._preflight_ok = self._preflight_ok and isinstance(error, RateLimited)
        if isinstance(error, (LinkDown, RateLimited)):
            self._failures += 1
        at = self._monotonic()
        if isinstance(error, RateLimited):
            self._scheduler.record_rate_limit(at, error.retry_after_seconds)
        elif self._failures > LINK_QUICK_FAILURES and not api_answers:
            self._scheduler.record_outage(at)
        peers_succeed = len(batch) == 1 and self._poison.peers_succeed(batch[0], at)
        if api_answers:
            self._poison.record_failure(batch, at)
            self._prefer_unsuspected = True
        decision = decide_failure(
            batch,
            error,
            api_answers=api_answers,
            peers_succeed=peers_succeed,
            failures=self._failures,
            policy=self._policy,
            rng=self._rng,
        )
        self._apply(decision, batch)

    def _apply(self, decision: Decision, batch: list[Upload]) -> None:
        self._pending_write = (decision.verdicts, [upload.id for upload in batch])
        if decision.batch_bytes is not None:
            self._limits = replace(self._limits, size_bytes=decision.batch_bytes)
            log.warning("batches_made_smaller", batch_bytes=decision.batch_bytes, reason="413 from the server")
        if decision.pause is not None:
            self._back_off(decision.pause)
        self._flush_pending()
        alike = self._hold_vehicle(decision.verdicts, batch)
        self._pending_write = (alike, list(alike))
        self._flush_pending()

    def _hold_vehicle(self, verdicts: Mapping[int, Verdict], batch: list[Upload]) -> dict[int, Verdict]:
        """The same for all clips of a vehicle that the API does not take: one is enough to ask with."""
        held: dict[tuple[str, int], Verdict] = {}
        passing: set[tuple[str, int]] = set()
        for upload in batch:
            verdict, which = verdicts.get(upload.id), (upload.key.registration, upload.key.camera)
            if verdict is not None and verdict.state is State.HELD:
                held[which] = verdict
            elif verdict is not None and verdict.state in (State.DELIVERED, State.ACCEPTED):
                passing.add(which)
        for which in passing:
            held.pop(which, None)
        if not held:
            return {}
        others = self._spool.claim(lambda r: [u for u in r if (u.key.registration, u.key.camera) in held])
        return {u.id: replace(held[u.key.registration, u.key.camera], attempts=u.attempts) for u in others}

    def _flush_pending(self) -> None:
        """Notes in the spool what was decided last, and gives back the clips of which nothing was decided.

        Raises:
            SpoolFull: that must be tried again.
        """
        verdicts, batch = self._pending_write
        self._settle(verdicts)
        self._pending_write = ({}, batch)
        if batch:
            self._spool.release(id for id in batch if id not in verdicts)
        self._pending_write = ({}, [])

    def _settle(self, verdicts: Mapping[int, Verdict]) -> None:
        if not verdicts:
            return
        for record in self._spool.settle(verdicts):
            self._poller.on_settled(record)
            if record.state is not State.WAITING:
                self._poison.forget([record.id])
            _log_clip(record.id, record.state, record.footage.path.name, record.reason)

    def _back_off(self, pause: Backoff) -> None:
        self._backoff_until = self._monotonic() + pause.seconds
        repeated = self._activity.doing == pause.cause.value and self._activity.reason == pause.reason
        self._set_status(pause.cause.value, link="down" if pause.cause is Cause.LINK else "ok", reason=pause.reason)
        # A hold or an outage that goes on is one piece of news, not one every few minutes.
        write = log.debug if repeated else log.warning
        write("delivery_paused", cause=pause.cause.value, seconds=round(pause.seconds, 1), reason=pause.reason)

    def _poll(self) -> None:
        try:
            self._settle(self._poller.poll())
        except RateLimited as error:
            self._handle_failure(error, [], api_answers=False)
        except (Cancelled, DeliveryError) as error:
            log.debug("confirmation_failed", reason=str(error))

    def _seconds_to_next(self) -> float:
        due = self._spool.ledger.next_due()
        seconds = IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.0, due - self._now()))
        if self._spool.ledger.counts([State.ACCEPTED])[State.ACCEPTED].clips:
            seconds = min(seconds, self._poller.seconds_to_next())
        return seconds

    def _set_status(self, doing: str, *, link: str | None = None, reason: str | None = None, **batch: int) -> None:
        before = self._activity
        self._activity = Activity(
            doing=doing,
            link=before.link if link is None else link,
            reason=before.reason if reason is None else reason,
            **batch,
        )
        if self._activity != before:
            self._on_change()


def _log_clip(id: int, state: State, footage: str, reason: str) -> None:
    event = LOG_STATES.get(state)
    if event is not None:
        log.warning(event, clip=id, footage=footage, reason=reason)
    elif state is State.WAITING and reason:
        log.warning("clip_deferred", clip=id, footage=footage, reason=reason)
    else:
        log.info(f"clip_{state.value}", clip=id, footage=footage)


def _size(batch: list[Upload]) -> int:
    return sum(upload.size_bytes for upload in batch)
