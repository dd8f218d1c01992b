"""The delivery loop: write what was decided, wait until a request is allowed, send a batch, apply the decision."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from agent.config import UploadSettings
from agent.delivery.backoff import LINK_QUICK_FAILURES
from agent.delivery.batch_size import BatchSizer
from agent.delivery.batching import BatchLimits, fill_batch
from agent.delivery.confirmation import POLL_SECONDS, ConfirmationPoller
from agent.delivery.decisions import (
    Backoff,
    Cause,
    Decision,
    Policy,
    decide_failure,
    decide_results,
    hold_all,
    vehicles_to_hold,
)
from agent.delivery.fair_share import RequestScheduler, link_retry_seconds, poll_interval
from agent.delivery.pacing import Action, PacingState, Wait, next_allowed_at
from agent.delivery.poison import PoisonDetector
from agent.delivery.progress import Activity, Progress
from agent.errors import Cancelled, DeliveryError, LinkDown, RateLimited, RequestRejected, SpoolFull
from agent.model import State, Upload, Verdict
from agent.spool import Spool
from agent.spool.records import Record
from agent.vision.client import UploadResponse, VisionClient

log = structlog.get_logger()

IDLE_SECONDS = 15.0
DISK_FULL_SECONDS = 10.0


class Dispatcher:
    """Delivers the clips of a spool until it is told to stop.

    `run` and `step` belong to one thread (delivery), which owns all state in here. Other threads may call `wake` (an
    Event) and read `activity` (see `Progress`), and set `stop`.

    Args:
        spool: where the clips wait.
        client: the API; only the delivery thread sends requests.
        settings: [upload].
        stop: set when the daemon is to stop.
        on_change: called in the delivery thread when `activity` has changed; for bytes sent, only once a clip.
        rng: for jitter.
        monotonic: seconds of a clock that is never set; all waits are measured on it.
        now: Unix seconds, by which the spool counts due times.
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
        self._rng = rng or random.Random()  # noqa: S311  # jitter, not a secret
        self._monotonic = monotonic
        self._now = now
        clips = 1 if settings.mode == "single" else settings.batch_clips
        self._limits = BatchLimits(clips, settings.batch_bytes)
        self._policy = Policy(settings.attempts, settings.confirm, link_retry_seconds(settings.vehicles))
        self._batch_sizer = BatchSizer(settings.request_seconds)
        self._scheduler = RequestScheduler(settings.vehicles, self._rng)
        self._poison = PoisonDetector()
        self._rejections = PoisonDetector()
        self._progress = Progress(on_change)
        self._poller = ConfirmationPoller(
            spool,
            client,
            self._policy,
            self._rng,
            interval_seconds=poll_interval(settings.vehicles, POLL_SECONDS),
            monotonic=monotonic,
            now=now,
        )
        self._wake = threading.Event()
        self._preflight_ok = False
        self._failures = 0
        self._backoff_until = 0.0
        self._linger_until: float | None = None
        # Decided but not written to the spool yet: the verdicts, and the ids of the batch.
        self._pending_write: tuple[Mapping[int, Verdict], list[int]] = ({}, [])
        # Clips that the API rejected since it last accepted one, though not for a fault that is plainly theirs.
        self._rejected: set[int] = set()
        self._holds = 0
        # After an upload failed although the API responds: start the next batch with clips that were not in it.
        self._prefer_unsuspected = False

    @property
    def activity(self) -> Activity:
        """For any thread."""
        return self._progress.current

    def wake(self) -> None:
        """There may be something to send: a clip was taken in, or somebody asked for a retry. For any thread."""
        self._wake.set()

    def run(self, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Delivers until `stop` is set.

        Args:
            heartbeat: called several times a minute, as a sign that the loop is alive.
        """
        while not self._stop.is_set():
            heartbeat()
            seconds = self.step()
            if self._wake.wait(min(seconds, IDLE_SECONDS)):
                self._wake.clear()
        with suppress(SpoolFull):
            self._flush_pending()

    def step(self) -> float:
        """One turn of the loop: at most one request that carries clips.

        While the spool's disk is too full for the verdicts of the last batch nothing more is sent: a clip whose verdict
        is not written would be sent again.

        Returns:
            Seconds until there may be something to do; 0 to go on at once.
        """
        try:
            self._flush_pending()
            return self._request()
        except SpoolFull as exc:
            self._back_off(Backoff(Cause.DISK, DISK_FULL_SECONDS, f"{exc}: nothing is sent until results can be saved"))
            return self._backoff_seconds()

    def _request(self) -> float:
        """Makes the request that is allowed now, if there is one; returns the seconds to wait."""
        while True:
            now = self._monotonic()
            allowed = next_allowed_at(self._pacing_state(now), now)
            if allowed.at > now:
                self._show_wait(allowed.wait)
                return allowed.at - now
            if allowed.action is not Action.POLL:
                break
            self._poll()
        if allowed.action is Action.UPLOAD or self._preflight():
            # While the API accepts no clip, one is enough to ask with.
            clips = 1 if self._holds else self._limits.clips
            limits = BatchLimits(clips, min(self._limits.size_bytes, self._batch_sizer.request_bytes))
            unsuspected = self._prefer_unsuspected or self._holds > 0
            batch = self._spool.claim(lambda ready: fill_batch(ready, limits, prefer_unsuspected=unsuspected))
            self._linger_until = None
            if self._settings.mode == "single":
                batch = [replace(upload, max_batch_clips=1) for upload in batch]
            if batch:
                self._attempt(batch)
        return self._backoff_seconds()

    def _pacing_state(self, now: float) -> PacingState:
        ready = self._spool.count_ready(self._limits.clips)
        if ready == 0:
            self._linger_until = None
        elif self._linger_until is None:
            self._linger_until = now + self._settings.linger_seconds
        is_full = ready >= self._limits.clips or self._settings.mode == "single"
        return PacingState(
            backoff_until=self._backoff_until,
            clips_at=now if ready else now + self._seconds_to_next_clip(),
            linger_until=now if is_full or self._linger_until is None else self._linger_until,
            slot_at=self._scheduler.next_at,
            preflight_ok=self._preflight_ok,
            poll_at=self._poller.next_at,
        )

    def _seconds_to_next_clip(self) -> float:
        """Until the next deferred clip is due; at most IDLE_SECONDS, since the clock of due times may be set."""
        due = self._spool.ledger.next_due()
        return IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.0, due - self._now()))

    def _show_wait(self, wait: Wait) -> None:
        if wait is not Wait.BACKOFF:  # shown since it began
            reasons = {
                Wait.CLIPS: "",
                Wait.SLOT: f"upload.vehicles = {self._settings.vehicles} share the account's rate limit",
            }
            self._progress.set_status(wait.value, reason=reasons.get(wait))

    def _preflight(self) -> bool:
        """Asks for the status table, a small request, before any footage is sent.

        Returns:
            Whether to upload at once.
        """
        try:
            self._client.videos_status()
        except Cancelled:
            return False
        except DeliveryError as error:
            self._handle_failure(error, [])
            return False
        self._scheduler.record_request(self._monotonic())
        self._preflight_ok = True
        return not self._scheduler.strict_slots

    def _attempt(self, batch: list[Upload]) -> None:
        size_bytes = sum(upload.size_bytes for upload in batch)
        self._progress.start_batch(len(batch), size_bytes)
        started = self._monotonic()
        self._scheduler.record_request(started)
        try:
            response = self._send(batch)
        except LinkDown as error:
            self._batch_sizer.record_failure(self._sent_footage(size_bytes), self._monotonic() - started)
            self._handle_failure(error, batch, api_responds=self._api_responds())
            return
        except DeliveryError as error:
            self._handle_failure(error, batch)
            return
        except Cancelled:
            self._spool.release(upload.id for upload in batch)
            return
        except BaseException:
            self._spool.release(upload.id for upload in batch)
            raise
        seconds = max(self._monotonic() - started, 0.001)
        self._batch_sizer.record_success(size_bytes, seconds)
        self._scheduler.record_success()
        self._failures = 0
        self._poison.record_success(batch, self._monotonic())
        self._prefer_unsuspected = False
        self._progress.set_status("idle", link="ok", reason="")
        # Treat a missing result as success only if every error in the response was matched to a clip.
        policy = self._policy
        if policy.confirm == "answer" and not response.all_errors_matched:
            policy = replace(policy, confirm="auto")
        self._apply(self._decide_results(batch, response, policy), batch)
        log.info("batch_sent", clips=len(batch), bytes=size_bytes, seconds=round(seconds, 2))

    def _decide_results(self, batch: list[Upload], response: UploadResponse, policy: Policy) -> Decision:
        at = self._monotonic()
        results = response.results
        failed = [upload for upload in batch if upload.id in results and results[upload.id].errors]
        self._rejections.record_failure(failed, at)
        if len(failed) < len(batch):
            self._rejections.record_success([upload for upload in batch if upload not in failed], at)
        suspects = {upload.id for upload in failed if self._rejections.peers_succeed(upload, at)}
        decision = decide_results(batch, results, policy, self._rng, peers_succeed=suspects)
        return self._hold_if_all_rejected(decision, suspects)

    def _hold_if_all_rejected(self, decision: Decision, suspects: Container[int]) -> Decision:
        """Holds delivery if the API rejected several clips in a row and accepted none.

        Args:
            suspects: clips that are rejected while others succeed: that is no reason to hold.
        """
        rejected = {}
        for id, verdict in decision.verdicts.items():
            if verdict.state in (State.DELIVERED, State.ACCEPTED):
                self._rejected.clear()
                self._holds = 0
                return decision
            if verdict.state is State.WAITING and id not in suspects:
                rejected[id] = verdict.reason
        self._rejected.update(rejected)
        if not rejected or len(self._rejected) < 2:
            return decision
        self._holds += 1
        return replace(decision, backoff=hold_all(next(iter(rejected.values())), self._holds, self._rng))

    def _send(self, batch: list[Upload]) -> UploadResponse:
        """The one place that sends footage: a clip that must be alone by the single upload, others by the bulk upload.

        Raises:
            DeliveryError: the request failed; nothing is known about what the server did.
            Cancelled: the daemon is to stop.
        """
        progress = self._progress.record_sent
        if len(batch) == 1 and batch[0].max_batch_clips == 1:
            return self._client.upload_single(batch[0], progress=progress)
        return self._client.upload_bulk(
            batch, encoding=self._settings.encoding, webhook_url=self._settings.webhook_url, progress=progress
        )

    def _sent_footage(self, size_bytes: int) -> float:
        """Bytes of footage that were sent with the request that broke."""
        share = 0.75 if self._settings.encoding == "json" else 1.0  # base64
        return min(share * self.activity.sent_bytes, size_bytes)

    def _api_responds(self) -> bool:
        try:
            self._client.videos_status()
        except (Cancelled, DeliveryError):
            return False
        self._scheduler.record_request(self._monotonic())
        return True

    def _handle_failure(self, error: DeliveryError, batch: list[Upload], *, api_responds: bool = False) -> None:
        at = self._monotonic()
        self._preflight_ok = self._preflight_ok and isinstance(error, RateLimited)
        if isinstance(error, (LinkDown, RateLimited)):
            self._failures += 1
        if isinstance(error, RateLimited):
            self._scheduler.record_rate_limit(at, error.retry_after_seconds)
        elif self._failures > LINK_QUICK_FAILURES and not api_responds:
            self._scheduler.record_outage(at)
        is_alone, is_rejected = len(batch) == 1, isinstance(error, RequestRejected)
        detector = self._rejections if is_rejected else self._poison
        if is_alone and is_rejected:
            detector.record_failure(batch, at)
        peers_succeed = is_alone and detector.peers_succeed(batch[0], at)
        if api_responds:
            self._poison.record_failure(batch, at)
            self._prefer_unsuspected = True
        decision = decide_failure(
            batch,
            error,
            api_responds=api_responds,
            peers_succeed=peers_succeed,
            failures=self._failures,
            policy=self._policy,
            rng=self._rng,
        )
        if is_alone and is_rejected and batch[0].max_batch_clips == 1:
            decision = self._hold_if_all_rejected(decision, {batch[0].id} if peers_succeed else ())
        self._apply(decision, batch)

    def _apply(self, decision: Decision, batch: list[Upload]) -> None:
        self._pending_write = (decision.verdicts, [upload.id for upload in batch])
        if decision.batch_bytes is not None:
            self._limits = replace(self._limits, size_bytes=decision.batch_bytes)
            log.warning("batches_made_smaller", batch_bytes=decision.batch_bytes, reason="413 from the server")
        if decision.backoff is not None:
            self._back_off(decision.backoff)
        self._flush_pending()
        self._hold_vehicles(vehicles_to_hold(batch, decision.verdicts))

    def _hold_vehicles(self, held: Mapping[tuple[str, int], Verdict]) -> None:
        """Holds all waiting clips of vehicles that the API rejects: later one clip is enough to ask with."""
        if not held:
            return
        others = self._spool.claim(lambda ready: [u for u in ready if (u.key.registration, u.key.camera) in held])
        verdicts = {u.id: replace(held[u.key.registration, u.key.camera], attempts=u.attempts) for u in others}
        self._pending_write = (verdicts, list(verdicts))
        self._flush_pending()

    def _flush_pending(self) -> None:
        """Writes to the spool what was decided last, and releases the clips of the batch that have no verdict.

        Raises:
            SpoolFull: to be tried again.
        """
        verdicts, batch = self._pending_write
        self._settle(verdicts)
        self._pending_write = ({}, batch)
        if batch:
            self._spool.release(id for id in batch if id not in verdicts)
        self._pending_write = ({}, [])

    def _settle(self, verdicts: Mapping[int, Verdict]) -> None:
        for record in self._spool.settle(verdicts) if verdicts else ():
            self._poller.on_settled(record)
            if record.state is not State.WAITING:
                self._poison.forget([record.id])
                self._rejections.forget([record.id])
            _log_clip(record)

    def _poll(self) -> None:
        try:
            self._settle(self._poller.poll())
        except RateLimited as error:
            self._handle_failure(error, [])
        except (Cancelled, DeliveryError) as error:
            log.debug("confirmation_failed", reason=str(error))

    def _back_off(self, backoff: Backoff) -> None:
        # A full disk must not shorten a wait that the server asked for.
        self._backoff_until = max(self._backoff_until, self._monotonic() + backoff.seconds)
        is_repeated = self.activity.doing == backoff.cause.value and self.activity.reason == backoff.reason
        link = "down" if backoff.cause is Cause.LINK else "ok"
        self._progress.set_status(backoff.cause.value, link=link, reason=backoff.reason)
        # Warn once when it begins, not every few minutes while it lasts.
        cause, seconds = backoff.cause.value, round(backoff.seconds, 1)
        if is_repeated:
            log.debug("delivery_paused", cause=cause, seconds=seconds, reason=backoff.reason)
        else:
            log.warning("delivery_paused", cause=cause, seconds=seconds, reason=backoff.reason)

    def _backoff_seconds(self) -> float:
        return max(0.0, self._backoff_until - self._monotonic())


def _log_clip(record: Record) -> None:
    # One line for each event, so that a search for its name finds it; tests/unit/test_log_events.py requires that.
    clip, footage, reason = record.id, str(record.footage.path), record.reason
    if record.state is State.REFUSED:
        log.warning("clip_refused", clip=clip, footage=footage, reason=reason)
    elif record.state is State.HELD:
        log.warning("clip_held", clip=clip, footage=footage, reason=reason)
    elif record.state is State.LOST:
        log.warning("clip_lost", clip=clip, footage=footage, reason=reason)
    elif record.state is State.ACCEPTED:
        log.info("clip_accepted", clip=clip, footage=footage, reason=reason)
    elif record.state is State.DELIVERED:
        log.info("clip_delivered", clip=clip, footage=footage, reason=reason)
    elif reason:
        log.warning("clip_deferred", clip=clip, footage=footage, reason=reason)
    else:
        log.info("clip_waiting", clip=clip, footage=footage, reason=reason)
