"""Errors as decisions: each type answers the question "what now?".

Foreign errors (requests, sqlite3, OSError) are translated into these once, at the edge where they arise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


def printable(text: str) -> str:
    """The text with undecodable bytes and control characters escaped, fit for a message, a terminal and UTF-8."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class VisionIngestError(Exception):
    """The base of all errors that this program raises on purpose; its text is written for a technician."""


class Cancelled(VisionIngestError):
    """The daemon was asked to stop meanwhile: leave everything as it was before the work began."""


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
    """The configuration cannot be used: a person must edit it. Carries every mistake, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


# --- intake ------------------------------------------------------------------------------------------------------


class FootageRefused(VisionIngestError):
    """This footage cannot be delivered as it is: list it with the reason and leave it on disk.

    Args:
        reason: the sentence shown to the technician.
        look_again_seconds: after this many seconds the footage is inspected anew; None means only when the file or
            the configuration changes.
    """

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class FootageIncomplete(FootageRefused):
    """The file is not a whole MP4 yet: refuse it only if nobody is writing it any more."""


class FootageGone(VisionIngestError):
    """The file vanished or was rewritten between the scan and now: normal for a loop recorder; the next scan looks."""


# --- spool -------------------------------------------------------------------------------------------------------


class SpoolError(VisionIngestError):
    """The spool cannot be used: the daemon must stop rather than promise what it cannot keep."""


class SpoolLocked(SpoolError):
    """Another process works on this spool: do not touch it."""


class SpoolFull(VisionIngestError):
    """No room now, for a clip or for a row: leave everything as it is and try again later."""


# --- delivery ----------------------------------------------------------------------------------------------------


class DeliveryError(VisionIngestError):
    """A request to the Vision API did not end with an answer that can be used."""


class LinkDown(DeliveryError):
    """Nobody's fault: send the same batch again later. No route, DNS, TLS, stall, reset, 5xx, captive portal."""


class ClipUnreadable(DeliveryError):
    """The stored file of one clip vanished, changed or cannot be read: that clip is not sendable, the others are.

    Args:
        file: the stored file.
        reason: what became of it, for the technician; the sentence begins with the file.
        may_pass: the bytes may still be there (a bad contact, a permission): they must be kept.
    """

    def __init__(self, file: Path, reason: str, *, is_transient: bool = False) -> None:
        super().__init__(f"{file.name}: {reason}")
        self.file = file
        self.reason = reason
        self.is_transient = is_transient


class DeliveryBlocked(DeliveryError):
    """A person must act before anything can be delivered: hold all delivery and look again now and then."""


class CredentialsRejected(DeliveryBlocked):
    """401: the username, the password or the region is wrong."""


class FeatureDisabled(DeliveryBlocked):
    """403: the account has no active Vision API option."""


class EndpointNotFound(DeliveryBlocked):
    """404: the base URL is not that of the API."""


class TooLarge(DeliveryError):
    """413: the server will not take a body of this size: send less at once."""


class RateLimited(DeliveryError):
    """429: wait before the next request, whatever it is.

    Args:
        retry_after_seconds: what the answer's headers ask for; None if they say nothing.
    """

    def __init__(self, message: str, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RequestRejected(DeliveryError):
    """422, or another 4xx that is about what was sent.

    Args:
        message: the server's words.
        items: errors that name items of the batch: index in the batch to the server's words.
    """

    def __init__(self, message: str, items: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.items = dict(items or {})


class CameraOffline(DeliveryError):
    """503 of the livestream endpoint: the camera is off or has no link; asking again at once does not help."""
