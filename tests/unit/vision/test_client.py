from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.errors import (
    CameraOffline,
    Cancelled,
    ClipUnreadable,
    CredentialsRejected,
    DeliveryError,
    LinkDown,
    RateLimited,
    RequestRejected,
    TooLarge,
)
from agent.model import Upload
from agent.vision.client import VisionClient
from tests.support.scripted_server import PATIENCE_SECONDS, Peer, Request, Script, ScriptedServer, scripted_server
from tests.support.vision_cases import API_ERROR, START, answering, answering_with, api, certificate, stored_clip

TIMES = {"start_timestamp": "2026-03-01 12:00:00", "end_timestamp": "2026-03-01 12:01:00"}
encodings = pytest.mark.parametrize("encoding", ["json", "multipart"])
Encoding = Literal["json", "multipart"]


@contextmanager
def vision(
    folder: Path, *scripts: Script, stopping: Callable[[], bool] = lambda: False, **settings: Any
) -> Iterator[tuple[VisionClient, ScriptedServer]]:
    with scripted_server(*scripts, certificate=certificate()) as server:
        account = api(server.url, folder, **settings)
        with closing(VisionClient(account, stopping=stopping, now=lambda: 1_000.0)) as client:
            yield client, server


def sent(request: Request) -> Any:
    return json.loads(request.body)


