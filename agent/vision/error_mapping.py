"""Maps error responses to exceptions, and error messages about a file to classes.

Only JSON of the API itself decides about credentials, features and limits: a proxy or the login page of a network may
answer with any status as well, and then the link is down.
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

# The limit is counted by the minute: a longer wait comes from a wrong clock, here or there.
MAX_RETRY_SECONDS = 3600.0

_DECISIONS: Mapping[int, tuple[type[DeliveryError], str]] = {
    401: (
        CredentialsRejected,
        "the API rejects the credentials ({said}): check api.username, the password and api.region; an account of "
        "another region is rejected in the same way",
    ),
    402: (FeatureDisabled, "the API requires a payment for this account ({said}): ask whoever pays for it"),
    403: (
        FeatureDisabled,
        "the API refuses this account ({said}): the Vision API option must be activated for it; activation takes 5 to "
        "10 minutes",
    ),
    423: (FeatureDisabled, "the API says that this account is locked ({said}): ask whoever manages it"),
    404: (EndpointNotFound, "the API has no such address ({said}): check api.region or api.base_url"),
    # Also without the API's JSON: it mostly comes from the web server in front of the API.
    413: (TooLarge, "the server does not accept a request of this size ({said})"),
}
_RATE_HEADERS = ("X-RateLimit-Retry-After-Seconds", "X-RateLimit-Retry-At")


def error_for(response: HttpResponse, payload: object, now_seconds: float) -> DeliveryError:
    """The error to raise for a response that does not report success.

    Args:
        payload: the JSON of the response; None if it is not JSON.
        now_seconds: Unix time, for a 429 that names an instant and has no Date.
    """
    said = server_message(payload) or f"HTTP {response.status}"
    limited = response.status == 429 and any(name in response.headers for name in _RATE_HEADERS)
    if response.status != 413 and not is_api_error(payload) and not limited:
        return LinkDown(_not_the_api(response, server_message(payload)))
    if response.status in _DECISIONS:
        kind, sentence = _DECISIONS[response.status]
        return kind(sentence.format(said=said))
    if response.status == 429:
        sentence = (
            f"rate limit reached ({said}). All vehicles of the account share it: set upload.vehicles to their number"
        )
        return RateLimited(sentence, retry_after(response, now_seconds))
    if 400 <= response.status < 500 and response.status not in (407, 408):
        return RequestRejected(said, item_errors(payload))
    return LinkDown(f"the API is in trouble: HTTP {response.status} ({said})")


def is_api_error(payload: object) -> bool:
    """Whether this is `{"error": {"code": …, "message": "…"}}`, or has `errors` by field, as validation errors have."""
    return isinstance(payload, Mapping) and (isinstance(payload.get("error"), Mapping) or bool(payload.get("errors")))


def server_message(payload: object) -> str:
    """The message of an error response; empty if it has none."""
    if not isinstance(payload, Mapping):
        return ""
    error = payload.get("error")
    message = error.get("message") if isinstance(error, Mapping) else error
    texts = (message, *(payload.get(name) for name in ("errors", "message", "detail", "title")))
    return next(("; ".join(found) for text in texts if (found := messages(text))), "")


def retry_after(response: HttpResponse, now_seconds: float) -> float | None:
    """Seconds that a response asks to wait; None if it does not say. Instants are relative to its own Date."""
    sent_seconds = _unix_seconds(response.headers.get("Date"))
    begin_seconds = now_seconds if sent_seconds is None else sent_seconds
    instant = _number(response.headers.get("X-RateLimit-Retry-At"))
    plain = response.headers.get("Retry-After")
    http_date = _unix_seconds(plain)
    waits = (
        _number(response.headers.get("X-RateLimit-Retry-After-Seconds")),
        None if instant is None else instant - begin_seconds,
        _number(plain),
        None if http_date is None else http_date - begin_seconds,
    )
    return next((min(max(0.0, seconds), MAX_RETRY_SECONDS) for seconds in waits if seconds is not None), None)


def _not_the_api(response: HttpResponse, message: str) -> str:
    """What came, and a login page as a question only where it is likely: where a page came, or a redirect to one."""
    if 300 <= response.status < 400:
        target = response.headers.get("Location", "nowhere")[:200]
        return f"the response is a redirect (HTTP {response.status}) to {target!r}: does the network require a login?"
    if response.status >= 500:
        return f"the server is in trouble: HTTP {response.status}" + (f" ({message})" if message else "")
    kind = response.headers.get("Content-Type", "no type")[:60]
    said = f"the response is not in the API's form (HTTP {response.status} with {kind!r})"
    if message:
        return f"{said}; it says: {message}"
    return f"{said}: is it a login page of the network, or from a proxy?" if "html" in kind.lower() else said


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
    """What must change before the API can accept the same clip."""

    FILE = "the file itself: format, size or duration"
    REGISTRATION = "the vehicle: its registration, contract or option"
    TRANSIENT = "nothing: the message says that it will pass"
    UNKNOWN = "anything else"


_REGISTRATION = re.compile(r"registration|vehicle|contract|terminal", re.I)
# "Try again in 5 minutes" is transient, whatever else the message mentions: it must never refuse a clip for good.
_TRANSIENT = re.compile(
    r"try again|again later|retry|temporar|timed? ?out|unavailable|too many|busy|overload|maintenance", re.I
)
_FILE = re.compile(
    r"\bformat|\bmp4\b|h\.?26[45]|codec|too (large|big|long)|file size|\bsize\b|\bMB\b|duration|"
    r"(longer|more) than \d+ minutes|minutes apart|"
    r"video.file.*(required|invalid|must be)",
    re.I,
)


def classify(message: str) -> ErrorClass:
    """The class of a per-file error, by its text. Transient goes first, then the vehicle, then the file.

    The reference publishes one example ("The file is not of MP4 video format.") and no list of codes: these patterns
    are an assumption, to be corrected here.
    """
    if _TRANSIENT.search(message):
        return ErrorClass.TRANSIENT
    if _REGISTRATION.search(message):
        return ErrorClass.REGISTRATION
    if _FILE.search(message):
        return ErrorClass.FILE
    return ErrorClass.UNKNOWN
