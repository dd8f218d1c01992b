"""Rejections by the API, over real sockets: each row of the decision table, and the footage that it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from agent.model import State
from agent.spool.records import Record
from tests.conftest import Figure
from tests.support.delivery_bench import START, Bench, bench
from tests.support.link_cases import PATIENT, all_arrive_once, assert_nothing_is_held_against_a_clip, both, two_clips
from tests.support.misbehaviour import HTML, bytes_until_hang_up, says
from tests.support.scripted_server import Peer, ScriptedApi, scripted_api
from tests.support.vision_cases import API_ERROR, api, certificate

# Rejected before anything is sent: a person must act, and no footage is sent meanwhile.
HOLDS = {401: "credentials", 402: "payment", 403: "Vision API option", 404: "base_url", 423: "locked"}


@pytest.mark.parametrize("status", HOLDS)
def test_an_error_that_a_person_must_fix_costs_no_footage(tmp_path: Path, figure: Figure, status: int) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        two_clips(device)
        server.questions += [says(status, API_ERROR)] * 3
        pauses = [device.step() for _ in range(3)]
        assert pauses == [300.0, 300.0, 300.0]
        assert server.uploads_begun == 0
        assert device.dispatcher.activity.doing == "held"
        assert HOLDS[status] in device.dispatcher.activity.reason
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        figure("faults survived: refused account or address", 1)


@both
@pytest.mark.parametrize("draining", [True, False], ids=["draining", "not draining"])
@pytest.mark.parametrize("status", [401, *(pytest.param(status, marks=pytest.mark.slow) for status in (403, 404))])
def test_an_early_response_during_an_upload_holds_delivery(
    tmp_path: Path, figure: Figure, status: int, draining: bool, secure: bool
) -> None:
    received = []

    def refuse(peer: Peer) -> None:
        if draining:
            received.append(peer.drain())
            peer.answer(status, API_ERROR)
            return
        peer.answer(status, API_ERROR)
        received.extend(bytes_until_hang_up(peer))

    with (
        scripted_api(certificate=certificate() if secure else None) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device,
    ):
        device.take(1, hole_to_bytes=24_000_000)
        server.uploads.append(refuse)
        assert device.step() == 300.0
        assert device.dispatcher.activity.doing == "held"
        assert HOLDS[status] in device.dispatcher.activity.reason
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        assert draining or sum(received) < 12_000_000
        figure("faults survived: early refusals", 1)


@both
@pytest.mark.parametrize("draining", [True, False], ids=["draining", "not draining"])
def test_an_early_413_makes_requests_smaller_until_they_fit(
    tmp_path: Path, figure: Figure, draining: bool, secure: bool
) -> None:
    received: list[int] = []

    def too_large(peer: Peer) -> None:
        if int(peer.requests[-1].headers["content-length"]) <= 9_000_000:
            server.well(peer)
        elif draining:
            peer.drain()
            peer.answer(413, HTML)
        else:
            peer.answer(413, HTML)
            received.extend(bytes_until_hang_up(peer))

    with (
        scripted_api(certificate=certificate() if secure else None) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device,
    ):
        ids = [device.take(number, hole_to_bytes=3_000_000) for number in range(8)]
        too_big = device.take(9, hole_to_bytes=12_000_000)
        server.uploads += [too_large] * 40
        device.go_on_until(lambda: device.states() == {State.DELIVERED: 8, State.REFUSED: 1})
        assert device.record(too_big).state is State.REFUSED
        assert "too large for the server even alone" in device.record(too_big).reason
        assert {device.record(id).attempts for id in ids} == {0}
        assert set(server.times_received().values()) == {1}
        assert sum(received) < 60_000_000
        figure("faults survived: 413", 1)


def http_date(device: Bench, seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(device.clock.now() + seconds, timezone.utc), usegmt=True)


RATE_HEADERS: dict[str, tuple[Callable[[Bench], Mapping[str, str]], float, float]] = {
    "seconds": (lambda _: {"X-RateLimit-Retry-After-Seconds": "20"}, 20, 23),
    "instant": (lambda device: {"X-RateLimit-Retry-At": str(int(device.clock.now()) + 30)}, 29, 34),
    "instant by the server's clock": (
        lambda device: {
            "Date": http_date(device, 31_536_000),
            "X-RateLimit-Retry-At": str(int(device.clock.now()) + 31_536_000 + 30),
        },
        29,
        34,
    ),
    "plain seconds": (lambda _: {"Retry-After": "40"}, 40, 45),
    "plain date": (lambda device: {"Retry-After": http_date(device, 50)}, 49, 56),
    "none": (lambda _: {}, 1, 16),
}


@pytest.mark.parametrize("where", ["small request", "upload"])
@pytest.mark.parametrize("header", RATE_HEADERS)
def test_a_rate_limit_is_waited_out(tmp_path: Path, figure: Figure, header: str, where: str) -> None:
    headers, least, most = RATE_HEADERS[header]
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        two_clips(device)
        limited = says(429, API_ERROR, headers(device))
        (server.uploads if where == "upload" else server.questions).append(limited)
        pause = device.dispatcher.step()
        assert least <= pause <= most
        assert device.dispatcher.activity.doing == "rate limit"
        requests = len(server.heads)
        device.clock.seconds += 0.9 * pause
        device.dispatcher.step()
        assert len(server.heads) == requests, "nothing is asked while it waits"
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        figure("faults survived: 429", 1)


def three_clips(device: Bench) -> list[int]:
    return [device.take(number) for number in range(3)]


def result_of(number: int, **said: object) -> dict[str, object]:
    start = START + timedelta(minutes=number)
    return {
        "registration": "ABC1234X",
        "camera": "1",
        "start_timestamp": f"{start:%Y-%m-%d %H:%M:%S}",
        "end_timestamp": f"{start + timedelta(seconds=1):%Y-%m-%d %H:%M:%S}",
        **said,
    }


def after_one_answer(device: Bench, server: ScriptedApi, status: int, payload: object) -> list[Record]:
    ids = three_clips(device)
    server.uploads.append(says(status, payload))
    device.step()
    return [device.record(id) for id in ids]


def test_a_422_that_names_a_clip_refuses_it_and_the_others_arrive(tmp_path: Path, figure: Figure) -> None:
    errors = {"errors": {"data.1.video_file": ["The video_file must be a file."]}, "message": "The data is invalid."}
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        records = after_one_answer(device, server, 422, errors)
        assert [record.state for record in records] == [State.WAITING, State.REFUSED, State.WAITING]
        assert "must be a file" in records[1].reason
        device.go_on_until(lambda: device.states()[State.DELIVERED] == 2)
        assert [head.method for head in server.heads].count("POST") == 2
        assert list(server.times_received().values()) == [1, 1]
        figure("faults survived: 422", 1)


def test_a_422_that_names_none_sends_the_clips_one_by_one(tmp_path: Path, figure: Figure) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        records = after_one_answer(device, server, 422, API_ERROR)
        assert {(record.state, record.attempts) for record in records} == {(State.WAITING, 0)}
        device.deliver_all()
        posts = [head.target.rsplit("/", 1)[1] for head in server.heads if head.method == "POST"]
        assert posts == ["bulk-upload", "upload", "upload", "upload"]
        assert list(server.times_received().values()) == [1, 1, 1]
        figure("faults survived: 422", 1)


FORMS: list[Callable[[str], object]] = [lambda words: [words], lambda words: {"video_file": [words]}]


@pytest.mark.parametrize("form", [str, *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS)])
@pytest.mark.parametrize(
    ("words", "state", "attempts"),
    [
        ("The file is not of MP4 video format.", State.REFUSED, 1),
        ("The file is too large.", State.REFUSED, 1),
        ("The duration must not be longer than 5 minutes.", State.REFUSED, 1),
        ("The registration has no active contract.", State.HELD, 0),
        ("Storage is unavailable, try again.", State.WAITING, 0),
        ("Oops.", State.WAITING, 1),
    ],
)
def test_an_error_about_one_file_is_about_that_file_only(
    tmp_path: Path, figure: Figure, *, words: str, state: State, attempts: int, form: Callable[[str], object]
) -> None:
    results = [result_of(0, request_id=1), result_of(1, errors=form(words)), result_of(2, request_id="3")]
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        records = after_one_answer(device, server, 200, {"data": results})
        assert [record.state for record in records] == [State.DELIVERED, state, State.DELIVERED]
        assert records[1].attempts == attempts
        assert words in records[1].reason
        assert [records[0].request_id, records[2].request_id] == ["1", "3"]
        figure("faults survived: errors about one file", 1)


def test_a_clip_without_a_result_is_kept_until_the_list_confirms_it(tmp_path: Path, figure: Figure) -> None:
    results = [result_of(0, request_id=1), result_of(1), result_of(7, request_id=9)]
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        records = after_one_answer(device, server, 200, {"data": results})
        assert [record.state for record in records] == [State.DELIVERED, State.ACCEPTED, State.ACCEPTED]
        assert len(list((tmp_path / "spool" / "clips").iterdir())) == 2
        server.lists = [result_of(number, status_id=3, request_id=number) for number in (1, 2)]
        device.go_on_until(lambda: device.states() == {State.DELIVERED: 3})
        assert server.uploads_begun == 1
        figure("faults survived: answers without a result", 1)


def test_footage_of_a_batch_is_not_sent_when_one_clip_of_it_is_gone(tmp_path: Path, figure: Figure) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        ids = three_clips(device)
        next((tmp_path / "spool" / "clips").glob(f"*{device.record(ids[1]).footage.identity}*")).unlink()
        device.go_on_until(lambda: device.states() == {State.DELIVERED: 2, State.LOST: 1})
        assert "cannot be opened" in device.record(ids[1]).reason
        assert list(server.times_received().values()) == [1, 1]
        figure("faults survived: stored file gone", 1)
