"""Footage that exceeds the limits, with the real daemon: cut and delivered, never twice, however often it is killed."""

from __future__ import annotations

import random
import shutil
import signal
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest

from agent.model import State
from agent.spool.records import Record
from simulator.faults import Fault
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.ffmpeg import RECIPES, SECONDS, needs_ffmpeg, payloads

pytestmark = [needs_ffmpeg, pytest.mark.daemon, pytest.mark.slow]

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
NAME = "ABC1234X_1_20260728_140000.mp4"
SMALL = {"limits": "max_bytes = 250000", "[footage]": 'include = ["*.mp4", "*.ts"]'}


@pytest.fixture(scope="session")
def long_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / NAME
    RECIPES["constant.mp4"](path)
    return path


class Gate:
    """An ffmpeg that waits for a file of the test before it begins, or before it ends.

    Args:
        where: "before" the work or "after" it.
    """

    def __init__(self, place: Path, where: str) -> None:
        self.tools = place / "tools"
        self.tools.mkdir()
        waits = f"echo $$ > {self.tools}/started; while [ ! -e {self.tools}/open ]; do sleep 0.05; done"
        real = f'{shutil.which("ffmpeg")} "$@"'
        steps = (waits, f"exec {real}") if where == "before" else (f"{real} || exit", waits)
        (self.tools / "ffmpeg").write_text("\n".join(("#!/bin/sh", *steps)) + "\n")
        (self.tools / "ffmpeg").chmod(0o755)

    def await_child(self) -> int:
        started = self.tools / "started"
        await_until(lambda: started.exists() and bool(started.read_text()), "ffmpeg to wait at the gate", 120)
        return int(started.read_text())

    def open(self) -> None:
        (self.tools / "open").touch()


def put(daemon: DaemonProcess, source: Path, name: str = NAME) -> None:
    shutil.copy(source, daemon.place / "copy")
    (daemon.place / "copy").rename(daemon.footage / name)


def footages(daemon: DaemonProcess) -> set[str]:
    """The recordings in the spool; all pieces of a recording are admitted at once."""
    return {record.footage.path.name for record in daemon.records()}


def await_all_delivered(daemon: DaemonProcess) -> list[Record]:
    """Waits until the spool has clips and all of them are delivered."""
    await_until(
        lambda: bool(daemon.records()) and len(daemon.records(State.DELIVERED)) == len(daemon.records()),
        "the delivery of all pieces",
        180,
    )
    return daemon.records()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_recording_that_is_too_large_arrives_as_pieces_with_every_picture(tmp_path: Path, long_footage: Path) -> None:
    kept = tmp_path / "received"
    with Simulator(keep_directory=kept) as simulator, DaemonProcess(tmp_path, simulator.base_url, SMALL) as daemon:
        put(daemon, long_footage)
        records = await_all_delivered(daemon)
        videos = sorted((record.key for record in records if record.key), key=lambda video: video.start)
        await_until(lambda: not list((daemon.spool / "work").iterdir()), "an empty work folder", 60)
        assert videos[0].start == START
        assert videos[-1].end == START + timedelta(seconds=SECONDS)
        assert all(before.end == after.start for before, after in pairwise(videos))
        assert all(video.size_bytes <= 250_000 and video.updates == 0 for video in simulator.received)
        arrived = [kept / f"{video.sha256}.mp4" for video in sorted(simulator.received, key=lambda one: one.name)]
    assert payloads(*arrived) == payloads(long_footage)
    assert not list((daemon.spool / "clips").iterdir())


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_daemon_that_is_killed_while_it_cuts_leaves_no_ffmpeg_and_no_piece_twice(
    tmp_path: Path, long_footage: Path, where: str
) -> None:
    gate = Gate(tmp_path, where)
    with Simulator() as simulator:
        daemon = DaemonProcess(tmp_path, simulator.base_url, SMALL)
        path = daemon.environ["PATH"]
        daemon.environ["PATH"] = f"{gate.tools}:{path}"
        with daemon:
            put(daemon, long_footage)
            child = gate.await_child()
            daemon.stop(signal.SIGKILL)
            await_until(lambda: not is_running(child), "the end of ffmpeg", 60)
            assert daemon.records() == []
            daemon.environ["PATH"] = path
            daemon.start()
            await_all_delivered(daemon)
            assert_all_once(daemon, simulator)


def test_a_stop_does_not_wait_for_what_is_being_cut(tmp_path: Path, long_footage: Path) -> None:
    gate = Gate(tmp_path, "before")
    with Simulator() as simulator:
        daemon = DaemonProcess(tmp_path, simulator.base_url, SMALL)
        daemon.environ["PATH"] = f"{gate.tools}:{daemon.environ['PATH']}"
        with daemon:
            put(daemon, long_footage)
            child = gate.await_child()
            daemon.stop()
            assert daemon.process.returncode == 0
            await_until(lambda: not is_running(child), "the end of ffmpeg", 60)


def test_kills_at_any_moment_of_cutting_lose_and_repeat_nothing(
    tmp_path: Path, long_footage: Path, figure: Figure
) -> None:
    """Uploads are blocked, so that every kill happens during scanning, cutting or spooling."""
    rounds, rng = 12, random.Random(20260728)
    with Simulator() as simulator:
        simulator.faults.add(Fault("answer", status=401, times=0, content='{"error": {"code": 401, "message": "no"}}'))
        with DaemonProcess(tmp_path, simulator.base_url, SMALL) as daemon:
            put(daemon, long_footage)
            put(daemon, long_footage, "ABC1234X_2_20260728_140000.mp4")
            for _ in range(rounds):
                time.sleep(rng.uniform(0.0, 2.5))
                daemon.stop(signal.SIGKILL)
                daemon.start()
            await_until(lambda: len(footages(daemon)) == 2, "both recordings in the spool", 180)
            simulator.faults.clear()
            daemon.stop()
            daemon.start()
            await_all_delivered(daemon)
            assert_all_once(daemon, simulator, recordings=2)
    figure("kill rounds while cutting", rounds)


def assert_all_once(daemon: DaemonProcess, simulator: Simulator, recordings: int = 1) -> None:
    """Each piece of each recording has one row and was received once."""
    records = daemon.records()
    by_footage: dict[str, list[int]] = {}
    for record in records:
        assert record.state is State.DELIVERED
        by_footage.setdefault(record.footage.path.name, []).append(record.piece)
    assert len(by_footage) == recordings
    assert all(sorted(pieces) == list(range(len(pieces))) for pieces in by_footage.values())
    assert len(simulator.received) == len(records)
    assert len({video.name for video in simulator.received}) == len(records)
