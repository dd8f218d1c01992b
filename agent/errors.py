"""Errors as decisions: each type answers the question "what now?".

    VisionIngestError              base; the text is written for a technician
    ├── Cancelled                  shutdown: leave everything as it was
    ├── ConfigError                edit the configuration
    ├── FootageRefused             list the footage with the reason, leave it on disk
    │   └── FootageIncomplete      wait while someone may still be writing it
    ├── FootageGone                nothing: the next scan looks again
    ├── SpoolError                 stop the daemon
    │   └── SpoolLocked            another process owns the spool: do not touch it
    ├── SpoolFull                  try again when there is room
    └── DeliveryError              a request to the API failed
        ├── LinkDown               send the same batch again after a backoff
        ├── ClipUnreadable         leave out this clip, send the others
        ├── DeliveryBlocked        pause all delivery until a person acts, probe now and then
        │   ├── CredentialsRejected    401
        │   ├── FeatureDisabled        403
        │   └── EndpointNotFound       404
        ├── TooLarge               413: send smaller batches
        ├── RateLimited            429: wait as long as the server asks
        ├── RequestRejected        other 4xx: find out which clip is at fault
        └── CameraOffline          503 of the live stream: try again later by hand

A few modules define subtypes that only their direct callers catch (`Mp4Error`, `ToolFailed`, `NoDaemon`).

Errors of libraries (requests, sqlite3, OSError) are translated into these once, where the library is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


def printable(text: str) -> str:
    """The text with undecodable bytes and control characters escaped, fit for a message, a terminal and UTF-8."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class VisionIngestError(Exception):
    """Base of all errors that this program raises on purpose; the text is written for a technician."""


class Cancelled(VisionIngestError):
    """The daemon is shutting down: leave everything as it was before the operation."""


# --- configuration -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration: which key, what is wrong, and what is allowed."""

    file: str
    key: str
    wrong: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.wrong}; {self.allowed}"


class ConfigError(VisionIngestError):
    """The configuration is invalid: a person must edit it. Carries every mistake, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


# --- intake ------------------------------------------------------------------------------------------------------


class FootageRefused(VisionIngestError):
    """This footage cannot be delivered as it is: list it with the reason and leave it on disk.

    Args:
        reason: one sentence, shown to the technician.
        retry_after_seconds: inspect the footage again after this time; None: only when the file or the configuration
            changes.
    """

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class FootageIncomplete(FootageRefused):
    """The file is not a complete MP4 yet: refuse it only once nobody is writing it any more."""


class FootageGone(VisionIngestError):
    """The file vanished or was rewritten since the scan: normal for a loop recorder. The next scan looks again."""


# --- spool -------------------------------------------------------------------------------------------------------


class SpoolError(VisionIngestError):
    """The spool is unusable: the daemon must stop, since nothing it accepts now would be durable."""


class SpoolLocked(SpoolError):
    """Another process owns this spool: do not touch it."""


class SpoolFull(VisionIngestError):
    """No disk space for a clip or a row: leave everything as it is and try again later."""


# --- delivery ----------------------------------------------------------------------------------------------------


class DeliveryError(VisionIngestError):
    """A request to the Vision API did not end with a usable response."""


class LinkDown(DeliveryError):
    """No route, DNS, TLS, stall, reset, 5xx, captive portal: no clip is at fault, send the same batch again later."""


class ClipUnreadable(DeliveryError):
    """The stored file of one clip vanished, changed or cannot be read: leave out that clip, send the others.

    Args:
        file: the stored file.
        reason: what happened to the file, for the technician; the message begins with the file's name.
        is_transient: the bytes may still be there (a bad contact, a permission), so the clip must be kept.
    """

    def __init__(self, file: Path, reason: str, *, is_transient: bool = False) -> None:
        super().__init__(f"{file.name}: {reason}")
        self.file = file
        self.reason = reason
        self.is_transient = is_transient


class DeliveryBlocked(DeliveryError):
    """A person must act before anything can be delivered: pause all delivery, and probe now and then."""


class CredentialsRejected(DeliveryBlocked):
    """401: the username, the password or the region is wrong."""


class FeatureDisabled(DeliveryBlocked):
    """402, 403, 423: the account has no active Vision API option, is not paid for, or is locked."""


class EndpointNotFound(DeliveryBlocked):
    """404: the base URL is not that of the API."""


class TooLarge(DeliveryError):
    """413: the server does not accept a body of this size: send smaller batches."""


class RateLimited(DeliveryError):
    """429: wait before the next request of any kind.

    Args:
        retry_after_seconds: from the response's headers; None if they name no time.
    """

    def __init__(self, message: str, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RequestRejected(DeliveryError):
    """422, or another 4xx about the content of the request.

    Args:
        message: the server's message.
        items: messages about single items of the batch, by index in the batch.
    """

    def __init__(self, message: str, items: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.items = dict(items or {})


class CameraOffline(DeliveryError):
    """503 of the livestream endpoint: the camera is off or offline; an immediate retry does not help."""
