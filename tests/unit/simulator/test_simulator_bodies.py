"""What the simulated API reads from upload bodies, and what it refuses as malformed."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from simulator.server import Simulator
from tests.support.simulated_account import BULK, SINGLE, Account, clip, fields, record


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_json_and_multipart_bring_the_same_bytes(simulator: Simulator, account: Account) -> None:
    assert account.bulk(record(0), record(1)).status_code == 200
    assert account.bulk_form(2, 3).status_code == 200
    assert account.single(4).status_code == 200
    assert [(video.start, video.sha256) for video in simulator.received] == [
        (fields(n)["start_timestamp"], sha256(clip(n))) for n in range(5)
    ]


def test_slashes_may_be_escaped_as_php_escapes_them(simulator: Simulator, account: Account) -> None:
    text = json.dumps({"data": [record(1)]}).replace("/", "\\/")
    assert "\\/" in text
    assert account.bulk_text(text).status_code == 200
    assert simulator.received[0].sha256 == sha256(clip(1))


def test_fields_may_stand_before_or_behind_the_file(simulator: Simulator, account: Account) -> None:
    video = base64.b64encode(clip()).decode()
    assert account.bulk({"video_file": video, "comments": 'says "video_file": "no"', **fields()}).status_code == 200
    assert simulator.received[0].comments == 'says "video_file": "no"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        ("[]", "not of the form"),
        ('{"data": 1}', "not of the form"),
        ('{"data": ["clip"]}', "not of the form"),
        ('{"data": [{"video_file": "AAAA', "ends within a file"),
        (b'{"data": "\xff"}', "not JSON"),
    ],
)
def test_a_body_that_is_no_bulk_upload_is_refused(account: Account, text: str | bytes, words: str) -> None:
    answer = account.bulk_text(text)
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


def test_a_file_that_is_not_base64_is_the_trouble_of_that_file_alone(simulator: Simulator, account: Account) -> None:
    (group,) = account.results(record(0) | {"video_file": "§§"}, record(1))
    assert group["videos"][0]["errors"] == "The video_file is not base64."
    assert [video.start for video in simulator.received] == [fields(1)["start_timestamp"]]


@pytest.mark.parametrize("value", [None, 5, ["AAAA"]])
def test_a_file_that_is_no_text_counts_as_missing(account: Account, value: object) -> None:
    answer = account.bulk(record() | {"video_file": value})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["data.0.video_file"]


def test_missing_fields_are_named_by_record(account: Account) -> None:
    answer = account.bulk(record(0), {"registration": "", "camera": 1})
    assert answer.status_code == 422
    assert sorted(answer.json()["errors"]) == [
        "data.1.end_timestamp",
        "data.1.registration",
        "data.1.start_timestamp",
        "data.1.video_file",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("camera", "front"), ("camera", "²"), ("start_timestamp", "2026-07-28T14:00:00"), ("end_timestamp", "2026-7-28")],
)
def test_fields_of_a_wrong_form_are_named(account: Account, name: str, value: str) -> None:
    answer = account.single(0, video=None, **{name: value})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == [name]


def test_a_request_holds_1_to_100_records(simulator: Simulator, account: Account) -> None:
    small = [record(0, camera=camera) for camera in range(101)]
    for records in ([], small):
        answer = account.bulk(*records)
        assert answer.status_code == 422
        assert "between 1 and 100" in answer.text
    assert simulator.received == []
    assert account.bulk(*small[:100]).status_code == 200
    assert len(simulator.received) == 100


@pytest.mark.parametrize("path", [BULK, SINGLE])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"nothing", "closing boundary"),
        (b'--b\r\nContent-Disposition: form-data; name="registration"\r\n\r\nABC', "closing boundary"),
        (b'--b\r\nContent-Disposition: form-data; name="registration"\r\n--b--\r\n', "closing boundary"),
    ],
)
def test_a_truncated_form_is_refused(account: Account, path: str, body: bytes, words: str) -> None:
    answer = account.post(path, data=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


def test_a_form_without_a_boundary_is_refused(account: Account) -> None:
    answer = account.post(SINGLE, data=b"x", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 422
    assert "boundary" in answer.text


def test_a_form_field_without_a_name_is_no_record(simulator: Simulator, account: Account) -> None:
    body = b"--b\r\nContent-Type: text/plain\r\n\r\nABC\r\n--b--\r\n"
    answer = account.post(BULK, data=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 422
    assert "between 1 and 100" in answer.text
    assert simulator.received == []
