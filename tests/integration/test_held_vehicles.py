"""A vehicle that is unknown to the account costs one upload an hour, and no clip is lost."""

from __future__ import annotations

from pathlib import Path

from agent.model import State
from simulator.faults import Fault
from simulator.server import Simulator
from tests.support.delivery_bench import UNHURRIED, bench, simulated

CLIPS = 20


def test_an_unknown_vehicle_is_retried_with_one_clip_an_hour(tmp_path: Path) -> None:
    words = "The registration does not exist on this account."
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url), vehicles=1) as device:
        simulator.faults.add(Fault("reject", times=0, content=words))
        for number in range(CLIPS):
            device.take(number, size_bytes=50_000)
        device.go_on_until(lambda: device.states() == {State.HELD: CLIPS})
        began, before = device.clock.seconds, uploaded(simulator)
        while device.clock.seconds - began < 10 * 3600:
            device.clock.seconds += device.step() or 1.0
        assert device.states() == {State.HELD: CLIPS}
        assert uploaded(simulator) - before < CLIPS * 50_000
        simulator.faults.clear()
        device.deliver_all()
        assert len(simulator.received) == CLIPS


def test_in_single_mode_each_clip_is_sent_alone(tmp_path: Path) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url), mode="single") as device:
        for number in range(5):
            device.take(number)
        device.deliver_all()
        uploads = [request.path for request in simulator.requests if request.method == "POST"]
        assert len(uploads) == 5
        assert all(path.endswith("/vision/video/upload") for path in uploads)


def uploaded(simulator: Simulator) -> int:
    return sum(request.body_bytes for request in simulator.requests if request.method == "POST")
