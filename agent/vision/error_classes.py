"""What a per-file error of the API is about, as far as its words tell.

The reference publishes one example ("The file is not of MP4 video format.") and no list of codes: this is our
reading, and the place to correct it.
"""

from __future__ import annotations

import re
from enum import Enum


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
