"""Why a recording is worth more than another: what names and folders say of events, locks and parking."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """What a recording is marked as.

    Args:
        word: for people; it also becomes the API's comment where nothing else is one.
        urgent: it is delivered before recordings that are not.
    """

    word: str
    urgent: bool = True


EVENT = Mark("event")
IMPACT = Mark("impact while parked")
LOCKED = Mark("locked")
MANUAL = Mark("saved")
ALARM = Mark("alarm")
PARKING = Mark("parking", urgent=False)
MOTION = Mark("motion", urgent=False)
TIMELAPSE = Mark("time lapse", urgent=False)

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


def mark_of_folder(name: str) -> Mark | None:
    """What a folder of this name keeps; None if nothing special."""
    return next((mark for pattern, mark in _FOLDERS if pattern.fullmatch(name)), None)
