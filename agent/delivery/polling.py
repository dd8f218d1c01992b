"""Asks the API's list for the clips that wait for confirmation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from itertools import islice

from agent.delivery.confirmation import (
    MAX_ITEMS,
    MAX_QUERIES,
    POLL_SECONDS,
    QueryWindow,
    WaitTimes,
    confirm,
    query_windows,
    select_queries,
    split,
)
from agent.delivery.decisions import Policy
from agent.errors import Cancelled, DeliveryError, RequestRejected
from agent.model import State, Verdict
from agent.spool import Spool
from agent.spool.records import Record
from agent.vision.client import VisionClient


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
