"""Clips that were taken without a result of their own are confirmed by the account's list of videos."""

from __future__ import annotations

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

# The contract: every 30 to 60 s. At random within, as the limit of requests is shared by all vehicles of the account.
POLL_SECONDS = (30.0, 60.0)
# Of one poll. What is left is asked for by the next ones.
MAX_QUERIES = 8
MAX_ITEMS = 200
MAX_WINDOW = timedelta(hours=6)
# A clip that was accepted before a restart is asked for at least so long, whatever the clock says of the time between.
RESTART_GRACE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class QueryWindow:
    """One query: the clips of one registration that begin within some hours.

    Args:
        first, last: the earliest and the latest start among the clips.
    """

    registration: str
    first: datetime
    last: datetime
    clips: tuple[Record, ...]


def query_windows(accepted: Iterable[Record]) -> list[QueryWindow]:
    """The queries that cover all these clips: few, and none over more time than WINDOW, however far they lie apart."""
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
    """Two queries for one: each of half the time, without what none of the clips needs."""
    middle = window.first + (window.last - window.first) / 2
    early = [record for record in window.clips if record.key and record.key.start <= middle]
    late = [record for record in window.clips if record.key and record.key.start > middle]
    return [*query_windows(early), *query_windows(late)]


def confirm(
    asked: Iterable[Record],
    listed: Iterable[VideoRequest],
    zone: ZoneInfo,
    *,
    overdue: Container[int],
    policy: Policy,
    rng: random.Random,
) -> Mapping[int, Verdict]:
    """What the API's list says of the clips that wait for confirmation.

    A clip is listed more than once if somebody asked for the same footage too: what is complete wins, then what still
    goes on.

    Args:
        asked: clips in state ACCEPTED that the list would name.
        listed: the account's videos, anyone's; matched by registration, camera and times.
        zone: of the API's timestamps.
        overdue: the numbers of the clips that have been waited for long enough.

    Returns:
        A verdict for each clip of which something is decided; the others go on waiting.
    """
    by_video: dict[tuple[str | int, ...], list[VideoRequest]] = {}
    for item in listed:
        if (key := _key(item, zone)) is not None:
            by_video.setdefault(key, []).append(item)
    verdicts: dict[int, Verdict] = {}
    for record in asked:
        if record.key is None:
            continue
        items = {item.status_id: item for item in by_video.get(match_key(record.key, zone), [])}
        if COMPLETE in items:
            request_id = items[COMPLETE].request_id
            verdicts[record.id] = Verdict(
                State.DELIVERED, "confirmed by the API", attempts=record.attempts, request_id=request_id
            )
        elif items.keys() & PENDING:
            continue
        elif failed := [FINAL_FAILURES[status] for status in items if status in FINAL_FAILURES]:
            verdicts[record.id] = failed_attempt(record, f"the API lists it as «{failed[0]}»", policy, rng)
        elif record.id in overdue:
            reason = "the API took it but did not confirm it in time"
            verdicts[record.id] = failed_attempt(record, reason, policy, rng)
    return verdicts


class WaitTimes:
    """For how long the clips have been waited for: on the monotonic clock, as the other one may be set meanwhile."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._from_before: set[int] = set()

    def start(self, id: int, at: float) -> None:
        """A clip was accepted in this run. `at`: monotonic seconds, here and below."""
        self._since[id] = at

    def asked(self, records: Iterable[Record], at: float) -> None:
        """These clips are asked for; one that is new here was accepted before a restart."""
        for record in records:
            if record.id not in self._since:
                self._since[record.id] = at
                self._from_before.add(record.id)

    def forget(self, ids: Iterable[int]) -> None:
        """These clips wait no longer."""
        for id in ids:
            self._since.pop(id, None)
            self._from_before.discard(id)

    def overdue(self, records: Iterable[Record], at: float, now: float) -> set[int]:
        """The clips that have been waited for long enough.

        Args:
            now: Unix seconds; believed only for what was accepted before a restart, and then not alone.
        """
        return {
            record.id for record in records if at - self._since.get(record.id, at) >= self._limit_seconds(record, now)
        }

    def _limit_seconds(self, record: Record, now: float) -> float:
        due_soon = now < record.due <= now + CONFIRM_TIMEOUT_SECONDS
        return RESTART_GRACE_SECONDS if record.id in self._from_before and not due_soon else CONFIRM_TIMEOUT_SECONDS


def select_queries(queries: Sequence[QueryWindow], turn: int) -> Sequence[QueryWindow]:
    """The queries of one poll: MOST_QUERIES of them, others with each turn."""
    first = turn * MAX_QUERIES % max(1, len(queries))
    return (*queries[first:], *queries[:first])[:MAX_QUERIES]


class ConfirmationPoller:
    """Asks now and then, for all clips in one query where they lie together.

    Args:
        spool: where the clips wait.
        client: the API.
        policy: what becomes of clips that are not confirmed.
        rng: for jitter.
        seconds: between two polls, from and to.
        monotonic: seconds of a clock that no one sets.
        now: Unix seconds.
    """

    def __init__(
        self,
        spool: Spool,
        client: VisionClient,
        policy: Policy,
        rng: random.Random,
        *,
        seconds: tuple[float, float] = POLL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._client = client
        self._policy = policy
        self._rng = rng
        self._seconds = seconds
        self._monotonic = monotonic
        self._now = now
        self._waiting = WaitTimes()
        self._at = 0.0
        self._turn = 0

    def seconds_to_next(self) -> float:
        """Until the list may be asked again."""
        return max(0.0, self._at - self._monotonic())

    def on_settled(self, record: Record) -> None:
        """A clip has changed its state."""
        if record.state is State.ACCEPTED:
            self._waiting.start(record.id, self._monotonic())
        else:
            self._waiting.forget([record.id])

    def poll(self) -> Mapping[int, Verdict]:
        """One poll, if it is time for one and anything waits.

        Returns:
            What is decided.

        Raises:
            DeliveryError: the list could not be had; nothing is decided then, and it is asked again at the next poll.
        """
        if self.seconds_to_next() > 0:
            return {}
        accepted = list(self._spool.ledger.records([State.ACCEPTED]))
        if not accepted:
            return {}
        self._at = self._monotonic() + self._rng.uniform(*self._seconds)
        verdicts: dict[int, Verdict] = {}
        turn, self._turn = self._turn, self._turn + 1
        left = list(select_queries(query_windows(accepted), turn))
        try:
            for _ in range(MAX_QUERIES):
                if not left:
                    break
                left = [*self._ask_for(left[0], verdicts), *left[1:]]
        except (Cancelled, DeliveryError):
            if not verdicts:
                raise
        return verdicts

    def _ask_for(self, window: QueryWindow, verdicts: dict[int, Verdict]) -> list[QueryWindow]:
        """Adds what is decided of a window to `verdicts`; returns its halves if the list is too long to tell."""
        try:
            items = self._client.all_requests(
                registration=window.registration, start_from=window.first, start_to=window.last
            )
            listed = list(islice(items, MAX_ITEMS))
        except RequestRejected:
            listed = []  # the list says nothing of these clips, now or later: their time runs out
        if len(listed) >= MAX_ITEMS and window.first < window.last:
            return split(window)
        at = self._monotonic()
        self._waiting.asked(window.clips, at)
        overdue = self._waiting.overdue(window.clips, at, self._now())
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
    named: HasKey = _Listed(item.registration, item.camera, item.start, item.end)
    return match_key(named, zone)
