from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision.responses import (
    MAX_MESSAGE_CHARS,
    MAX_MESSAGES,
    FileResult,
    as_id,
    as_int,
    item_errors,
    match_results,
    messages,
    objects,
    parse_results,
    single_result,
    urls,
)
from tests.support.vision_cases import START, stored_clip

UTC = ZoneInfo("UTC")
END = START + timedelta(minutes=1)
TIMES = {"start_timestamp": "2026-03-01 12:00:00", "end_timestamp": "2026-03-01 12:01:00"}
BAD = {"camera": "3", **TIMES, "errors": "The file is not of MP4 video format."}
GOOD = {"camera": 2, **TIMES, "request_id": 15139}
GROUPED = [{"registration": "ABC1234X", "videos": [BAD, GOOD]}]
FLAT = [{"registration": "ABC1234X", **BAD}, {"registration": "ABC1234X", **GOOD}]
EXPECTED = (
    FileResult("ABC1234X", 3, START, END, None, ("The file is not of MP4 video format.",)),
    FileResult("ABC1234X", 2, START, END, "15139"),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "registration", "camera", "start_timestamp", "end_timestamp", "errors", "videos"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@pytest.mark.parametrize(
    "data",
    [
        GROUPED,
        GROUPED[0],
        FLAT,
        {"videos": FLAT},
        {"videos": GROUPED},
        {"data": GROUPED},
        {"results": {"files": FLAT}, "count": 2},
        {"registration": "ABC1234X", "videos": {"failed": [BAD], "done": [GOOD]}},
    ],
    ids=["grouped", "one group", "flat", "flat below", "grouped below", "data in data", "deep", "split"],
)
def test_results_are_found_anywhere_in_the_response(data: object) -> None:
    assert parse_results({"data": data}, UTC) == EXPECTED


@pytest.mark.parametrize("data", [None, [], {}, "ok", True, 3, [[[]]], {"message": "accepted"}])
def test_a_response_without_results_has_none(data: object) -> None:
    assert parse_results({"data": data}, UTC) == ()


@pytest.mark.parametrize(
    "errors",
    [
        "Too long.",
        ["Too long."],
        {"video_file": ["Too long."]},
        {"video_file": "Too long."},
        [{"message": "Too long."}],
        True,
        422,
    ],
)
def test_errors_in_any_form_are_errors(errors: object) -> None:
    (result,) = parse_results({"data": [{"registration": "A", "camera": 1, **TIMES, "errors": errors}]}, UTC)
    assert result.errors
    assert "Too long." in result.errors[0] or errors in (True, 422)


@pytest.mark.parametrize("errors", [None, "", " ", [], {}, False, [None], {"video_file": []}])
def test_no_errors_in_any_form_and_an_id_is_success(errors: object) -> None:
    (result,) = parse_results({"data": [{"registration": "A", **GOOD, "errors": errors}]}, UTC)
    assert (result.errors, result.request_id) == ((), "15139")


def test_an_error_counts_even_beside_an_id() -> None:
    (result,) = parse_results({"data": [{"registration": "A", **GOOD, "error": "Virus."}]}, UTC)
    assert result.errors == ("Virus.",)


def test_an_echo_of_the_request_is_no_result() -> None:
    assert parse_results({"data": [{"registration": "A", "camera": 1, **TIMES}]}, UTC) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"camera": None},
        {"camera": True},
        {"camera": "front"},
        {"camera": 1.5},
        {"camera": "9" * 30},
        {"start_timestamp": 1735689600},
        {"end_timestamp": "soon"},
        {"registration": True},
        {"registration": 1.5},
    ],
    ids=str,
)
def test_a_record_that_identifies_no_clip_is_ignored(wrong: dict[str, object]) -> None:
    assert parse_results({"data": [{"registration": "A", **GOOD, **wrong}]}, UTC) == ()


@given(json_values)
def test_no_json_makes_parsing_fail(payload: Any) -> None:
    parse_results(payload, UTC)
    item_errors(payload)
    messages(payload)
    urls(payload)
    list(objects(payload))


def test_deep_json_is_read_to_a_bounded_depth() -> None:
    payload = json.loads('{"data":' * 900 + "1" + "}" * 900)
    assert parse_results(payload, UTC) == ()
    assert urls(payload) == ()


def test_results_match_clips_by_registration_camera_and_times(tmp_path: Path) -> None:
    uploads = [stored_clip(tmp_path, id=10 + camera, camera=camera, registration="abc1234x") for camera in (1, 2, 3)]
    found = match_results(parse_results({"data": GROUPED}, UTC), uploads, UTC)
    assert found == {13: EXPECTED[0], 12: EXPECTED[1]}


