"""Requests adapt to the link and to the account's rate limit, over real sockets; only the clock is not real.

The server moves the clock by the time that a link with some throughput needs.
"""

from __future__ import annotations

from pathlib import Path

from agent.delivery.fair_share import slot_seconds
from agent.model import State
from tests.support.delivery_bench import Bench, bench
from tests.support.link_cases import PATIENT, all_arrive_once, assert_nothing_is_held_against_a_clip
from tests.support.misbehaviour import reset, says
from tests.support.scripted_server import Peer, Script, ScriptedApi, scripted_api
from tests.support.vision_cases import API_ERROR, api

CLIP_BYTES = 600_000


def clips(device: Bench, count: int) -> None:
    for number in range(count):
        device.take(number, hole_to_bytes=CLIP_BYTES)


def link(device: Bench, server: ScriptedApi, bytes_per_second: float) -> Script:
    """Responds after the time that the request's footage (base64) takes on a link of this throughput."""

    def well(peer: Peer) -> None:
        device.clock.seconds += 0.75 * int(peer.requests[-1].headers["content-length"]) / bytes_per_second
        server.well(peer)

    return well


def clips_a_request(device: Bench, server: ScriptedApi) -> list[int]:
    """Delivers everything; returns the number of clips in each request."""
    counts = []
    while set(device.states()) != {State.DELIVERED}:
        before = len(server.videos)
        device.step()
        if len(server.videos) > before:
            counts.append(len(server.videos) - before)
    return counts


def test_batches_are_small_on_a_slow_link_and_full_on_a_fast_one(tmp_path: Path) -> None:
    for bytes_per_second, least, most in ((20_000.0, 1, 2), (50_000_000.0, 20, 20)):
        place = tmp_path / f"{bytes_per_second:.0f}"
        place.mkdir()
        with scripted_api() as server, bench(place, api(server.url, place, **PATIENT)) as device:
            clips(device, 52)
            server.uploads += [link(device, server, bytes_per_second)] * 60
            first, *others = clips_a_request(device, server)
            assert first == 12, "a minute at a megabit"
            assert all(least <= count <= most for count in others[2 if most < 20 else 0 :])
            assert set(server.times_received().values()) == {1}


def test_one_clip_is_sent_however_slow_the_link(tmp_path: Path) -> None:
    """On a link so slow that one clip takes hours, each clip is sent alone."""
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        clips(device, 15)
        server.uploads += [link(device, server, 50.0)] * 15
        assert clips_a_request(device, server) == [12, 1, 1, 1]


def test_an_upload_that_breaks_makes_the_next_one_smaller(tmp_path: Path) -> None:
    def broken(peer: Peer) -> None:
        device.clock.seconds += 600.0
        server.questions.append(reset)  # the API does not respond after the break either
        reset(peer)

    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        clips(device, 12)
        server.uploads.append(broken)
        device.go_on_until(lambda: len(server.videos) > 0)
        assert len(server.videos) < 6
        assert {(record.attempts, record.batch_failures) for record in device.records()} == {(0, 0)}
        all_arrive_once(device, server)


def test_in_a_large_fleet_preflight_and_upload_use_two_slots(tmp_path: Path) -> None:
    with (
        scripted_api() as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT), vehicles=10_000) as device,
    ):
        clips(device, 2)
        device.step()
        assert (len(server.heads), server.uploads_begun) == (1, 0)
        turn = device.dispatcher.step()
        assert 0.8 * slot_seconds(10_000) < turn < 1.2 * slot_seconds(10_000)
        assert device.dispatcher.activity.doing == "waiting for its turn"
        assert "upload.vehicles = 10000" in device.dispatcher.activity.reason
        device.deliver_all()


def test_after_an_outage_requests_are_one_slot_apart(tmp_path: Path) -> None:
    with (
        scripted_api() as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT), batch_clips=1) as device,
    ):
        clips(device, 4)
        server.questions += [reset] * 8
        device.go_on_until(lambda: device.states()[State.DELIVERED] == 1)
        assert not server.questions
        since = device.clock.seconds
        device.deliver_all()
        assert device.clock.seconds - since > 3 * 0.9 * slot_seconds(1000)


def test_a_429_names_the_key_and_costs_a_slot(tmp_path: Path) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        clips(device, 2)
        server.uploads.append(says(429, API_ERROR, {"X-RateLimit-Retry-After-Seconds": "7"}))
        assert 7.0 <= device.dispatcher.step() < 9.0
        assert "upload.vehicles" in device.dispatcher.activity.reason
        device.clock.seconds += 9.0
        assert device.dispatcher.step() > 0.8 * slot_seconds(1000) - 9.0
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
