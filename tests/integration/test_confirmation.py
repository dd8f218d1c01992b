"""Clips that were accepted without a result of their own: the list confirms them, or they are sent again."""

from __future__ import annotations

import signal
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.model import State
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from simulator.settings import AnswerShape, Settings
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.delivery_bench import START, Bench, bench, simulated
from tests.support.link_cases import PATIENT
from tests.support.misbehaviour import says
from tests.support.scripted_server import ScriptedApi, scripted_api
from tests.support.vision_cases import API_ERROR, api

pytestmark = pytest.mark.daemon

SILENT = Settings(requests_per_minute=1_000_000, answer=AnswerShape(grouping="none"))
YEAR_SECONDS = 31_536_000.0


def entry(number: int, status_id: object, **more: object) -> dict[str, object]:
    start = START + timedelta(minutes=number)
    return {
        "request_id": 100 + number,
        "registration": "abc1234x",
        "camera": "1",
        "status_id": status_id,
        "start_timestamp": f"{start:%Y-%m-%d %H:%M:%S}",
        "end_timestamp": f"{start + timedelta(seconds=1):%Y-%m-%d %H:%M:%S}",
        **more,
    }


def queries(server: ScriptedApi) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(head.target).query) for head in server.heads if "/requests" in head.target]


def accepted(device: Bench, server: ScriptedApi, count: int) -> list[int]:
    """Sends `count` clips; the responses have no results for them."""
    ids = [device.take(number) for number in range(count)]
    server.uploads += [says(200, {"data": []})] * 1000
    device.go_on_until(lambda: device.states() == {State.ACCEPTED: count})
    return ids


def go_on_for(device: Bench, seconds: float) -> None:
    end = device.clock.seconds + seconds
    device.go_on_until(lambda: device.clock.seconds >= end, most_steps=5000)


def test_one_query_every_30_to_60_seconds_covers_all_accepted_clips(tmp_path: Path) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT), batch_clips=10) as device:
        accepted(device, server, 40)
        before = len(queries(server))
        at: list[float] = []
        while len(at) < 12:
            asked = len(queries(server))
            device.step()
            at += [device.clock.seconds] * (len(queries(server)) - asked)
        gaps = [later - earlier for earlier, later in pairwise(at)]
        assert all(30 <= gap <= 61 for gap in gaps), gaps
        query = queries(server)[before]
        assert query["filter[registration]"] == ["ABC1234X"]
        assert query["filter[video_start_ts_from]"] == ["2026-07-28 14:00:00"]
        assert query["filter[video_start_ts_to]"] == ["2026-07-28 14:39:00"]
        server.lists = [entry(number, 3) for number in range(40)]
        device.deliver_all()
        assert {record.request_id for record in device.records()} == {str(100 + number) for number in range(40)}
        assert server.uploads_begun == 4


def test_clips_of_months_are_queried_in_short_windows_few_at_a_time(tmp_path: Path) -> None:
    with Simulator(SILENT) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        for number in range(20):
            device.take(number, start=START + timedelta(days=5 * number))
        device.go_on_until(lambda: device.states()[State.ACCEPTED] > 0)
        while set(device.states()) != {State.DELIVERED}:
            before = len(simulator.requests)
            device.step()
            listed = [r for r in simulator.requests[before:] if r.method == "GET" and r.path.endswith("/requests")]
            assert len(listed) <= 8
        assert sum(video.updates for video in simulator.received) == 0


def test_all_pages_of_the_list_are_read(tmp_path: Path) -> None:
    with Simulator(SILENT) as simulator, bench(tmp_path, simulated(simulator.base_url), batch_clips=100) as device:
        for number in range(120):
            device.take(number)
        simulator.faults.add(Fault("answer", times=0, path="videos/requests", status=500))
        device.go_on_until(lambda: device.states() == {State.ACCEPTED: 120})
        simulator.faults.clear()
        before = len(simulator.requests)
        device.deliver_all()
        assert [request.path for request in simulator.requests[before:]] == ["/rest/vision/videos/requests"] * 2
        assert sum(video.updates for video in simulator.received) == 0


@pytest.mark.parametrize("status", [1, 2])
def test_a_clip_that_is_listed_as_pending_is_waited_for(tmp_path: Path, status: int) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        accepted(device, server, 2)
        server.lists = [entry(0, status), entry(1, status)]
        go_on_for(device, 2 * 3600)
        assert device.states() == {State.ACCEPTED: 2}
        assert server.uploads_begun == 1
        server.lists = [entry(0, 3), entry(1, 3)]
        device.deliver_all()


@pytest.mark.parametrize(("status", "words"), [(4, "cancelled"), (5, "does not exist"), (6, "timeout")])
def test_a_clip_that_failed_after_acceptance_is_sent_again_with_a_limit(
    tmp_path: Path, figure: Figure, status: int, words: str
) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        first, second = accepted(device, server, 2)
        server.lists = [entry(0, status), entry(1, 3)]
        device.go_on_until(lambda: device.record(second).state is State.DELIVERED)
        device.go_on_until(lambda: device.record(first).state is State.ACCEPTED)
        assert device.record(first).attempts == 1
        device.go_on_until(lambda: device.record(first).state is State.REFUSED, most_steps=2000)
        assert f'gave up after 5 attempts: the API lists it as "{words}"' in device.record(first).reason
        assert server.uploads_begun == 1 + 4
        assert len(list((tmp_path / "spool" / "clips").iterdir())) == 1, "its bytes are kept"
        figure("faults survived: failed after it was accepted", 1)


