"""What an answer means that is not the one asked for: the decision, by the status and by who gave the answer.

Only the API's own JSON decides about credentials, options and limits: a proxy or the login page of a network answers
with any status too, and then it is the link that is down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum

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
from agent.vision.responses import item_errors, messages
from agent.vision.transport import HttpResponse

# The limit is counted by the minute. Longer waits than this come from a clock that is wrong, here or there.
MAX_RETRY_SECONDS = 3600.0

_DECISIONS: Mapping[int, tuple[type[DeliveryError], str]] = {
    401: (
        CredentialsRejected,
        "the API rejects the credentials ({said}): check api.username, the password and api.region; an account of "
        "another region is answered like this too",
    ),
    403: (
        FeatureDisabled,
        "the API refuses this account ({said}): the Vision API option must be activated for it; that takes 5 to 10 "
        "minutes to work",
    ),
    404: (EndpointNotFound, "the API has nothing at this address ({said}): check api.region or api.base_url"),
    # Whoever says it: mostly it is the web server in front of the API, which does not speak JSON.
    413: (TooLarge, "the server does not take a request of this size ({said})"),
}
_RATE_HEADERS = ("X-RateLimit-Retry-After-Seconds", "X-RateLimit-Retry-At")


def error_for(reply: HttpResponse, payload: object, now_seconds: float) -> DeliveryError:
    """The error to raise for an answer that cannot be used.

    Args:
        payload: the answer's JSON; None if it is none.
        now_seconds: Unix time, for a 429 that names an instant but not its own.
    """
    said = server_message(payload) or f"HTTP {reply.status}"
    limited = reply.status == 429 and any(name in reply.headers for name in _RATE_HEADERS)
    if reply.status != 413 and not is_api_error(payload) and not limited:
        return LinkDown(_not_the_api(reply))
    if reply.status in _DECISIONS:
        kind, sentence = _DECISIONS[reply.status]
        return kind(sentence.format(said=said))
    if reply.status == 429:
        sentence = (
            f"the account's limit of requests is reached ({said}): its vehicles share it, upload.vehicles must be "
            "their number"
        )
        return RateLimited(sentence, retry_after(reply, now_seconds))
    if 400 <= reply.status < 500 and reply.status not in (407, 408):
        return RequestRejected(said, item_errors(payload))
    return LinkDown(f"the API is in trouble: HTTP {reply.status} ({said})")


def is_api_error(payload: object) -> bool:
    """Whether this is `{"error": {"code": …, "message": "…"}}`, or has `errors` by field, as a validation answers."""
    return isinstance(payload, Mapping) and (isinstance(payload.get("error"), Mapping) or bool(payload.get("errors")))


def server_message(payload: object) -> str:
    """What an error answer says; empty if nothing."""
    if not isinstance(payload, Mapping):
        return ""
    error = payload.get("error")
    message = error.get("message") if isinstance(error, Mapping) else error
    return "; ".join(messages(message or payload.get("errors") or payload.get("message")))


def retry_after(reply: HttpResponse, now_seconds: float) -> float | None:
    """How long an answer asks to wait; None if it does not say. An instant counts from the answer's own Date."""
    sent_seconds = _unix_seconds(reply.headers.get("Date"))
    begin_seconds = now_seconds if sent_seconds is None else sent_seconds
    instant = _number(reply.headers.get("X-RateLimit-Retry-At"))
    plain = reply.headers.get("Retry-After")
    http_date = _unix_seconds(plain)
    for wait_seconds in (
        _number(reply.headers.get("X-RateLimit-Retry-After-Seconds")),
        None if instant is None else instant - begin_seconds,
        _number(plain),
        None if http_date is None else http_date - begin_seconds,
    ):
        if wait_seconds is not None:
            return min(max(0.0, wait_seconds), MAX_RETRY_SECONDS)
    return None


def _not_the_api(reply: HttpResponse) -> str:
    if 300 <= reply.status < 400:
        return (
            f"the answer is a redirect (HTTP {reply.status}) to {reply.headers.get('Location', 'nowhere')[:200]!r}: "
            f"does the network want a login first?"
        )
    if reply.status >= 500:
        return f"the server is in trouble: HTTP {reply.status}"
    kind = reply.headers.get("Content-Type", "something")[:60]
    return (
        f"the answer is not the API's (HTTP {reply.status} with {kind!r}): a login page of the network, or a proxy, "
        f"answers in its place"
    )


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unix_seconds(http_date: str | None) -> float | None:
    try:
        instant = parsedate_to_datetime(http_date or "")
    except (TypeError, ValueError, OverflowError):  # Python 3.10 and older say TypeError
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)).timestamp()


class ErrorClass(Enum):
    """What a per-file error says must change before the same clip can be taken."""

    FILE = "the file itself: format, size or duration"
    REGISTRATION = "the vehicle: its registration, contract or option"
    UNKNOWN = "something else, perhaps passing"


_REGISTRATION = re.compile(r"registration|vehicle|contract|terminal", re.I)
# "Try again in 5 minutes" says that it will pass, whatever else it mentions: it must never refuse a clip for good.
_PASSING = re.compile(r"try again|retry|temporar|timed? ?out|unavailable|too many", re.I)
_FILE = re.compile(
    r"\bformat|\bmp4\b|h\.?26[45]|codec|too (large|big|long)|file size|\bsize\b|\bMB\b|duration|"
    r"(longer|more) than \d+ minutes|minutes apart|"
    r"video.file.*(required|invalid|must be)",
    re.I,
)


def classify(words: str) -> ErrorClass:
    """Sorts a per-file error by its words. What will pass wins, then a word about the vehicle."""
    if _PASSING.search(words):
        return ErrorClass.UNKNOWN
    if _REGISTRATION.search(words):
        return ErrorClass.REGISTRATION
    if _FILE.search(words):
        return ErrorClass.FILE
    return ErrorClass.UNKNOWN
