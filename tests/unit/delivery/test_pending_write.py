"""While the spool's disk is full, verdicts are kept in memory, and nothing is sent until they are written."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.config import Api, Secret, SpoolSettings, UploadSettings
from agent.delivery.dispatcher import DISK_FULL_SECONDS, Dispatcher
from agent.errors import SpoolFull
from agent.model import State, Verdict
from agent.spool import Spool
from agent.spool.records import Record
from agent.vision.client import VisionClient
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.spooling import Clock, make_clip, take


class Monotonic:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("failing", ["settle", "release", "claim", "count_ready"])
def test_an_unwritten_verdict_is_written_later_and_its_clip_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    clock, monotonic = Clock(), Monotonic()
    spool = Spool(SpoolSettings(tmp_path / "spool", min_free_bytes=0), clock)
    with Simulator() as simulator:
        client = VisionClient(Api(simulator.base_url, "bench", Secret("bench")), stopping=lambda: False)
        upload = UploadSettings(linger_seconds=0)
        dispatcher = Dispatcher(spool, client, upload, threading.Event(), monotonic=monotonic, now=clock)
        for number in (1, 2):
            take(spool, make_clip(tmp_path / "footage", number, recording(60.0, seed=str(number))))

        def full(*_: object) -> object:
            raise SpoolFull("the disk of the spool is full")

        monkeypatch.setattr(spool, failing, full)
        for _ in range(4):
            dispatcher.step()
            assert dispatcher.activity.doing == "disk full"
            assert "nothing is sent" in dispatcher.activity.reason
            monotonic.seconds += DISK_FULL_SECONDS
        assert len(simulator.received) in ((2,) if failing in ("settle", "release") else (0,))
        monkeypatch.undo()
        dispatcher.step()
        assert spool.ledger.counts()[State.DELIVERED].clips == 2
        assert [video.updates for video in simulator.received] == [0, 0]
    spool.close()


def test_the_last_verdicts_are_written_when_the_daemon_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    spool = Spool(SpoolSettings(tmp_path / "spool", min_free_bytes=0), clock)
    stop = threading.Event()
    settle = spool.settle
    calls = 0

    def full_at_first(verdicts: Mapping[int, Verdict]) -> list[Record]:
        nonlocal calls
        calls += 1
        if calls == 1:
            stop.set()
            raise SpoolFull("the disk of the spool is full")
        return settle(verdicts)

    monkeypatch.setattr(spool, "settle", full_at_first)
    with Simulator() as simulator:
        client = VisionClient(Api(simulator.base_url, "bench", Secret("bench")), stopping=lambda: False)
        take(spool, make_clip(tmp_path / "footage", 1, recording(60.0, seed="1")))
        dispatcher = Dispatcher(spool, client, UploadSettings(linger_seconds=0), stop, now=clock)
        dispatcher.wake()
        dispatcher.run()
        assert [video.updates for video in simulator.received] == [0]
    assert spool.ledger.counts()[State.DELIVERED].clips == 1
    spool.close()
