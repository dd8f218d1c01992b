"""Confirms clips that were accepted without a result of their own: looks them up in the account's list of videos."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from agent.delivery.decisions import CONFIRM_TIMEOUT_SECONDS, Policy, failed_attempt
from agent.errors import Cancelled, DeliveryError, RequestRejected
from agent.model import State, Verdict
from agent.spool import Spool
from agent.spool.records import Record
from agent.vision.assumptions import COMPLETE, FINAL_FAILURES, PENDING, HasKey, match_key
from agent.vision.client import VideoRequest, VisionClient

# The API asks for one poll every 30 to 60 s. At a random time within, since all vehicles share the rate limit.
POLL_SECONDS = (30.0, 60.0)
# Of one poll; further queries are made by the next polls.
MAX_QUERIES = 8
MAX_ITEMS = 200
MAX_WINDOW = timedelta(hours=6)
# A clip that was accepted before a restart is looked up for at least so long, whatever the wall clock says.
RESTART_GRACE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class QueryWindow:
    """One query: clips of one registration that start within some hours.

    Args:
        first, last: earliest and latest start of the clips.
    """

    registration: str
    first: datetime
    last: datetime
    clips: tuple[Record, ...]


def query_windows(accepted: Iterable[Record]) -> list[QueryWindow]:
    """The queries that cover all these clips: as few as possible, each no longer than MAX_WINDOW."""
    found: list[QueryWindow] = []
    waiting = [(record.key.registration, record.key.start, record) for record in accepted if record.key]
    for registration, start, record in sorted(waiting, key=lambda clip: clip[:2]):
        latest = found[-1] if found else None
        if latest is not None and latest.registration == registration and start - latest.first <= MAX_WINDOW:
            found[-1] = replace(latest, last=start, clips=(*latest.clips, record))
        else:
            found.append(QueryWindow(registration, start, start, (record,)))
    return found


def split(window: QueryWindow) -> list[QueryWindow]:
    """Two queries for one, each for half of the time, as narrow as the clips in it allow."""
    middle = window.first + (window.last - window.first) / 2
    early = [record for record in window.clips if record.key and record.key.start <= middle]
    late = [record for record in window.clips if record.key and record.key.start > middle]
    return [*query_windows(early), *query_windows(late)]


def select_queries(queries: Sequence[QueryWindow], poll: int) -> Sequence[QueryWindow]:
    """The queries of the poll with this number: MAX_QUERIES of them, in rotation."""
    first = poll * MAX_QUERIES % max(1, len(queries))
    return (*queries[first:], *queries[:first])[:MAX_QUERIES]


def confirm(
    clips: Iterable[Record],
    listed: Iterable[VideoRequest],
    zone: ZoneInfo,
    *,
    overdue: Container[int],
    policy: Policy,
    rng: random.Random,
) -> Mapping[int, Verdict]:
    """What the API's list says about accepted clips.

    A clip is listed several times if somebody requested the same footage. Then a complete entry decides, before one
    that is pending, before one that failed.

    Args:
        clips: in state ACCEPTED, within the time that was asked for.
        listed: the account's videos, whoever asked for them; matched by registration, camera and times.
        zone: of the API's timestamps.
        overdue: ids of clips whose time for confirmation has run out.

    Returns:
        The verdicts, by clip id; clips without one go on waiting.
    """
    by_key: dict[tuple[str | int, ...], dict[int | None, VideoRequest]] = {}
    for item in listed:
        if (key := _key(item, zone)) is not None:
            by_key.setdefault(key, {})[item.status_id] = item
    verdicts: dict[int, Verdict] = {}
    for record in clips:
        if record.key is None:
            continue
        items = by_key.get(match_key(record.key, zone), {})
        if COMPLETE in items:
            verdicts[record.id] = Verdict(
                State.DELIVERED,
                "confirmed by the API",
                attempts=record.attempts,
                request_id=items[COMPLETE].request_id,
            )
        elif items.keys() & PENDING:
            continue
        elif failed := [FINAL_FAILURES[status] for status in items if status in FINAL_FAILURES]:
            verdicts[record.id] = failed_attempt(record, f'the API lists it as "{failed[0]}"', policy, rng)
        elif record.id in overdue:
            verdicts[record.id] = failed_attempt(record, "accepted, but not confirmed in time", policy, rng)
    return verdicts


class WaitTimes:
    """How long accepted clips have waited, on the monotonic clock (`at`), since the wall clock may be set meanwhile."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._before_restart: set[int] = set()

    def start(self, id: int, at: float) -> None:
        """A clip was accepted in this run."""
        self._since[id] = at

    def track(self, records: Iterable[Record], at: float) -> None:
        """These clips are looked up. One that was not accepted in this run was accepted before a restart."""
        for record in records:
            if record.id not in self._since:
                self._since[record.id] = at
                self._before_restart.add(record.id)

    def forget(self, id: int) -> None:
        """This clip no longer waits."""
        self._since.pop(id, None)
        self._before_restart.discard(id)

    def overdue(self, records: Iterable[Record], at: float, now: float) -> set[int]:
        """The ids of clips that have waited long enough.

        Args:
            now: Unix seconds; used only for clips that were accepted before a restart, and never alone.
        """
        return {
            record.id for record in records if at - self._since.get(record.id, at) >= self._limit_seconds(record, now)
        }

    def _limit_seconds(self, record: Record, now: float) -> float:
        is_due_soon = now < record.due <= now + CONFIRM_TIMEOUT_SECONDS
        is_known = record.id not in self._before_restart or is_due_soon
        return CONFIRM_TIMEOUT_SECONDS if is_known else RESTART_GRACE_SECONDS


