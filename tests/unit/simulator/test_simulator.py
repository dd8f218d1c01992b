"""The simulated API keeps the published contract."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import trustme

from simulator import webhooks
from simulator.endpoints import RateLimit
from simulator.server import Simulator
from simulator.settings import AnswerShape, Status, StatusTimeline
from simulator.store import format_timestamp, parse_timestamp
from tests.support.daemon import await_until
from tests.support.scripted_server import refusing_port
from tests.support.simulated_account import BULK, LIST, PATIENCE_SECONDS, STATUS, Account, clip, fields, record


@pytest.mark.parametrize("credentials", [("bench", "wrong"), ("wrong", "bench"), ("bénch", "bench"), None])
def test_wrong_credentials_are_answered_with_401(account: Account, credentials: tuple[str, str] | None) -> None:
    account.session.auth = credentials
    answer = account.get(STATUS)
    assert answer.status_code == 401
    assert answer.json() == {"error": {"code": 401, "message": "Unauthenticated"}}


def test_credentials_that_are_not_even_text_are_answered_with_401(account: Account) -> None:
    account.session.auth = None
    assert account.get(STATUS, headers={"Authorization": b"Basic \xff\xfe"}).status_code == 401


def test_without_the_option_every_vision_endpoint_answers_403(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, option_active=False)
    assert [account.get(path).status_code for path in (STATUS, LIST)] == [403, 403]
    assert account.bulk(record()).status_code == 403
    assert account.get("/health").status_code == 200


def test_a_client_that_dies_in_the_middle_of_an_upload_is_told_of_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with Simulator(log=told.append) as simulator:
        host, port = urlsplit(simulator.base_url).netloc.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as peer:
            authorization = f"Basic {base64.b64encode(b'bench:bench').decode()}"
            head = f"POST /rest{BULK} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n"
            peer.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + bytes(1000))
            await_until(lambda: bool(simulator.requests) and simulator.requests[0].body_bytes > 0, "the body to arrive")
        await_until(lambda: bool(told), "the end to be told")
    assert told == [f"POST /rest{BULK} -> reset"]
    assert caplog.records == []


def test_a_refusal_waits_for_a_small_body_so_that_the_client_sees_it(simulator: Simulator) -> None:
    host, port = urlsplit(simulator.base_url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as client:
        head = f"POST /rest{BULK} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        await_until(lambda: bool(simulator.requests), "the request")
        assert select.select([client], [], [], 0.2)[0] == [], "answered before the body has come"
        client.sendall(b"{}")
        assert b"401" in client.recv(1000)


def test_an_unknown_address_is_answered_with_404_in_the_apis_form(account: Account) -> None:
    answer = account.get("/vision/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, 404)


def test_a_wrong_method_is_answered_in_the_apis_form(account: Account) -> None:
    answer = account.get(BULK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, 405)


def test_a_request_that_is_too_large_is_answered_with_413(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, max_body_bytes=10)
    assert account.bulk(record()).status_code == 413
    assert simulator.requests[0].body_bytes == 0


def test_too_many_requests_are_told_when_to_come_again(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, requests_per_minute=2)
    before = time.time()
    assert [account.get(STATUS).status_code for _ in range(2)] == [200, 200]
    answer = account.get(STATUS)
    after = time.time()
    assert answer.status_code == 429
    assert 59 - (after - before) <= int(answer.headers["X-RateLimit-Retry-After-Seconds"]) <= 60
    assert before + 59 <= int(answer.headers["X-RateLimit-Retry-At"]) <= after + 61


def test_a_refused_request_does_not_prolong_the_wait() -> None:
    limit = RateLimit(60.0)
    assert [limit.admit(now, 1) for now in (0.0, 20.0, 50.0, 60.0)] == [0.0, 40.0, 10.0, 0.0]


def test_health_needs_no_credentials_and_may_be_asked_once_in_five_minutes(account: Account) -> None:
    account.session.auth = None
    assert account.get("/health").json() == {"data": {"status": "ok"}}
    again = account.get("/health")
    assert again.status_code == 429
    assert 300 - PATIENCE_SECONDS <= int(again.headers["X-RateLimit-Retry-After-Seconds"]) <= 300


def test_status_codes_are_explained(account: Account) -> None:
    assert [row["status_id"] for row in account.get(STATUS).json()["data"]] == [1, 2, 3, 4, 5, 6]


def test_files_are_judged_one_by_one_by_what_is_in_them(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, registrations=frozenset({"ABC1234X"}), max_file_bytes=1_000_000)
    records = [
        record(0),
        record(1, video=b"MZ no video at all"),
        record(2, video=clip()[:-100]),
        record(3, video=b"x" * 1_000_001),
        record(4, end_timestamp="2026-07-28 14:09:01"),
        record(5, end_timestamp="2026-07-28 14:04:00"),
        record(6, registration="UNKNOWN"),
    ]
    known, unknown = account.results(*records)
    assert [video.get("errors") for video in known["videos"]] == [
        None,
        "The file is not of MP4 video format.",
        "The file is not of MP4 video format.",
        "The file is larger than 1000000 bytes.",
        "The duration must not be longer than 5 minutes.",
        "The duration must not be longer than 5 minutes.",
    ]
    assert unknown["registration"] == "UNKNOWN"
    assert "no active contract" in unknown["videos"][0]["errors"]
    assert [video.start for video in simulator.received] == [fields(0)["start_timestamp"]]


def test_a_single_upload_is_refused_for_what_is_in_its_file(account: Account) -> None:
    answer = account.single(video=b"no video")
    assert answer.status_code == 422
    assert answer.json()["errors"] == {"video_file": ["The file is not of MP4 video format."]}


def test_a_single_upload_answers_with_its_number(simulator: Simulator, account: Account) -> None:
    answer = account.single(comments="by hand")
    assert answer.json() == {"data": {"request_id": simulator.received[0].request_id}}
    assert (simulator.received[0].endpoint, simulator.received[0].comments) == ("upload", "by hand")


GOOD = {"start_timestamp": fields(0)["start_timestamp"], "end_timestamp": fields(0)["end_timestamp"]}
BAD = {"start_timestamp": fields(1)["start_timestamp"], "end_timestamp": fields(1)["end_timestamp"]}
WORDS = "The file is not of MP4 video format."


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            AnswerShape(),
            [
                {
                    "registration": "ABC1234X",
                    "videos": [{"camera": 1, **GOOD, "request_id": 15139}, {"camera": 1, **BAD, "errors": WORDS}],
                }
            ],
        ),
        (
            AnswerShape("flat", camera="string", errors="list"),
            [
                {"registration": "ABC1234X", "camera": "1", **GOOD, "request_id": 15139},
                {"registration": "ABC1234X", "camera": "1", **BAD, "errors": [WORDS]},
            ],
        ),
        (
            AnswerShape("flat", key="videos", errors="mapping"),
            {
                "videos": [
                    {"registration": "ABC1234X", "camera": 1, **GOOD, "request_id": 15139},
                    {"registration": "ABC1234X", "camera": 1, **BAD, "errors": {"video_file": [WORDS]}},
                ]
            },
        ),
        (AnswerShape("none"), {}),
    ],
)
def test_results_come_in_every_shape(
    simulator: Simulator, account: Account, form: AnswerShape, expected: object
) -> None:
    simulator.settings = replace(simulator.settings, answer=form)
    assert account.results(record(0), record(1, video=b"no video")) == expected


def test_the_same_clip_again_is_an_update_with_the_same_number(simulator: Simulator, account: Account) -> None:
    account.bulk(record(0))
    first = simulator.received[0]
    account.bulk(record(0, video=clip(5)))
    (second,) = simulator.received
    assert (second.request_id, second.updates) == (first.request_id, 1)
    assert second.sha256 == hashlib.sha256(clip(5)).hexdigest()


def test_what_was_received_can_be_seen_and_kept(tmp_path: Path) -> None:
    told: list[str] = []
    with Simulator(keep_directory=tmp_path / "kept", log=told.append) as simulator:
        account = Account(simulator)
        account.bulk(record(0))
        (row,) = account.kept()
        account.session.close()
    sha256 = hashlib.sha256(clip(0)).hexdigest()
    assert (row["sha256"], row["bytes"]) == (sha256, len(clip(0)))
    assert (tmp_path / "kept" / f"{sha256}.mp4").read_bytes() == clip(0)
    assert told == [f"  ABC1234X 1 {fields(0)['start_timestamp']}: stored as 15139", f"POST /rest{BULK} -> 200"]


def numbers(answer: requests.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["request_id"] for item in answer.json()["data"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [15139, 15140, 15141]),
        ({"filter[registration]": "OTHER"}, [15141]),
        ({"filter[camera]": "2"}, [15140]),
        ({"filter[status_id]": "3"}, [15139, 15140, 15141]),
        ({"filter[status_id]": "1"}, []),
        ({"filter[request_comment]": "crash"}, [15140]),
        ({"filter[request_id][]": ["15139", "15141"]}, [15139, 15141]),
        ({"filter[video_start_ts_from]": "2026-07-28 14:01:00"}, [15140, 15141]),
        ({"filter[video_start_ts_to]": "2026-07-28 14:01:00"}, [15139, 15140]),
        ({"filter[video_end_ts_from]": "2026-07-28 14:02:30"}, [15141]),
        ({"filter[video_end_ts_to]": "2026-07-28 14:00:30"}, [15139]),
        ({"filter[start_request_ts]": "2099-01-01 00:00:00"}, []),
        ({"filter[end_updated_ts]": "2099-01-01 00:00:00"}, [15139, 15140, 15141]),
        ({"page": "2", "limit": "2"}, [15141]),
        ({"page": "9"}, []),
    ],
)
def test_the_list_is_filtered(account: Account, query: dict[str, str], expected: list[int]) -> None:
    account.bulk(record(0), record(1, camera=2, comments="crash"), record(2, registration="OTHER"))
    assert numbers(account.get(LIST, params=query)) == expected


def test_pages_are_counted(account: Account) -> None:
    account.bulk(record(0), record(1), record(2))
    assert account.get(LIST, params={"page": "2", "limit": "2"}).json()["meta"] == {
        "from": 3,
        "to": 3,
        "current_page": 2,
        "per_page": 2,
        "last_page": 2,
        "total": 3,
    }
    empty = account.get(LIST, params={"page": "3", "limit": "2"}).json()["meta"]
    assert (empty["from"], empty["to"]) == (None, None)
    assert account.get(LIST).json()["meta"]["per_page"] == 15


@pytest.mark.parametrize("query", [{"page": "0"}, {"limit": "many"}])
def test_a_page_that_is_none_is_refused(account: Account, query: dict[str, str]) -> None:
    assert account.get(LIST, params=query).status_code == 422


def test_a_listed_video_has_its_fields_and_a_link_once_complete(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, upload_timeline=StatusTimeline(3600.0))
    account.bulk(record(0, comments="crash"))
    (item,) = account.get(LIST).json()["data"]
    expected = {"request_id": 15139, "status_id": 1, "url": None, "duration": 30, "comments": "crash", **fields(0)}
    assert item == expected
    simulator.settings = replace(simulator.settings, upload_timeline=StatusTimeline())
    account.bulk(record(0))
    (item,) = account.get(LIST).json()["data"]
    assert (item["status_id"], item["url"]) == (3, "https://videos.example.com/15139.mp4")


@pytest.mark.parametrize("final", [Status.COMPLETE, Status.CANCELLED, Status.DOES_NOT_EXIST, Status.TIMEOUT])
def test_a_request_goes_through_its_states(final: Status) -> None:
    timeline = StatusTimeline(10.0, final)
    assert [timeline.status(age) for age in (0, 9.9, 10, 19.9, 20, 99)] == [1, 1, 2, 2, final, final]
    assert [timeline.last_change_seconds(age) for age in (0, 10, 19.9, 20, 99)] == [0, 10, 10, 20, 20]


def test_footage_is_requested_from_each_camera(simulator: Simulator, account: Account) -> None:
    requested = {"registration": "R", "start_timestamp": "2026-07-28 23:59:30", "duration": 60, "camera": [1, 2]}
    made = account.post(LIST, json=requested).json()["data"]
    assert [(item["camera"], item["status_id"], item["end_timestamp"]) for item in made] == [
        (1, 1, "2026-07-29 00:00:30"),
        (2, 1, "2026-07-29 00:00:30"),
    ]
    assert numbers(account.get(LIST)) == [item["request_id"] for item in made]
    assert {video.endpoint for video in simulator.received} == {"requests"}


def test_footage_of_an_offline_vehicle_times_out(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, offline=frozenset({"R"}), request_timeline=StatusTimeline(0.0))
    requested = {"registration": "R", "start_timestamp": "2026-07-28 23:59:30", "duration": 60, "camera": [1]}
    (item,) = account.post(LIST, json=requested).json()["data"]
    assert (item["status_id"], item["url"]) == (6, None)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"registration": "R", "camera": 1}'])
def test_a_wrong_request_for_footage_is_refused(account: Account, text: str) -> None:
    assert account.post(LIST, data=text).status_code == 422


def test_a_livestream_has_a_link_for_each_camera(account: Account) -> None:
    links = account.post("/vision/livestream/ABC1234X", json={"camera": [1, 2]}).json()["data"]
    assert len(set(links)) == 2
    assert account.post("/vision/livestream/ABC1234X", json={"camera": 1}).status_code == 422


def test_the_livestream_of_an_offline_recorder_is_503(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, offline=frozenset({"ABC1234X"}))
    answer = account.post("/vision/livestream/ABC1234X", json={"camera": [1]})
    assert answer.status_code == 503
    assert answer.json() == {"error": {"code": 503, "message": "Digital Video Recorder is not online"}}


@contextmanager
def webhook_receiver(status: int = 200, location: str = "") -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server for webhook calls: its address, and the signature and body of each call."""
    calls: list[tuple[str, bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append((self.headers["X-Webhook-Signature"], body))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are silent."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", calls
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("form", [AnswerShape(), AnswerShape("none"), AnswerShape("flat", key="videos")])
def test_the_webhook_gets_each_result_signed_whatever_the_answer_tells(
    simulator: Simulator, account: Account, form: AnswerShape
) -> None:
    simulator.settings = replace(simulator.settings, answer=form)
    with webhook_receiver() as (url, calls):
        assert account.bulk(record(0), record(1, video=b"no"), webhook_url=url).status_code == 200
        await_until(lambda: len(simulator.webhook_calls) == 1, "the call")
    ((signature, body),) = calls
    assert signature == hmac.new(b"bench-key", body, hashlib.sha256).hexdigest()
    (group,) = json.loads(body)
    assert [video.get("request_id") for video in group["videos"]] == [15139, None]
    assert simulator.webhook_calls[0]["status"] == 200


def test_a_form_may_name_a_webhook_too(simulator: Simulator, account: Account) -> None:
    with webhook_receiver() as (url, calls):
        assert account.bulk_form(0, webhook_url=url).status_code == 200
        await_until(lambda: len(simulator.webhook_calls) == 1, "the call")
    assert len(calls) == 1


@pytest.mark.parametrize("url", ["http://example.com/hook", "http://127.0.0.1.example.com/", "file:///x", "http://["])
def test_a_webhook_elsewhere_is_never_called(url: str) -> None:
    told: list[str] = []
    with Simulator(log=told.append) as simulator:
        account = Account(simulator)
        assert account.bulk(record(), webhook_url=url).status_code == 200
        account.session.close()
        assert simulator.webhook_calls == []
    assert f"  webhook {url} is skipped: not a loopback address" in told


def test_a_webhook_does_not_follow_redirects(simulator: Simulator, account: Account) -> None:
    with webhook_receiver() as (target, reached), webhook_receiver(302, target) as (url, _):
        account.bulk(record(), webhook_url=url)
        await_until(lambda: len(simulator.webhook_calls) == 1, "the call")
    assert (simulator.webhook_calls[0]["status"], reached) == (302, [])


def test_a_webhook_that_does_not_answer_is_noted(simulator: Simulator, account: Account) -> None:
    with refusing_port() as port:
        account.bulk(record(), webhook_url=f"http://127.0.0.1:{port}/hook")
        await_until(lambda: len(simulator.webhook_calls) == 1, "the call")
    assert simulator.webhook_calls[0]["error"]


def test_leaving_the_simulator_gives_up_webhooks_that_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "PATIENCE_SECONDS", 3600.0)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as mute, Simulator() as simulator:
        account = Account(simulator)
        account.bulk(record(), webhook_url=f"http://127.0.0.1:{mute.server_port}/")
        account.session.close()
    assert simulator.webhook_calls == []


def test_it_serves_https(simulator: Simulator) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Simulator(tls=context) as secure, authority.cert_pem.tempfile() as ca_file:
        account = Account(secure)
        account.session.verify = ca_file
        assert secure.base_url.startswith("https://127.0.0.1:")
        assert account.bulk(record(), record(1)).status_code == 200
        account.session.close()
        assert [video.sha256 for video in secure.received] == [hashlib.sha256(clip(n)).hexdigest() for n in range(2)]


def test_others_are_answered_while_a_body_comes_in(simulator: Simulator, account: Account) -> None:
    started, finish = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield b'{"data": ['
        started.set()
        finish.wait(PATIENCE_SECONDS)
        yield json.dumps(record()).encode() + b"]}"

    upload = threading.Thread(
        target=lambda: account.post(BULK, data=body(), headers={"Content-Type": "application/json"})
    )
    upload.start()
    assert started.wait(PATIENCE_SECONDS)
    assert account.get(STATUS).status_code == 200
    assert simulator.received == []
    finish.set()
    upload.join()
    assert len(simulator.received) == 1


def test_a_port_that_is_taken_is_an_error_at_once(simulator: Simulator) -> None:
    port = int(simulator.base_url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="in use"), Simulator(port=port):
        pass


def test_timestamps_are_of_exactly_one_form() -> None:
    assert format_timestamp(parse_timestamp("2026-01-01 00:00:00")) == "2026-01-01 00:00:00"
    for text in ("2026-1-1 0:0:0", "2026-01-01T00:00:00", "2026-13-01 00:00:00", ""):
        with pytest.raises(ValueError, match=r"format|form"):
            parse_timestamp(text)
