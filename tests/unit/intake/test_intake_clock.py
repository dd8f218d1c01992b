"""The intake under a clock that is wrong, is set, or jumps; with a real spool, and clocks advanced by the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.config import (
    Api,
    Config,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    Secret,
    SpoolSettings,
    UploadSettings,
    Vehicle,
)
from agent.device.clock import Clock
from agent.intake.intake import Intake
from agent.model import State, Verdict
from agent.spool import Spool
from agent.spool.records import Record
from simulator.recorder import recording
from tests.support.clocks import BenchDevice

RIGHT = 1_790_000_000.0
YEAR = 365 * 86_400.0


class Bench:
    def __init__(self, place: Path) -> None:
        self.card = place / "card"
        self.card.mkdir()
        self.device = BenchDevice(RIGHT - YEAR)
        settings = SpoolSettings(place / "spool", min_free_bytes=0, remember_days=30)
        self.spool = Spool(settings, self.device.wall)
        config = Config(
            file=Path("config.toml"),
            api=Api("https://127.0.0.1:1/rest", "fleet", Secret("secret")),
            vehicle=Vehicle(),
            footage=(FootageFolder(self.card),),
            limits=Limits(),
            conform=Conform(),
            spool=settings,
            upload=UploadSettings(),
            log=LogSettings(),
        )
        self.taken = 0
        self.clock = Clock(source=self.device)
        self.intake = Intake(
            config,
            self.spool,
            threading.Event(),
            self.clock,
            on_taken=self.count,
            monotonic=lambda: self.device.uptime,
        )

    def count(self) -> None:
        self.taken += 1

    def record(self, start: float) -> Path:
        """A recording of two seconds by a recorder that names its files by this device's clock."""
        begin = datetime.fromtimestamp(start, tz=timezone.utc)
        path = self.card / f"ABC1234X_1_{begin:%Y%m%d_%H%M%S}.mp4"
        path.write_bytes(recording(2, size_bytes=20_000, seed=str(start)))
        os.utime(path, (start + 3, start + 3))
        return path

    def run(self, seconds: float, step: float = 1.0) -> float:
        due = 0.0
        end = self.device.uptime + seconds
        while self.device.uptime < end:
            self.device.uptime += step
            due = self.intake.step()
        return due

    def only(self) -> Record:
        (record,) = self.spool.ledger.records()
        return record


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.intake._watcher.stop()
    made.spool.close()


def start_of(record: Record) -> float:
    assert record.key is not None
    return record.key.start.timestamp()


def test_footage_waits_for_the_clock_and_is_corrected_once_it_is_set(bench: Bench) -> None:
    bench.record(bench.device.wall() - 10)
    assert bench.run(30) <= 5.0
    assert bench.only().state is State.HELD
    bench.taken = 0
    bench.device.synchronise(RIGHT)
    bench.run(1)
    assert (bench.only().state, start_of(bench.only())) == (State.WAITING, RIGHT + 50)
    assert bench.taken == 1
    assert bench.run(120) > 5.0


def test_footage_from_a_clock_that_began_in_1970_is_corrected_not_refused(bench: Bench) -> None:
    bench.device.booted = 0.0
    bench.run(1)
    bench.record(bench.device.wall() - 10)
    bench.run(80)
    assert bench.only().state is State.HELD
    bench.device.synchronise(RIGHT)
    bench.run(1)
    assert bench.only().state is State.WAITING
    assert RIGHT < start_of(bench.only()) < RIGHT + 100


def test_footage_is_taken_in_once_whatever_the_clock_does(bench: Bench) -> None:
    bench.record(bench.device.wall() - 10)
    for booted in (RIGHT, RIGHT + YEAR, RIGHT - YEAR, RIGHT):
        bench.run(130)
        bench.device.booted = booted
    bench.device.synchronise(RIGHT)
    bench.run(130)
    assert bench.only().state is State.WAITING


def test_the_scan_keeps_its_interval_when_the_clock_is_set_back(bench: Bench) -> None:
    bench.device.synchronise(RIGHT)
    bench.run(1)
    bench.device.kernel = False
    bench.device.booted -= YEAR
    bench.record(RIGHT)
    bench.run(80)
    assert bench.only().state is State.HELD


def test_footage_of_a_camera_ahead_is_released_when_the_clock_catches_up(bench: Bench) -> None:
    path = bench.record(RIGHT + 30)
    bench.run(30)
    assert bench.only().state is State.HELD
    path.unlink()
    bench.device.synchronise(RIGHT)
    bench.run(1)
    assert (bench.only().state, start_of(bench.only())) == (State.WAITING, RIGHT + 30)


def test_a_camera_ahead_of_the_trusted_clock_too_is_refused_then(bench: Bench) -> None:
    bench.record(RIGHT + YEAR)
    bench.run(30)
    assert bench.only().state is State.HELD
    bench.device.synchronise(RIGHT)
    bench.run(1)
    assert bench.only().state is State.REFUSED
    assert "in the future" in bench.only().reason


def test_a_clock_that_is_a_year_ahead_does_not_prune_the_ledger(bench: Bench) -> None:
    """Else delivered footage on a card that comes back would be sent a second time."""
    bench.device.synchronise(RIGHT)
    path = bench.record(RIGHT)
    bench.run(30)
    bench.spool.claim(list)
    bench.spool.settle({bench.only().id: Verdict(State.DELIVERED)})
    path.unlink()
    bench.device.kernel = False
    bench.device.booted += YEAR
    bench.run(8 * 3600, step=60)
    assert bench.only().state is State.DELIVERED
    bench.device.synchronise(RIGHT)
    bench.run(8 * 3600, step=60)
    assert bench.only().state is State.DELIVERED
    bench.device.uptime += 31 * 86_400.0
    bench.run(7 * 3600, step=60)
    assert list(bench.spool.ledger.records()) == []