class ConfirmationPoller:
    """Looks accepted clips up in the API's list now and then, with few queries. Used by the delivery thread only.

    Args:
        spool: where the clips wait.
        client: the API.
        policy: what becomes of clips that are not confirmed.
        rng: for jitter.
        interval_seconds: shortest and longest time between two polls.
        monotonic: seconds of a clock that is never set.
        now: Unix seconds.
    """

    def __init__(
        self,
        spool: Spool,
        client: VisionClient,
        policy: Policy,
        rng: random.Random,
        *,
        interval_seconds: tuple[float, float] = POLL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._client = client
        self._policy = policy
        self._rng = rng
        self._interval_seconds = interval_seconds
        self._monotonic = monotonic
        self._now = now
        self._times = WaitTimes()
        self._not_before = -math.inf
        self._polls = 0
        # Perhaps: after a start, the spool may hold clips that were accepted before it.
        self._has_accepted = True

    @property
    def next_at(self) -> float:
        """Monotonic seconds of the next poll; in the past if it is due, infinite if nothing waits for confirmation."""
        return self._not_before if self._has_accepted else math.inf

    def on_settled(self, record: Record) -> None:
        """The state of a clip has changed."""
        if record.state is State.ACCEPTED:
            self._has_accepted = True
            self._times.start(record.id, self._monotonic())
        else:
            self._times.forget(record.id)

    def poll(self) -> Mapping[int, Verdict]:
        """One poll, if anything waits for confirmation; the caller sees to it that one is due.

        Returns:
            The verdicts, by clip id.

        Raises:
            DeliveryError: the list is not available; nothing is decided, and the next poll tries again.
        """
        accepted = list(self._spool.ledger.records([State.ACCEPTED]))
        self._has_accepted = bool(accepted)
        if not accepted:
            return {}
        self._not_before = self._monotonic() + self._rng.uniform(*self._interval_seconds)
        verdicts: dict[int, Verdict] = {}
        remaining = list(select_queries(query_windows(accepted), self._polls))
        self._polls += 1
        try:
            for _ in range(MAX_QUERIES):
                if remaining:
                    remaining = [*self._query(remaining[0], verdicts), *remaining[1:]]
        except (Cancelled, DeliveryError):
            if not verdicts:
                raise
        return verdicts

    def _query(self, window: QueryWindow, verdicts: dict[int, Verdict]) -> list[QueryWindow]:
        """Adds what is decided to `verdicts`; returns the halves of a window whose list is too long to read."""
        try:
            items = self._client.all_requests(
                registration=window.registration, start_from=window.first, start_to=window.last
            )
            listed = list(islice(items, MAX_ITEMS))
        except RequestRejected:
            listed = []  # the list will never name these clips: their time runs out
        if len(listed) >= MAX_ITEMS and window.first < window.last:
            return split(window)
        at = self._monotonic()
        self._times.track(window.clips, at)
        overdue = self._times.overdue(window.clips, at, self._now())
        zone = self._client.timezone
        verdicts.update(confirm(window.clips, listed, zone, overdue=overdue, policy=self._policy, rng=self._rng))
        return []


@dataclass(frozen=True, slots=True)
class _Listed:
    registration: str
    camera: int
    start: datetime
    end: datetime


def _key(item: VideoRequest, zone: ZoneInfo) -> tuple[str | int, ...] | None:
    if not item.registration or item.camera is None or item.start is None or item.end is None:
        return None
    listed: HasKey = _Listed(item.registration, item.camera, item.start, item.end)
    return match_key(listed, zone)
