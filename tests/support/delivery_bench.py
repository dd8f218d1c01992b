"""Delivery as the daemon does it, on a real spool and real sockets, with a clock that jumps over its pauses."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from agent.config import Api, Secret, SpoolSettings, UploadSettings
from agent.delivery.dispatcher import Dispatcher
from agent.model import Clip, ClipKey, Footage, State
from agent.spool import Spool
from agent.spool.records import Record
from agent.vision.client import VisionClient
from simulator.recorder import recording
from simulator.settings import Settings
from tests.support.spooling import take
from tests.support.vision_cases import backdate

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
# The simulator counts requests by the real minute, in which many minutes pass here.
UNHURRIED = Settings(requests_per_minute=1_000_000)
UNIX_START = 1_785_300_000.0


class Clock:
    """The monotonic and the wall clock of a device, moved by tests; `step_seconds` only moves the wall clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.step_seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return UNIX_START + self.seconds + self.step_seconds


class Bench:
    """A spool and a dispatcher in this thread.

    Args:
        place: an empty directory for everything.
        api: the account; see `connect`.
        upload: changes to the defaults of [upload].
    """

    def __init__(self, place: Path, api: Api, **upload: Any) -> None:
        self.place = place
        self.clock = Clock()
        self.settings = UploadSettings(**{"linger_seconds": 0.0, **upload})
        self._spool_settings = SpoolSettings(place / "spool", 4_000_000_000, 0, 30)
        self.spool = Spool(self._spool_settings, self.clock.now)
        self._stop = threading.Event()
        self.connect(api)

    def connect(self, api: Api) -> None:
        """Continue with another account, as after a reload of the configuration."""
        self.api = api
        self.client = VisionClient(api, stopping=self._stop.is_set, now=self.clock.now)
        self.dispatcher = Dispatcher(
            self.spool,
            self.client,
            self.settings,
            self._stop,
            rng=random.Random(7),
            monotonic=self.clock.monotonic,
            now=self.clock.now,
        )

    def restart(self) -> None:
        """Reopen the spool, as after a crash: clips that were in flight are found again."""
        self.client.close()
        self.spool.close()
        self.spool = Spool(self._spool_settings, self.clock.now)
        self.spool.recover()
        self.connect(self.api)

    def take(
        self,
        number: int,
        *,
        size_bytes: int | None = None,
        hole_to_bytes: int | None = None,
        start: datetime | None = None,
    ) -> int:
        """Admit one recording, a different one for each number; return the clip's id.

        Args:
            hole_to_bytes: size of the file, as a sparse file with a hole at its end.
        """
        folder = self.place / "footage"
        folder.mkdir(exist_ok=True)
        path = folder / f"{number}.mp4"
        path.write_bytes(recording(1.0, seed=str(number), size_bytes=size_bytes))
        if hole_to_bytes is not None:
            os.truncate(path, hole_to_bytes)
        backdate(path)
        start = start or START + timedelta(minutes=number)
        video = ClipKey("ABC1234X", 1, start, start + timedelta(seconds=1))
        taken = take(self.spool, Clip(Footage.from_stat(path, path.stat()), video))
        return taken.id

    def step(self) -> float:
        """One step of delivery; the pause after it takes no real time."""
        seconds = self.dispatcher.step()
        self.clock.seconds += seconds
        return seconds

    def go_on_until(self, condition: Callable[[], bool], *, most_steps: int = 500) -> None:
        for _ in range(most_steps):
            if condition():
                return
            self.step()
        raise AssertionError(f"in vain: {[(r.id, r.state, r.reason) for r in self.records()]}")

    def record(self, id: int) -> Record:
        record = self.spool.ledger.record(id)
        assert record is not None
        return record

    def records(self, *states: State) -> list[Record]:
        return list(self.spool.ledger.records(states))

    def states(self) -> Counter[State]:
        return Counter(record.state for record in self.records())

    def deliver_all(self) -> None:
        self.go_on_until(lambda: set(self.states()) == {State.DELIVERED})

    def close(self) -> None:
        self.client.close()
        self.spool.close()


@contextmanager
def bench(place: Path, api: Api, **upload: Any) -> Iterator[Bench]:
    """A context manager for a `Bench`."""
    made = Bench(place, api, **upload)
    try:
        yield made
    finally:
        made.close()


def simulated(base_url: str, **changes: Any) -> Api:
    """The account of a simulator with its default settings."""
    return Api(base_url, "bench", Secret("bench"), connect_timeout_seconds=60.0, stall_timeout_seconds=600.0, **changes)