def test_a_clip_that_is_sent_again_and_then_listed_as_complete_is_delivered(tmp_path: Path) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        accepted(device, server, 1)
        server.lists = [entry(0, 6)]
        device.go_on_until(lambda: server.uploads_begun == 2)
        server.lists = [entry(0, 6), entry(0, 3, request_id=77), entry(0, 1)]
        device.deliver_all()
        assert device.records()[0].request_id == "77"


@pytest.mark.parametrize(
    "listed", [[], [entry(9, 3)], [entry(0, 9)], [entry(0, None)], [entry(0, 3, camera=2)], [{"status_id": 3}]]
)
def test_a_clip_that_is_not_confirmed_within_an_hour_is_sent_again(
    tmp_path: Path, listed: list[dict[str, object]]
) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        accepted(device, server, 1)
        server.lists = listed  # type: ignore[assignment]  # of dictionaries, which are mappings
        go_on_for(device, 3500)
        assert (device.states(), server.uploads_begun) == ({State.ACCEPTED: 1}, 1)
        go_on_for(device, 400)
        assert server.uploads_begun == 2
        assert device.records()[0].attempts == 1


@pytest.mark.parametrize("step_seconds", [YEAR_SECONDS, -YEAR_SECONDS])
def test_a_clock_that_is_set_makes_no_clip_overdue(tmp_path: Path, figure: Figure, step_seconds: float) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        accepted(device, server, 20)
        device.clock.step_seconds = step_seconds
        go_on_for(device, 3500)
        assert (device.states(), server.uploads_begun) == ({State.ACCEPTED: 20}, 1)
        go_on_for(device, 400)
        assert {record.attempts for record in device.records()} == {1}, "nor does it make one wait for a year"
        figure("faults survived: clock set while clips are to be confirmed", 1)


def test_after_a_restart_accepted_clips_have_ten_minutes_to_be_confirmed(tmp_path: Path) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        accepted(device, server, 3)
        device.clock.step_seconds = YEAR_SECONDS
        device.restart()
        go_on_for(device, 500)
        assert (device.states(), server.uploads_begun) == ({State.ACCEPTED: 3}, 1)
        go_on_for(device, 200)
        assert {record.attempts for record in device.records()} == {1}


def test_an_unavailable_list_stops_no_upload_and_decides_nothing(tmp_path: Path, figure: Figure) -> None:
    with Simulator(SILENT) as simulator, bench(tmp_path, simulated(simulator.base_url)) as device:
        simulator.faults.add(Fault("answer", times=0, path="videos/requests", status=500))
        for number in range(3):
            device.take(number)
            device.go_on_until(lambda: len(simulator.received) > number)  # noqa: B023  # called at once
        go_on_for(device, 2 * 3600)
        assert device.states() == {State.ACCEPTED: 3}
        simulator.faults.clear()
        device.deliver_all()
        assert sum(video.updates for video in simulator.received) == 0
        figure("faults survived: list not to be had", 1)


def test_a_rate_limit_on_the_list_is_waited_out(tmp_path: Path) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        accepted(device, server, 1)
        device.go_on_until(lambda: len(queries(server)) > 0)
        device.clock.seconds += 60
        server.questions.append(says(429, API_ERROR, {"X-RateLimit-Retry-After-Seconds": "200"}))
        device.take(5)
        assert 200 <= device.step() <= 221
        assert device.dispatcher.activity.doing == "rate limit"


@pytest.mark.slow
def test_a_kill_between_accepted_and_confirmed_loses_nothing_and_sends_nothing_twice(
    tmp_path: Path, figure: Figure
) -> None:
    with Simulator(SILENT) as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        simulator.faults.add(Fault("answer", times=0, path="videos/requests", status=500))
        for number in range(5):
            name = f"ABC1234X_1_{START + timedelta(seconds=5 * number):%Y%m%d_%H%M%S}.mp4"
            (daemon.footage / name).write_bytes(recording(1.0, seed=str(number)))
        daemon.await_records(5, State.ACCEPTED, seconds=120)
        await_until(
            lambda: any(request.path.endswith("/videos/requests") for request in simulator.requests), "a poll", 120
        )
        daemon.stop(signal.SIGKILL)
        assert len(list((daemon.spool / "clips").iterdir())) == 5
        simulator.faults.clear()
        daemon.start()
        delivered = daemon.await_records(5, State.DELIVERED, seconds=180)
        assert {record.request_id for record in delivered} == {str(v.request_id) for v in simulator.received}
        assert sum(video.updates for video in simulator.received) == 0
        await_until(lambda: not list((daemon.spool / "clips").iterdir()), "the stored files to go", 60)
        figure("faults survived: killed before the confirmation", 1)