class TestTheBulkUpload:
    @encodings
    def test_each_clip_gets_its_result(self, tmp_path: Path, encoding: Encoding) -> None:
        data = [
            {
                "registration": "ABC1234X",
                "videos": [
                    {"camera": "1", **TIMES, "errors": "Not MP4."},
                    {"camera": 2, **TIMES, "request_id": 15139},
                ],
            }
        ]
        uploads = [stored_clip(tmp_path, id=10 + camera, camera=camera) for camera in (1, 2, 3)]
        with vision(tmp_path, answering(200, {"data": data})) as (client, server):
            results = client.upload_bulk(uploads, encoding=encoding).results
            (request,) = server.requests
        assert results[11].errors == ("Not MP4.",)
        assert results[12].request_id == "15139"
        assert results.keys() == {11, 12}
        assert (request.method, request.target) == ("POST", "/rest/vision/video/bulk-upload")
        assert request.headers["content-type"].startswith(
            {"json": "application/json", "multipart": "multipart/form-data; boundary="}[encoding]
        )
        assert "transfer-encoding" not in request.headers

    @encodings
    def test_the_same_batch_can_be_sent_again_after_the_link_broke(self, tmp_path: Path, encoding: Encoding) -> None:
        def break_down(peer: Peer) -> None:
            peer.read_head()
            peer.receive()
            peer.reset()

        uploads = [stored_clip(tmp_path, bytes(2_000_000))]
        with vision(tmp_path, break_down, answering(200, {"data": None})) as (client, server):
            with pytest.raises(LinkDown):
                client.upload_bulk(uploads, encoding=encoding)
            assert client.upload_bulk(uploads, encoding=encoding).results == {}
            request = server.requests[1]
        assert len(request.body) == int(request.headers["content-length"]) > 2_000_000

    @encodings
    def test_a_missing_file_is_reported_and_nothing_is_sent(self, tmp_path: Path, encoding: Encoding) -> None:
        upload = stored_clip(tmp_path)
        upload.file.unlink()
        with (
            vision(tmp_path, answering(200, {"data": None})) as (client, _),
            pytest.raises(ClipUnreadable) as caught,
        ):
            client.upload_bulk([upload], encoding=encoding)
        assert caught.value.file == upload.file

    @encodings
    def test_a_file_that_changes_is_reported_and_the_request_not_completed(
        self, tmp_path: Path, encoding: Encoding
    ) -> None:
        upload = stored_clip(tmp_path, bytes(2_000_000))
        changed = threading.Event()

        def swallow(peer: Peer) -> None:
            peer.read_head()
            peer.receive()
            with upload.file.open("r+b") as file:
                file.truncate(10)
            changed.set()
            peer.drain()
            pytest.fail("the request arrived whole")

        def wait(_sent_bytes: int, _position: int) -> None:
            changed.wait(PATIENCE_SECONDS)

        with vision(tmp_path, swallow) as (client, _), pytest.raises(ClipUnreadable):
            client.upload_bulk([upload], encoding=encoding, progress=wait)

    @encodings
    def test_a_stop_cancels_the_upload_and_the_request_is_not_completed(
        self, tmp_path: Path, encoding: Encoding
    ) -> None:
        stop = threading.Event()

        def swallow(peer: Peer) -> None:
            peer.read_head()
            stop.set()
            peer.drain()
            pytest.fail("the request arrived whole")

        with vision(tmp_path, swallow, stopping=stop.is_set) as (client, _), pytest.raises(Cancelled):
            client.upload_bulk([stored_clip(tmp_path, bytes(60_000_000))], encoding=encoding)

    def test_progress_is_reported(self, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        uploads = [stored_clip(tmp_path, bytes(400_000), id=id) for id in (1, 2)]
        with vision(tmp_path, answering(200, {"data": None})) as (client, server):
            client.upload_bulk(uploads, encoding="json", progress=lambda *now: told.append(now))
            assert told[-1] == (int(server.requests[0].headers["content-length"]), 1)

    def test_a_webhook_is_requested(self, tmp_path: Path) -> None:
        with vision(tmp_path, answering(200, {"data": None})) as (client, server):
            client.upload_bulk([stored_clip(tmp_path)], encoding="json", webhook_url="https://hook.example/")
            assert sent(server.requests[0])["webhook_url"] == "https://hook.example/"

    def test_a_413_of_a_front_server_is_noticed(self, tmp_path: Path) -> None:
        def refuse(peer: Peer) -> None:
            peer.read_head()
            peer.answer(413, "<html>Request Entity Too Large</html>")

        with vision(tmp_path, refuse) as (client, _), pytest.raises(TooLarge):
            client.upload_bulk([stored_clip(tmp_path, bytes(20_000_000))], encoding="json")

    def test_rejected_items_are_named(self, tmp_path: Path) -> None:
        payload = {"error": {"code": 422, "message": "Bad."}, "errors": {"data.0.video_file": ["Not MP4."]}}
        with vision(tmp_path, answering(422, payload)) as (client, _), pytest.raises(RequestRejected) as caught:
            client.upload_bulk([stored_clip(tmp_path)], encoding="json")
        assert caught.value.items == {0: "Not MP4."}


class TestTheSingleUpload:
    def upload(self, folder: Path, payload: object) -> tuple[Any, Request]:
        with vision(folder, answering(200, payload)) as (client, server):
            return client.upload_single(stored_clip(folder)), server.requests[0]

    def test_it_is_a_form_with_a_file(self, tmp_path: Path) -> None:
        _, request = self.upload(tmp_path, {"data": {}})
        assert (request.method, request.target) == ("POST", "/rest/vision/video/upload")
        assert request.headers["content-type"].startswith("multipart/form-data; boundary=")

    def test_no_errors_mean_success(self, tmp_path: Path) -> None:
        response, _ = self.upload(tmp_path, {"data": {"request_id": 4}})
        assert (response.results[1].request_id, response.results[1].errors) == ("4", ())

    def test_errors_in_a_200_response_are_errors(self, tmp_path: Path) -> None:
        response, _ = self.upload(tmp_path, {"data": {"errors": {"video_file": ["Not MP4."]}}})
        assert response.results[1].errors == ("video_file: Not MP4.",)


OTHER_FORMS = [(202, ""), (204, ""), (200, "OK"), (200, "<html>"), (200, "null"), (200, []), (200, {"status": "ok"})]


class TestASuccessInAnotherForm:
    """Over TLS only the API can answer: the clips may have been accepted, and the list is to be asked."""

    @pytest.mark.parametrize(("status", "payload"), OTHER_FORMS)
    def test_it_has_no_result_and_proves_nothing(self, tmp_path: Path, status: int, payload: object) -> None:
        with vision(tmp_path, answering(status, payload)) as (client, _):
            bulk = client.upload_bulk([stored_clip(tmp_path)], encoding="json")
            single = client.upload_single(stored_clip(tmp_path))
        assert [(bulk.results, bulk.all_errors_matched), (single.results, single.all_errors_matched)] == [
            ({}, False),
            ({}, False),
        ]

    def test_results_in_a_bare_list_count(self, tmp_path: Path) -> None:
        result = {"registration": "ABC1234X", "camera": 1, **TIMES, "request_id": 15139}
        with vision(tmp_path, answering(200, [result])) as (client, _):
            response = client.upload_bulk([stored_clip(tmp_path)], encoding="json")
        assert response.results[1].request_id == "15139"

    @pytest.mark.parametrize("payload", [API_ERROR, {"errors": {"x": ["Bad."]}}])
    def test_an_error_of_the_api_is_no_success(self, tmp_path: Path, payload: object) -> None:
        with vision(tmp_path, answering(200, payload)) as (client, _), pytest.raises(LinkDown):
            client.upload_single(stored_clip(tmp_path))

    @pytest.mark.parametrize(("status", "payload"), OTHER_FORMS)
    def test_without_tls_it_means_that_the_link_is_down(self, tmp_path: Path, status: int, payload: object) -> None:
        with (
            scripted_server(answering(status, payload)) as server,
            closing(VisionClient(api(server.url, tmp_path))) as client,
            pytest.raises(LinkDown),
        ):
            client.upload_single(stored_clip(tmp_path))


class TestTheListOfRequests:
    def test_filters_and_page_are_in_the_query(self, tmp_path: Path) -> None:
        with vision(tmp_path, answering(200, {"data": [{"request_id": 1}]})) as (client, server):
            page = client.requests(registration="A B", request_ids=["1", "2"], start_from=START, page=2, limit=15)
            target = server.requests[0].target
        assert [item.request_id for item in page.items] == ["1"]
        assert target == (
            "/rest/vision/videos/requests?filter%5Bregistration%5D=A+B&filter%5Brequest_id%5D%5B%5D=1"
            "&filter%5Brequest_id%5D%5B%5D=2&filter%5Bvideo_start_ts_from%5D=2026-03-01+12%3A00%3A00&page=2&limit=15"
        )

    def pages(self, folder: Path, last_page: int) -> list[str | None]:
        def page(request: Request) -> object:
            number = request.target.partition("page=")[2].partition("&")[0]
            items = [{"request_id": number}] if int(number) <= 3 else []
            return {"data": items, "meta": {"current_page": number, "last_page": last_page}}

        with vision(folder, answering_with(page)) as (client, _):
            return [item.request_id for item in client.all_requests(camera=1)]

    def test_all_pages_are_read(self, tmp_path: Path) -> None:
        assert self.pages(tmp_path, last_page=2) == ["1", "2"]

    def test_an_empty_page_is_the_last_whatever_the_page_count(self, tmp_path: Path) -> None:
        assert self.pages(tmp_path, last_page=1_000_000) == ["1", "2", "3"]


class TestARequestForFootage:
    @pytest.mark.parametrize(
        ("data", "ids"),
        [
            ({"request_id": 7}, ("7",)),
            ([{"request_id": 7, "camera": 1}, {"request_id": "8"}], ("7", "8")),
            ({"requests": [{"request_id": 7}, {"request_id": 7}]}, ("7",)),
            ("ok", ()),
        ],
    )
    def test_request_ids_are_found_anywhere_in_the_response(
        self, tmp_path: Path, data: object, ids: tuple[str, ...]
    ) -> None:
        with vision(tmp_path, answering(201, {"data": data})) as (client, server):
            assert client.create_request("ABC1234X", START, 30, [1, 2], "please") == ids
            (request,) = server.requests
        assert (request.method, request.target) == ("POST", "/rest/vision/videos/requests")
        assert sent(request) == {
            "registration": "ABC1234X",
            "start_timestamp": "2026-03-01 12:00:00",
            "duration": 30,
            "camera": [1, 2],
            "comments": "please",
        }


class TestALivestream:
    @pytest.mark.parametrize(
        "payload", [{"data": ["https://a", "https://b"]}, ["https://a", "https://b"]], ids=["in data", "bare"]
    )
    def test_its_links_are_returned(self, tmp_path: Path, payload: object) -> None:
        with vision(tmp_path, answering(200, payload)) as (client, server):
            assert client.livestream("AB/1", [1, 2]) == ("https://a", "https://b")
            (request,) = server.requests
        assert (request.method, request.target) == ("POST", "/rest/vision/livestream/AB%2F1")
        assert sent(request) == {"camera": [1, 2]}

    def test_a_503_of_the_api_means_that_the_camera_is_offline(self, tmp_path: Path) -> None:
        payload = {"error": {"code": 503, "message": "Digital Video Recorder is not online"}}
        with (
            vision(tmp_path, answering(503, payload)) as (client, _),
            pytest.raises(CameraOffline, match="Recorder is not online"),
        ):
            client.livestream("A", [1])

    def test_a_503_of_something_else_means_that_the_link_is_down(self, tmp_path: Path) -> None:
        with vision(tmp_path, answering(503, "<html>")) as (client, _), pytest.raises(LinkDown):
            client.livestream("A", [1])


def test_the_status_table_is_the_preflight_check(tmp_path: Path) -> None:
    with vision(tmp_path, answering(200, {"data": []})) as (client, server):
        client.videos_status()
        assert (server.requests[0].method, server.requests[0].target) == ("GET", "/rest/vision/videos/status")


@pytest.mark.parametrize(
    "payload", ["<html>Welcome to the hotel</html>", "", "null", "[]", {"login": 1}, {"data": 1, "error": {"code": 1}}]
)
def test_a_200_not_from_the_api_means_that_the_link_is_down(tmp_path: Path, payload: object) -> None:
    with vision(tmp_path, answering(200, payload)) as (client, _), pytest.raises(LinkDown):
        client.videos_status()


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"data": ', b"[" * 100_000, b'{"data": ' + b"9" * 5000 + b"}"])
def test_a_response_that_is_not_json_means_that_the_link_is_down(tmp_path: Path, content: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.answer_bytes(200, content, {"Content-Type": "application/json"})

    with vision(tmp_path, script) as (client, _), pytest.raises(LinkDown):
        client.videos_status()


def test_an_error_of_the_api_is_raised_as_its_decision(tmp_path: Path) -> None:
    with vision(tmp_path, answering(401, API_ERROR)) as (client, _), pytest.raises(CredentialsRejected):
        client.videos_status()


def test_a_429_with_an_instant_but_no_date_is_relative_to_now(tmp_path: Path) -> None:
    headers = {"X-RateLimit-Retry-At": "1060"}
    with vision(tmp_path, answering(429, API_ERROR, headers)) as (client, _), pytest.raises(RateLimited) as caught:
        client.videos_status()
    assert caught.value.retry_after_seconds == 60


def test_abort_ends_the_request_of_another_thread(tmp_path: Path) -> None:
    def silent(peer: Peer) -> None:
        peer.read_head()
        threading.Timer(0.05, client.abort).start()
        peer.hang()

    with vision(tmp_path, silent) as (client, _), pytest.raises(Cancelled):
        client.videos_status()


def every_call(upload: Upload) -> list[Callable[[VisionClient], object]]:
    return [
        lambda client: client.upload_bulk([upload], encoding="json"),
        lambda client: client.upload_bulk([upload], encoding="multipart"),
        lambda client: client.upload_single(upload),
        lambda client: client.videos_status(),
        lambda client: client.requests(),
        lambda client: list(client.all_requests()),
        lambda client: client.create_request("A", START, 1, [1]),
        lambda client: client.livestream("A", [1]),
    ]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("base_url", ["https://nowhere.invalid/rest", "http://a..b/rest", "nonsense"])
def test_no_call_lets_a_foreign_error_escape(tmp_path: Path, base_url: str) -> None:
    with closing(VisionClient(api(base_url, tmp_path))) as client:
        for call in every_call(stored_clip(tmp_path)):
            with pytest.raises(DeliveryError):
                call(client)
