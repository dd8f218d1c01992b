"""The power fails after the server accepted a batch and before the device has written the verdicts, or all of them.

The device sends the batch again, which the API treats as an update; in its own ledger each clip is delivered once.
"""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from agent.model import State
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.delivery_bench import START, bench
from tests.support.link_cases import PATIENT
from tests.support.scripted_server import scripted_api
from tests.support.vision_cases import api

pytestmark = pytest.mark.daemon

CLIPS = 5


class PowerCut(BaseException):
    """Simulates the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["withhold", "truncate"])
def test_a_kill_between_the_response_and_the_verdict_sends_the_batch_again(
    tmp_path: Path, figure: Figure, lost: Literal["withhold", "truncate"]
) -> None:
    with (
        Simulator() as simulator,
        DaemonProcess(tmp_path, simulator.base_url, {"api": "stall_timeout_seconds = 600"}) as daemon,
    ):
        simulator.faults.add(Fault(lost, times=0, path="upload", seconds=3600))
        for number in range(CLIPS):
            name = f"ABC1234X_1_{START + timedelta(seconds=5 * number):%Y%m%d_%H%M%S}.mp4"
            (daemon.footage / name).write_bytes(recording(1.0, seed=str(number)))
        await_until(lambda: any("upload" in r.path and r.status == 200 for r in simulator.requests), "an upload")
        taken = len(simulator.received)
        assert taken > 0
        daemon.await_records(CLIPS, State.SENDING, State.WAITING, seconds=120)
        daemon.stop(signal.SIGKILL)
        assert len(daemon.records(State.SENDING)) == taken
        assert daemon.records(State.DELIVERED) == []
        simulator.faults.clear()
        daemon.start()
        daemon.await_records(CLIPS, State.DELIVERED, seconds=180)
        assert len(simulator.received) == CLIPS
        assert sum(video.updates for video in simulator.received) == taken
        assert max(video.updates for video in simulator.received) == 1
        for record in daemon.records():
            assert [change.state for change in record.history].count(State.DELIVERED) == 1
        await_until(lambda: not list((daemon.spool / "clips").iterdir()), "the stored files to go", 60)
        figure("kills between answer and verdict", 1)


def test_a_power_cut_before_the_verdict_is_written_sends_the_batch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        for number in range(CLIPS):
            device.take(number)
        with monkeypatch.context() as patched:
            patched.setattr(device.spool, "settle", power_cut)
            patched.setattr(device.spool, "release", power_cut)
            with pytest.raises(PowerCut):
                device.step()
        assert device.states() == {State.SENDING: CLIPS}
        device.restart()
        assert device.states() == {State.WAITING: CLIPS}
        device.deliver_all()
        assert set(server.times_received().values()) == {2}


def test_a_power_cut_after_the_verdict_sends_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        for number in range(CLIPS):
            device.take(number)
        with monkeypatch.context() as patched:
            patched.setattr("agent.spool.files.ClipFiles.remove", power_cut)
            with pytest.raises(PowerCut):
                device.step()
        assert len(list((tmp_path / "spool" / "clips").iterdir())) == CLIPS
        device.restart()
        assert device.states() == {State.DELIVERED: CLIPS}
        assert not list((tmp_path / "spool" / "clips").iterdir())
        device.step()
        assert set(server.times_received().values()) == {1}


def power_cut(*_: object) -> None:
    raise PowerCut
