"""Why a recording is worth more than another: what names and folders say of events, locks and parking."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventTag:
    """What a recording is marked as.

    Args:
        word: for people; it also becomes the API's comment where nothing else is one.
        high_priority: it is delivered before recordings that are not.
    """

    word: str
    high_priority: bool = True


EVENT = EventTag("event")
IMPACT = EventTag("impact while parked")
LOCKED = EventTag("locked")
MANUAL = EventTag("saved")
ALARM = EventTag("alarm")
PARKING = EventTag("parking", high_priority=False)
MOTION = EventTag("motion", high_priority=False)
TIMELAPSE = EventTag("time lapse", high_priority=False)

# Folders that recorders keep such footage in, by their whole name. A recorder that locks a clip often does no more than
# move it into one of these.
_FOLDERS = (
    (re.compile(r"ro|locked|lock|protected", re.IGNORECASE), LOCKED),
    (re.compile(r"(?:\d{3})?(?:events?|evt|emergency|emr|sos)(?:_rec)?|sentryclips", re.IGNORECASE), EVENT),
    (re.compile(r"(?:\d{3}saved|savedclips|saved|manual(?:_rec)?)", re.IGNORECASE), MANUAL),
    (re.compile(r"parking(?:_rec)?|park(?:_rec)?", re.IGNORECASE), PARKING),
    (re.compile(r"motion_rec", re.IGNORECASE), MOTION),
    (re.compile(r"lapse|(?:\d{3})?tlpse|timelapse(?:_rec)?", re.IGNORECASE), TIMELAPSE),
)


def tag_for_folder(name: str) -> EventTag | None:
    """What a folder of this name keeps; None if nothing special."""
    return next((mark for pattern, mark in _FOLDERS if pattern.fullmatch(name)), None)
