"""Every kind of link failure, over real sockets: no clip is lost, loses an attempt, or is delivered twice.

Each test breaks the link, checks what was decided and sent, and then repairs the server: every clip must arrive exactly
once.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.model import State
from simulator.recorder import recording
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.delivery_bench import START, bench
from tests.support.link_cases import PATIENT, all_arrive_once, assert_nothing_is_held_against_a_clip, both, two_clips
from tests.support.misbehaviour import BREAKS, HTML, NOT_THE_API, SERVER_ERRORS, STALLS, reset
from tests.support.scripted_server import Certificate, Peer, refusing_port, scripted_api, scripted_server
from tests.support.vision_cases import api, authority, certificate

# A stall that the test waits out.
IMPATIENT = {"connect_timeout_seconds": 60.0, "stall_timeout_seconds": 0.4}

# A busy machine may not schedule a thread for a second or two: that is not a stall.
STALL_SECONDS = 10.0


# Over verified TLS only the API can answer: it may have accepted the clips.
PERHAPS_ACCEPTED = ("truncated JSON", "no JSON", "nothing", "JSON null", "a list", "other JSON", "200 with HTML", "204")


def troubles() -> list[Any]:
    """With and without TLS, for each kind of failure. Responses over TLS are in the slow tests."""
    plain = [pytest.param(False, how, id=f"{how}, plain") for how in (*BREAKS, *NOT_THE_API, *SERVER_ERRORS)]
    broken = [pytest.param(True, how, id=f"{how}, tls") for how in BREAKS]
    answered = [
        pytest.param(True, how, id=f"{how}, tls", marks=pytest.mark.slow)
        for how in (*NOT_THE_API, *SERVER_ERRORS)
        if how not in PERHAPS_ACCEPTED
    ]
    return [*plain, *broken, *answered]


@pytest.mark.parametrize(("secure", "how"), troubles())
def test_an_upload_that_fails_is_sent_again(tmp_path: Path, figure: Figure, secure: bool, how: str) -> None:
    script = (BREAKS | NOT_THE_API | SERVER_ERRORS)[how]
    with (
        scripted_api(certificate=certificate() if secure else None) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device,
    ):
        two_clips(device)
        server.uploads.append(script)
        device.step()
        assert server.uploads_begun == 1
        assert device.dispatcher.activity.link == "down"
        assert device.dispatcher.activity.reason
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        figure(f"faults survived: {'connection broken' if how in BREAKS else 'answer that is no verdict'}", 1)


@pytest.mark.parametrize("confirm", ["auto", "answer"])
@pytest.mark.parametrize("how", PERHAPS_ACCEPTED)
def test_a_success_in_another_form_over_tls_is_looked_up_before_it_is_sent_again(
    tmp_path: Path, figure: Figure, how: str, confirm: str
) -> None:
    with (
        scripted_api(certificate=certificate()) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT), confirm=confirm) as device,
    ):
        first, second = two_clips(device)
        server.uploads.append(NOT_THE_API[how])
        device.step()
        assert device.states() == {State.ACCEPTED: 2}
        assert device.dispatcher.activity.link == "ok"
        key = device.record(first).key
        assert key is not None
        times = {"start_timestamp": f"{key.start:%Y-%m-%d %H:%M:%S}", "end_timestamp": f"{key.end:%Y-%m-%d %H:%M:%S}"}
        server.lists = [{"registration": key.registration, "camera": 1, "status_id": 3, "request_id": 1, **times}]
        device.go_on_until(lambda: device.record(first).state is State.DELIVERED)
        assert server.uploads_begun == 1, "the one that is listed is not sent again"
        device.go_on_until(lambda: device.record(second).state is State.DELIVERED)
        assert server.uploads_begun == 2, "the one that is not listed is sent again"
        figure("faults survived: success in another form", 1)


@both
@pytest.mark.parametrize("how", STALLS)
def test_an_upload_that_stalls_is_given_up_and_sent_again(
    tmp_path: Path, figure: Figure, secure: bool, how: str
) -> None:
    with (
        scripted_api(certificate=certificate() if secure else None, receive_buffer_bytes=32_768) as server,
        bench(tmp_path, api(server.url, tmp_path, **IMPATIENT)) as device,
    ):
        for number in range(2):
            device.take(number, hole_to_bytes=6_000_000)
        server.uploads.append(STALLS[how])
        device.go_on_until(lambda: server.uploads_begun > 0)
        assert device.dispatcher.activity.link == "down"
        assert "nothing moved for 0.4 s" in device.dispatcher.activity.reason
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        figure("faults survived: stalled", 1)


@pytest.mark.slow
@both
def test_a_slow_upload_with_progress_finishes_after_the_stall_timeout(
    tmp_path: Path, figure: Figure, secure: bool
) -> None:
    def slowly(peer: Peer) -> None:
        while peer.pending_bytes() > 0:
            peer.take(16_384)
            time.sleep(0.02)
        server.well(peer)

    with (
        scripted_api(certificate=certificate() if secure else None, receive_buffer_bytes=32_768) as server,
        bench(tmp_path, api(server.url, tmp_path, stall_timeout_seconds=STALL_SECONDS)) as device,
    ):
        device.take(1, hole_to_bytes=8_000_000)
        server.uploads.append(slowly)
        started = time.monotonic()
        device.step()
        assert time.monotonic() - started > STALL_SECONDS
        assert device.states() == {State.DELIVERED: 1}
        assert set(server.times_received().values()) == {1}
        figure("faults survived: slow but moving", 1)


@pytest.mark.parametrize("how", [*NOT_THE_API, *SERVER_ERRORS, "reset"])
def test_nothing_but_the_api_is_sent_a_byte_of_footage(tmp_path: Path, figure: Figure, how: str) -> None:
    """A captive portal, a proxy, a failing server: the preflight request finds out."""
    script = (NOT_THE_API | SERVER_ERRORS | {"reset": reset})[how]
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        two_clips(device)
        server.questions += [script] * 10
        while server.questions:
            device.step()
        assert server.uploads_begun == 0
        assert device.dispatcher.activity.link == "down"
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        figure("faults survived: no API behind the link", 1)


class SelfSigned:
    """A self-signed certificate."""

    def configure_cert(self, context: ssl.SSLContext) -> None:
        own = trustme.CA()
        with own.cert_pem.tempfile() as chain, own.private_key_pem.tempfile() as key:
            context.load_cert_chain(chain, key)


def untrusted_certificates() -> dict[str, tuple[Callable[[], Certificate], str]]:
    now = datetime.now(timezone.utc)
    year = timedelta(days=365)
    return {
        "expired": (lambda: certificate(not_before=now - 2 * year, not_after=now - year), "has expired"),
        "not yet valid": (lambda: certificate(not_before=now + year, not_after=now + 2 * year), "not valid yet"),
        "another name": (lambda: authority().issue_cert("api.example.com"), "for another name"),
        "self-signed": (SelfSigned, "not trusted"),
        "unknown CA": (lambda: trustme.CA().issue_cert("127.0.0.1"), "not trusted"),
    }


@pytest.mark.parametrize("which", untrusted_certificates())
def test_an_untrusted_certificate_is_the_links_fault(tmp_path: Path, figure: Figure, which: str) -> None:
    make, words = untrusted_certificates()[which]
    with (
        scripted_api(certificate=make()) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device,
    ):
        two_clips(device)
        for _ in range(8):
            device.step()
        assert device.dispatcher.activity.link == "down"
        assert words in device.dispatcher.activity.reason
        assert server.heads == [], "neither footage nor credentials left the device"
        assert_nothing_is_held_against_a_clip(device)
        server.certificate = certificate()
        all_arrive_once(device, server)
        figure("faults survived: certificates", 1)


def test_plain_http_instead_of_tls_is_the_links_fault(tmp_path: Path, figure: Figure) -> None:
    def plain(peer: Peer) -> None:
        peer.receive()
        peer.answer(400, HTML)

    with scripted_server(plain) as portal, scripted_api() as server:
        with bench(tmp_path, api(portal.url.replace("http:", "https:"), tmp_path, **PATIENT)) as device:
            two_clips(device)
            device.step()
            assert device.dispatcher.activity.link == "down"
            assert_nothing_is_held_against_a_clip(device)
            all_arrive_once(device, server)
        figure("faults survived: certificates", 1)


# Nothing listens on the port.
UNREACHABLE = {
    "no such name": ("http://fleetapi.invalid/rest", "cannot be resolved"),
    "refused": ("http://127.0.0.1:{port}/rest", "refused"),
    "no route": ("http://255.255.255.255/rest", "unreachable"),
}


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("how", UNREACHABLE)
def test_an_unreachable_api_is_tried_less_and_less_often(tmp_path: Path, figure: Figure, how: str) -> None:
    address, words = UNREACHABLE[how]
    with (
        scripted_api() as server,
        refusing_port() as port,
        bench(tmp_path, api(address.format(port=port), tmp_path, **PATIENT)) as device,
    ):
        two_clips(device)
        pauses = [device.step() for _ in range(24)]
        assert words in device.dispatcher.activity.reason
        assert max(pauses[:4]) <= 8.0
        assert max(pauses) > 60.0
        assert max(pauses) <= 300.0
        assert_nothing_is_held_against_a_clip(device)
        all_arrive_once(device, server)
        figure("faults survived: unreachable", 1)


def test_every_kind_of_failure_in_sequence_loses_nothing(tmp_path: Path, figure: Figure) -> None:
    """Twenty clips through all failures, in one run."""
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT), batch_clips=4) as device:
        for number in range(20):
            device.take(number)
        faults = [*BREAKS.values(), *NOT_THE_API.values(), *SERVER_ERRORS.values()]
        server.uploads.extend(script for fault in faults for script in (fault, server.well))
        device.go_on_until(lambda: not server.uploads or device.states()[State.DELIVERED] == 20, most_steps=2000)
        server.uploads.clear()
        device.deliver_all()
        assert set(server.times_received().values()) == {1}
        figure("faults survived: mixed", len(faults))


@pytest.mark.daemon
@pytest.mark.slow
def test_each_clip_is_delivered_once_after_a_captive_portal_and_broken_uploads(tmp_path: Path, figure: Figure) -> None:
    with (
        scripted_api() as server,
        DaemonProcess(tmp_path, server.url, {"api": "stall_timeout_seconds = 600"}) as daemon,
    ):
        portal = NOT_THE_API["200 with HTML"]
        server.questions += [portal, NOT_THE_API["511"]]
        server.uploads += [portal, BREAKS["reset after the body"]]
        for number in range(4):
            name = f"ABC1234X_1_{START + timedelta(seconds=5 * number):%Y%m%d_%H%M%S}.mp4"
            (daemon.footage / name).write_bytes(recording(1.0, seed=str(number)))
        await_until(lambda: not server.questions, "the portal to be seen", 120)
        assert daemon.records(State.DELIVERED, State.ACCEPTED) == []
        daemon.await_records(4, State.DELIVERED, seconds=240)
        assert set(server.times_received().values()) == {1}
        assert {record.attempts for record in daemon.records()} == {0}
        figure("faults survived: captive portal, with the daemon", 1)
