"""Confirmation when queries are rejected or the list is very long, with a double of the API."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.config import SpoolSettings
from agent.delivery.confirmation import ConfirmationPoller
from agent.delivery.decisions import Policy
from agent.errors import RequestRejected
from agent.model import Clip, ClipKey, Footage, State, Verdict
from agent.spool import Spool
from agent.vision.assumptions import COMPLETE
from agent.vision.client import VideoRequest
from tests.support.spooling import take

START = datetime(2026, 7, 28, 6, tzinfo=timezone.utc)
POLL = 60.0


class List:
    """The account's list: rejects one registration, and has every minute of the other from eight cameras."""

    timezone = ZoneInfo("UTC")

    def __init__(self) -> None:
        self.pages = 0

    def all_requests(self, *, registration: str, start_from: datetime, start_to: datetime) -> Iterator[VideoRequest]:
        if registration == "REFUSED":
            raise RequestRejected("the registration is invalid")
        minutes = range(
            int((start_from - START).total_seconds() / 60), int((start_to - START).total_seconds() / 60) + 1
        )
        clips = [(minute, camera) for minute in minutes for camera in range(8) if (minute, camera) != (0, 0)]
        for number, (minute, camera) in enumerate(clips):
            self.pages += number % 100 == 0
            start = START + timedelta(minutes=minute)
            end = start + timedelta(minutes=1)
            yield VideoRequest("1", registration, camera, COMPLETE, None, start, end, 60, None)


class Account:
    """A spool with accepted clips, a poller, and a clock that only the test moves."""

    def __init__(self, place: Path) -> None:
        self.seconds = 1_790_000_000.0
        self.place = place
        self.spool = Spool(SpoolSettings(place / "spool", min_free_bytes=0), self.now)
        self.list = List()
        self.poller = ConfirmationPoller(
            self.spool,
            self.list,  # type: ignore[arg-type]  # a double
            Policy(5, "auto"),
            random.Random(1),
            monotonic=self.now,
            now=self.now,
        )

    def now(self) -> float:
        return self.seconds

    def accepted(self, registration: str, minute: int, camera: int) -> int:
        path = self.place / f"{registration} {minute} {camera}.mp4"
        path.write_bytes(path.name.encode())
        start = START + timedelta(minutes=minute)
        video = ClipKey(registration, camera, start, start + timedelta(minutes=1))
        taken = take(self.spool, Clip(Footage.from_stat(path, path.stat()), video))
        self.spool.claim(list)
        verdict = Verdict(State.ACCEPTED, "taken", retry_in_seconds=3600)
        self.poller.on_settled(*self.spool.settle({taken.id: verdict}))
        return taken.id

    def poll(self, hours: float) -> dict[int, State]:
        """Polls for so long; returns the new states of clips."""
        states: dict[int, State] = {}
        for _ in range(int(hours * 3600 / POLL)):
            verdicts = self.poller.poll()
            states |= {record.id: record.state for record in self.spool.settle(verdicts)} if verdicts else {}
            self.seconds += POLL
        return states


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    account = Account(tmp_path)
    yield account
    account.spool.close()


def test_a_rejected_query_stops_no_other_and_its_clips_are_sent_again(account: Account) -> None:
    rejected = account.accepted("REFUSED", 0, 1)
    others = [account.accepted("GOOD 1", minute, 1) for minute in range(3)]
    assert account.poll(hours=3) == {rejected: State.WAITING, **dict.fromkeys(others, State.DELIVERED)}


def test_a_list_that_is_too_long_is_queried_in_parts(account: Account) -> None:
    unknown = account.accepted("GOOD 1", 0, 0)
    others = [account.accepted("GOOD 1", minute, 3) for minute in range(10, 351, 20)]
    states = account.poll(hours=1)
    assert states | {unknown: State.WAITING} == {unknown: State.WAITING, **dict.fromkeys(others, State.DELIVERED)}
    before = account.list.pages
    states |= account.poll(hours=8)
    assert states[unknown] is State.WAITING
    # Once the others are decided, one page for each poll is enough.
    assert account.list.pages - before <= 8 * 60
