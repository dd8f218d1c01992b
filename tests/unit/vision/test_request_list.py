from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agent.vision.client import Filters, VideoRequest, query_pairs
from agent.vision.responses import parse_page
from tests.support.vision_cases import START

UTC = ZoneInfo("UTC")
ITEM = {
    "request_id": 15139,
    "registration": "ABC1234X",
    "camera": "2",
    "status_id": 3,
    "url": "https://videos.example/1",
    "start_timestamp": "2026-03-01 12:00:00",
    "end_timestamp": "2026-03-01 12:01:00",
    "duration": 60,
    "comments": "left turn",
}


def test_every_filter_has_its_name_in_the_query() -> None:
    filters: Filters = {
        "registration": "ABC 1\udce9",
        "request_ids": ["1", "2"],
        "camera": 3,
        "status_id": 4,
        "comment": "x",
        "event_type_id": 5,
        "start_from": START,
        "start_to": START,
        "end_from": START,
        "end_to": START,
        "requested_from": START,
        "requested_to": START,
        "updated_from": START,
        "updated_to": START,
    }
    at = "2026-03-01 14:00:00"
    assert list(query_pairs(filters, ZoneInfo("Africa/Johannesburg"))) == [
        ("filter[registration]", "ABC 1?"),
        ("filter[request_id][]", "1"),
        ("filter[request_id][]", "2"),
        ("filter[camera]", "3"),
        ("filter[status_id]", "4"),
        ("filter[request_comment]", "x"),
        ("filter[event_type_id]", "5"),
        ("filter[video_start_ts_from]", at),
        ("filter[video_start_ts_to]", at),
        ("filter[video_end_ts_from]", at),
        ("filter[video_end_ts_to]", at),
        ("filter[start_request_ts]", at),
        ("filter[end_request_ts]", at),
        ("filter[start_updated_ts]", at),
        ("filter[end_updated_ts]", at),
    ]


def test_none_is_no_filter() -> None:
    assert list(query_pairs({"registration": None, "request_ids": [], "camera": None}, UTC)) == []


def test_an_entry_is_parsed() -> None:
    meta = {"from": 1, "to": 15, "current_page": 1, "per_page": 15, "last_page": "3", "total": 45}
    page = parse_page({"data": [ITEM], "meta": meta}, UTC, 1)
    (item,) = page.items
    assert (item.request_id, item.registration, item.camera, item.status_id) == ("15139", "ABC1234X", 2, 3)
    assert (item.url, item.start, item.duration_seconds, item.comments) == (ITEM["url"], START, 60, "left turn")
    assert (page.current_page, page.last_page, page.total) == (1, 3, 45)


def test_a_registration_of_digits_may_be_a_number() -> None:
    (item,) = parse_page({"data": [{**ITEM, "registration": 10453}]}, UTC, 1).items
    assert item.registration == "10453"


def test_an_entry_without_known_fields_is_no_error() -> None:
    (item,) = parse_page({"data": [{"colour": "red"}]}, UTC, 1).items
    assert item == VideoRequest(None, None, None, None, None, None, None, None, None)
    assert item.status == "status unknown"


@pytest.mark.parametrize("payload", [{"data": None}, {"data": {}}, {"data": ["x"], "meta": 3}, {"meta": {"total": []}}])
def test_a_list_of_another_form_is_an_empty_page(payload: Any) -> None:
    page = parse_page(payload, UTC, 7)
    assert (page.items, page.current_page, page.last_page, page.total) == ((), 7, 7, 0)


@pytest.mark.parametrize(
    ("status_id", "status", "final", "complete"),
    [
        (1, "pending", False, False),
        (2, "in progress", False, False),
        (3, "complete", True, True),
        (4, "cancelled", True, False),
        (5, "does not exist", True, False),
        (6, "timeout", True, False),
        (7, "status 7", False, False),
    ],
)
def test_a_status_in_words_and_whether_it_can_change(status_id: int, status: str, final: bool, complete: bool) -> None:
    (item,) = parse_page({"data": [{"status_id": status_id}]}, UTC, 1).items
    assert (item.status, item.is_final, item.is_complete) == (status, final, complete)