def test_a_registration_of_digits_that_comes_back_as_a_number_is_matched(tmp_path: Path) -> None:
    upload = stored_clip(tmp_path, id=5, camera=2, registration="10453")
    for data in ({"registration": 10453, **GOOD}, {"registration": 10453, "videos": [GOOD]}):
        (found,) = match_results(parse_results({"data": [data]}, UTC), [upload], UTC).items()
        assert (found[0], found[1].request_id) == (5, "15139")


def test_results_of_clips_that_were_not_sent_are_ignored(tmp_path: Path) -> None:
    other = stored_clip(tmp_path, camera=3, start=START + timedelta(seconds=1))
    assert match_results(EXPECTED, [other], UTC) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_contradicting_results_the_error_counts(tmp_path: Path, order: int) -> None:
    upload = stored_clip(tmp_path, camera=3)
    good = FileResult("ABC1234X", 3, START, END, "7")
    assert match_results([good, EXPECTED[0]][::order], [upload], UTC) == {1: EXPECTED[0]}


class TestTheSingleUpload:
    def test_data_of_any_form_without_errors_is_success(self, tmp_path: Path) -> None:
        upload = stored_clip(tmp_path)
        assert single_result({"data": {}}, upload) == FileResult("ABC1234X", 1, START, END)
        assert single_result({"data": {"video": {"request_id": 8}}}, upload).request_id == "8"

    def test_errors_anywhere_are_errors(self, tmp_path: Path) -> None:
        upload = stored_clip(tmp_path)
        assert single_result({"data": {"request_id": 8, "errors": ["Bad."]}}, upload).errors == ("Bad.",)
        assert single_result({"data": [{"video": {"error": "Bad."}}]}, upload).errors == ("Bad.",)


@pytest.mark.parametrize(
    "payload",
    [
        {"errors": {"data.3.video_file": ["Not MP4."]}},
        {"errors": {"data[3].video_file": "Not MP4."}},
        {"errors": {"data[3][video_file]": "Not MP4."}},
        {"errors": {"data": {"3": {"video_file": ["Not MP4."]}}}},
        {"errors": {"data": [None, None, None, {"video_file": ["Not MP4."]}]}},
        {"error": {"code": 422, "message": {"data.3.video_file": ["Not MP4."]}}, "data": None},
        {"error": {"code": 422, "errors": {"data.3.video_file": ["Not MP4."]}}},
    ],
)
def test_items_that_a_validation_error_names_are_found(payload: object) -> None:
    assert item_errors(payload) == {3: "Not MP4."}


def test_items_that_are_named_only_in_a_message_are_found() -> None:
    payload = {"error": {"code": 422, "message": "The data.0.video_file field is required."}}
    assert item_errors(payload) == {0: "The data.0.video_file field is required."}


def test_errors_without_an_item_name_none() -> None:
    payload = {"error": {"message": "data is required"}, "errors": {"webhook_url": ["Bad."], "metadata.3.x": ["?"]}}
    assert item_errors(payload) == {}


def test_an_echo_of_the_request_beside_errors_is_no_error() -> None:
    assert item_errors({"error": {"message": "Bad."}, "data": [{"registration": "A"}]}) == {}


def test_server_messages_are_one_line_without_control_characters() -> None:
    assert messages("\x1b[31m  red\n\x00 alert \ud800") == ("[31m red alert",)
    assert len(messages("x" * 10_000)[0]) == MAX_MESSAGE_CHARS
    assert len(messages(["x"] * 1000)) == MAX_MESSAGES


def test_urls_are_found_in_any_form() -> None:
    assert urls(["https://a/1", {"url": "wss://b"}, "no link", None]) == ("https://a/1", "wss://b")


@pytest.mark.parametrize(
    ("value", "expected"), [(3, 3), ("3", 3), (" 12 ", 12), (True, None), ("x", None), ("٣", None), (None, None)]
)
def test_numbers_come_as_numbers_or_as_text(value: object, expected: int | None) -> None:
    assert as_int(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(15139, "15139"), ("a-1", "a-1"), ("", None), (True, None), (None, None), ([1], None)]
)
def test_identifiers_come_as_numbers_or_as_text(value: object, expected: str | None) -> None:
    assert as_id(value) == expected


def test_a_long_field_name_with_many_errors_is_bounded() -> None:
    payload = {"errors": {"\x1b[2J\n" + "k" * 300_000: ["no"] * 20_000}}
    tracemalloc.start()
    said = (*messages(payload["errors"]), *item_errors(payload).values())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20_000_000
    assert len(said) == MAX_MESSAGES
    assert all(sentence.isprintable() and len(sentence) < 1000 for sentence in said)


def test_thousands_of_errors_for_one_upload_are_truncated(tmp_path: Path) -> None:
    payload = {"data": [{"errors": "no"}] * 20_000}
    assert single_result(payload, stored_clip(tmp_path)).errors == ("no",) * MAX_MESSAGES
