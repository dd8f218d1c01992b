from __future__ import annotations

from collections.abc import Mapping

import pytest
from requests.structures import CaseInsensitiveDict

from agent.errors import (
    CredentialsRejected,
    DeliveryError,
    EndpointNotFound,
    FeatureDisabled,
    LinkDown,
    RateLimited,
    RequestRejected,
    TooLarge,
)
from agent.vision.error_mapping import MAX_RETRY_SECONDS, ErrorClass, classify, error_for, retry_after
from agent.vision.transport import HttpResponse

NOW_SECONDS = 1_772_000_000.0
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"  # 1767225600


def error(code: int, message: str = "the server's message") -> dict[str, object]:
    return {"error": {"code": code, "message": message}, "data": None}


def reply(status: int, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(status, CaseInsensitiveDict(headers or {}), b"")


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, CredentialsRejected, "check api.username, the password and api.region"),
        (402, FeatureDisabled, "requires a payment"),
        (403, FeatureDisabled, "Vision API option must be activated"),
        (423, FeatureDisabled, "locked"),
        (404, EndpointNotFound, "check api.region or api.base_url"),
        (413, TooLarge, "of this size"),
        (422, RequestRejected, ""),
        (400, RequestRejected, ""),
        (405, RequestRejected, ""),
        (429, RateLimited, "rate limit reached"),
        (500, LinkDown, "the API is in trouble"),
        (503, LinkDown, "the API is in trouble"),
    ],
)
def test_each_error_of_the_api_is_a_decision_with_its_message(
    status: int, kind: type[DeliveryError], advice: str
) -> None:
    decision = error_for(reply(status), error(status), NOW_SECONDS)
    assert type(decision) is kind
    assert "the server's message" in str(decision)
    assert advice in str(decision)


@pytest.mark.parametrize("status", [200, 301, 302, 401, 403, 404, 407, 408, 422, 429, 502, 503, 511])
@pytest.mark.parametrize("payload", [None, {"login": "please"}, [], "welcome", {"error": "nope"}, {"errors": []}])
def test_a_response_not_from_the_api_means_only_that_the_link_is_down(status: int, payload: object) -> None:
    assert type(error_for(reply(status), payload, NOW_SECONDS)) is LinkDown


def test_a_413_counts_whoever_sends_it() -> None:
    assert type(error_for(reply(413), None, NOW_SECONDS)) is TooLarge


@pytest.mark.parametrize("status", [407, 408])
def test_errors_of_a_proxy_are_the_links_fault(status: int) -> None:
    assert type(error_for(reply(status), error(status), NOW_SECONDS)) is LinkDown


def test_a_redirect_suggests_a_login() -> None:
    said = str(error_for(reply(302, {"Location": "http://portal/\n\x1b[31m"}), None, NOW_SECONDS))
    assert "require a login" in said
    assert "\x1b" not in said


def test_a_login_page_is_recognized() -> None:
    said = str(error_for(reply(200, {"Content-Type": "text/html"}), None, NOW_SECONDS))
    assert "is it a login page of the network, or from a proxy?" in said
    assert "text/html" in said


@pytest.mark.parametrize(
    "payload",
    [
        {"message": "Unauthenticated."},
        {"error": "Unauthenticated."},
        {"title": "Unauthenticated."},
        {"title": "Error", "detail": "Unauthenticated."},
    ],
)
@pytest.mark.parametrize("status", [401, 429, 503])
def test_the_message_of_a_response_in_another_form_is_shown(status: int, payload: object) -> None:
    decision = error_for(reply(status, {"Content-Type": "application/json"}), payload, NOW_SECONDS)
    assert type(decision) is LinkDown
    assert "Unauthenticated." in str(decision)
    assert "login page" not in str(decision)


def test_a_validation_error_in_the_frameworks_own_form_names_its_items() -> None:
    payload = {"message": "The given data was invalid.", "errors": {"data.1.camera": ["Must be an integer."]}}
    decision = error_for(reply(422), payload, NOW_SECONDS)
    assert isinstance(decision, RequestRejected)
    assert decision.items == {1: "Must be an integer."}


def test_an_error_without_a_message_is_shown_by_its_status() -> None:
    assert str(error_for(reply(422), {"error": {"code": 422}}, NOW_SECONDS)) == "HTTP 422"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"X-RateLimit-Retry-After-Seconds": "17"}, 17),
        ({"x-ratelimit-retry-after-seconds": "1.5"}, 1.5),
        ({"X-RateLimit-Retry-After-Seconds": "17", "Retry-After": "40"}, 17),
        ({"X-RateLimit-Retry-At": "1767225630", "Date": DATE}, 30),
        ({"X-RateLimit-Retry-At": str(NOW_SECONDS + 5)}, 5),
        ({"X-RateLimit-Retry-At": "1767225600", "Date": "nonsense"}, 0),
        ({"Retry-After": "40"}, 40),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:20 GMT", "Date": DATE}, 20),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:20 -0000", "Date": DATE}, 20),
        ({"X-RateLimit-Retry-After-Seconds": "soon", "Retry-After": "3"}, 3),
        ({"X-RateLimit-Retry-After-Seconds": "nan"}, None),
        ({"X-RateLimit-Retry-After-Seconds": "-4"}, 0),
        ({"X-RateLimit-Retry-At": "9999999999", "Date": DATE}, MAX_RETRY_SECONDS),
    ],
)
def test_the_wait_that_a_429_requests(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(reply(429, headers), NOW_SECONDS) == seconds
    decision = error_for(reply(429, headers), error(429), NOW_SECONDS)
    assert isinstance(decision, RateLimited)
    assert decision.retry_after_seconds == seconds


def test_a_429_with_the_apis_headers_counts_without_json() -> None:
    decision = error_for(reply(429, {"X-RateLimit-Retry-After-Seconds": "9"}), None, NOW_SECONDS)
    assert isinstance(decision, RateLimited)
    assert decision.retry_after_seconds == 9


@pytest.mark.parametrize("year", ["99999", "9" * 30, "9" * 5000])
def test_a_date_beyond_the_calendar_requests_no_wait(year: str) -> None:
    headers = {"Date": f"Mon, 01 Jan {year} 00:00:00 GMT", "Retry-After": f"Mon, 01 Jan {year} 00:00:00 GMT"}
    assert retry_after(reply(429, headers), NOW_SECONDS) is None


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("The file is not of MP4 video format.", ErrorClass.FILE),
        ("The duration must not be longer than 5 minutes.", ErrorClass.FILE),
        ("The file is larger than 50 MB.", ErrorClass.FILE),
        ("The registration does not exist or has no active contract.", ErrorClass.REGISTRATION),
        ("Too many uploads, try again in a few minutes.", ErrorClass.TRANSIENT),
        ("Storage temporarily unavailable, retry in 5 minutes", ErrorClass.TRANSIENT),
        ("The vehicle upload timed out", ErrorClass.TRANSIENT),
        ("Something went wrong", ErrorClass.UNKNOWN),
    ],
)
def test_error_messages_are_classified(words: str, meant: ErrorClass) -> None:
    assert classify(words) is meant
