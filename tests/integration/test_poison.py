"""A clip that fails every upload it is part of is isolated and refused; a fault of the link refuses no clip."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agent.model import State
from simulator.faults import Action, Fault
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.delivery_bench import START, UNHURRIED, bench, simulated

GOOD = 50
SIZE_BYTES = 30_000
SHIFT_SECONDS = 8 * 3600.0


def poison_fault(action: Action, number: int) -> Fault:
    """Every upload with this clip fails: with a reset, or with a 500 of the API."""
    return Fault(action, times=0, path="upload", clip=f"{START + timedelta(minutes=number):%Y-%m-%d %H:%M:%S}")


def cases() -> Iterator[Any]:
    """All combinations; the fast tests have only those with the poison in the middle of batches of the default size."""
    for action, encoding, position, batch_clips in product(
        ("answer", "reset"), ("json", "multipart"), (0, 25, 50), (20, 100)
    ):
        marks = [] if (position, batch_clips) == (25, 20) else [pytest.mark.slow]
        yield pytest.param(action, encoding, position, batch_clips, marks=marks)


def sent_bytes(simulator: Simulator) -> int:
    return sum(request.body_bytes for request in simulator.requests if request.method == "POST")


@pytest.mark.parametrize(("action", "encoding", "position", "batch_clips"), [*cases()])
def test_one_poison_clip_among_fifty_is_refused_and_costs_little(
    tmp_path: Path, figure: Figure, *, action: Action, encoding: str, position: int, batch_clips: int
) -> None:
    with (
        Simulator(UNHURRIED) as simulator,
        bench(tmp_path, simulated(simulator.base_url), encoding=encoding, batch_clips=batch_clips) as device,
    ):
        ids = [device.take(number, size_bytes=SIZE_BYTES) for number in range(GOOD + 1)]
        simulator.faults.add(poison_fault(action, position))
        device.go_on_until(lambda: device.states() == {State.DELIVERED: GOOD, State.REFUSED: 1})
        refused = device.record(ids[position])
        assert refused.state is State.REFUSED
        assert "gave up after 5 attempts: fails alone while other clips succeed" in refused.reason
        assert len(simulator.received) == GOOD
        assert sum(video.updates for video in simulator.received) == 0
        times = sent_bytes(simulator) / ((GOOD + 1) * SIZE_BYTES)
        print(f"{action}, {encoding}, {position}, batches of {batch_clips}: {times:.2f} times the footage")
        figure("poison: bytes sent, times the footage", times, most=True)
        figure("faults survived: poison clips", 1)
        assert times <= 3


def test_two_poison_clips_are_both_found(tmp_path: Path, figure: Figure) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        ids = [device.take(number) for number in range(30)]
        simulator.faults.add(poison_fault("answer", 3))
        simulator.faults.add(poison_fault("reset", 27))
        device.go_on_until(lambda: device.states() == {State.DELIVERED: 28, State.REFUSED: 2})
        assert {record.id for record in device.records(State.REFUSED)} == {ids[3], ids[27]}
        figure("faults survived: poison clips", 2)


def test_the_rest_of_the_queue_does_not_wait_until_the_poison_clip_is_found(tmp_path: Path) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        for number in range(40):
            device.take(number)
        simulator.faults.add(poison_fault("answer", 0))
        device.step()
        device.go_on_until(lambda: len(simulator.received) > 0, most_steps=3)
        assert {video.start[11:16] for video in simulator.received} == {
            f"{START + timedelta(minutes=number):%H:%M}" for number in range(20, 40)
        }


def test_no_clip_is_refused_when_every_upload_fails_while_small_requests_pass(tmp_path: Path, figure: Figure) -> None:
    """A wrong MTU, a filter, a quota: the backoff grows, and once uploads succeed again all clips arrive."""
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        device.take(0)
        device.deliver_all()
        for number in range(1, 5):
            device.take(number)
        simulator.faults.add(Fault("reset", times=0, path="upload"))
        end = device.clock.seconds + SHIFT_SECONDS
        device.go_on_until(lambda: device.clock.seconds > end, most_steps=20_000)
        waiting = device.records(State.WAITING)
        assert (len(waiting), {record.attempts for record in waiting}) == (4, {0})
        uploads = sum(request.method == "POST" for request in simulator.requests)
        assert uploads < 4 * 25, "some soon, then about one an hour for each clip"
        simulator.faults.clear()
        device.deliver_all()
        assert len(simulator.received) == 5
        assert sum(video.updates for video in simulator.received) == 0
        figure("faults survived: uploads that fail while small requests pass", uploads)


def test_a_clip_that_fails_with_no_other_to_compare_is_refused_once_others_succeed(
    tmp_path: Path,
) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        poison = device.take(0)
        simulator.faults.add(poison_fault("reset", 0))
        end = device.clock.seconds + SHIFT_SECONDS
        device.go_on_until(lambda: device.clock.seconds > end, most_steps=5000)
        waiting = device.record(poison)
        assert (waiting.state, waiting.attempts) == (State.WAITING, 0)
        assert "the link may be to blame" in waiting.reason
        assert sum(request.method == "POST" for request in simulator.requests) < 25
        for number in range(1, 6):
            device.take(number)
            device.go_on_until(lambda: device.record(number + 1).state is State.DELIVERED, most_steps=3)  # noqa: B023  # called at once
            attempts = device.record(poison).attempts
            device.go_on_until(lambda: device.record(poison).attempts > attempts)  # noqa: B023  # called at once
        assert device.record(poison).state is State.REFUSED
        assert len(simulator.received) == 5


def test_after_a_restart_no_clip_is_suspected_until_others_succeed_again(tmp_path: Path) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        poison = device.take(0)
        device.take(1)
        simulator.faults.add(poison_fault("reset", 0))
        device.go_on_until(lambda: device.record(poison).attempts == 2)
        device.restart()
        end = device.clock.seconds + SHIFT_SECONDS
        device.go_on_until(lambda: device.clock.seconds > end, most_steps=5000)
        assert (device.record(poison).state, device.record(poison).attempts) == (State.WAITING, 2)


@pytest.mark.parametrize("content", ['{"error": {"code": 422, "message": "No."}}', '{"error": {"code": 400}}'])
def test_a_clip_that_is_always_rejected_blocks_no_other(tmp_path: Path, figure: Figure, content: str) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        ids = [device.take(number) for number in range(20)]
        start = f"{START:%Y-%m-%d %H:%M:%S}"
        simulator.faults.add(Fault("answer", times=0, path="upload", clip=start, status=422, content=content))
        device.go_on_until(lambda: device.states()[State.DELIVERED] == 19, most_steps=60)
        assert device.record(ids[0]).state is State.WAITING
        device.go_on_until(lambda: device.record(ids[0]).state is State.REFUSED)
        assert sum(video.updates for video in simulator.received) == 0
        figure("faults survived: clips that are always rejected", 1)


def test_a_clip_with_an_error_of_its_own_is_retried_while_others_are_delivered(tmp_path: Path) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        ids = [device.take(number) for number in range(10)]
        start = f"{START:%Y-%m-%d %H:%M:%S}"
        simulator.faults.add(Fault("reject", times=0, clip=start, content="Something is odd."))
        device.step()
        assert device.states() == {State.DELIVERED: 9, State.WAITING: 1}
        device.go_on_until(lambda: device.record(ids[0]).state is State.REFUSED)
        assert "gave up after 5 attempts: the API said: Something is odd." in device.record(ids[0]).reason


ALL_REJECTED = {
    "transient error for each clip": Fault("reject", times=0, content="Temporarily unavailable, try again later."),
    "unknown error for each clip": Fault("reject", times=0, content="Oops."),
    "400": Fault("answer", times=0, path="upload", status=400, content='{"error": {"code": 400, "message": "No."}}'),
    "409": Fault("answer", times=0, path="upload", status=409, content='{"error": {"code": 409, "message": "No."}}'),
    "422": Fault("answer", times=0, path="upload", status=422, content='{"error": {"code": 422, "message": "No."}}'),
}


@pytest.mark.parametrize("mode", ["bulk", "single"])
@pytest.mark.parametrize("kind", ALL_REJECTED)
def test_the_same_error_for_every_clip_holds_delivery_and_refuses_none(
    tmp_path: Path, figure: Figure, kind: str, mode: str
) -> None:
    """A full disk of the server, an account that is not set up: the clips are not at fault."""
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url), mode=mode) as device:
        device.take(100)
        device.deliver_all()
        device.clock.seconds += 2 * 3600.0
        for number in range(20):
            device.take(number)
        simulator.faults.add(ALL_REJECTED[kind])
        end = device.clock.seconds + 24 * 3600.0
        device.go_on_until(lambda: device.clock.seconds > end, most_steps=20_000)
        waiting = device.records(State.WAITING)
        assert (len(waiting), {record.attempts for record in waiting}) == (20, {0})
        assert device.dispatcher.activity.doing == "held"
        assert "the server or the account may be at fault" in device.dispatcher.activity.reason
        requests = sum(request.method == "POST" for request in simulator.requests)
        assert requests < 45, "a few soon, then one clip an hour"
        simulator.faults.clear()
        device.deliver_all()
        assert len(simulator.received) == 21
        figure("faults survived: every clip rejected", requests)


def test_a_clip_whose_error_says_that_it_will_pass_is_never_refused(tmp_path: Path) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        clip = device.take(0)
        start = f"{START:%Y-%m-%d %H:%M:%S}"
        simulator.faults.add(Fault("reject", times=0, clip=start, content="Storage is busy, try again later."))
        for number in range(1, 25):
            device.take(number)
            end = device.clock.seconds + 3600.0
            device.go_on_until(lambda: device.clock.seconds > end, most_steps=2000)  # noqa: B023  # called at once
        record = device.record(clip)
        assert (record.state, record.attempts) == (State.WAITING, 0)
        assert device.states() == {State.DELIVERED: 24, State.WAITING: 1}
        simulator.faults.clear()
        device.deliver_all()


def test_a_new_clip_is_not_delayed_by_rejected_ones_while_others_succeed(tmp_path: Path) -> None:
    with Simulator(UNHURRIED) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        for number in range(3):
            device.take(number)
            start = f"{START + timedelta(minutes=number):%Y-%m-%d %H:%M:%S}"
            simulator.faults.add(Fault("reject", times=0, clip=start, content="Oops."))
        device.take(10)
        device.go_on_until(lambda: device.states()[State.DELIVERED] == 1)
        for number in range(11, 16):
            device.take(number)
            before = device.clock.seconds
            device.go_on_until(lambda: device.states()[State.DELIVERED] == number - 9)  # noqa: B023  # called at once
            assert device.clock.seconds - before <= 60.0
        device.go_on_until(lambda: device.states() == {State.DELIVERED: 6, State.REFUSED: 3})
