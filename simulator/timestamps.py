"""The API's timestamps: `YYYY-MM-DD HH:MM:SS` without a zone, which the simulator reads and writes as UTC."""

from __future__ import annotations

from datetime import datetime, timezone

_FORMAT = "%Y-%m-%d %H:%M:%S"


def read(text: str) -> datetime:
    """The instant that `text` names, aware UTC.

    Raises:
        ValueError: it is not of exactly this form (strptime alone would take "2026-1-1 0:0:0").
    """
    instant = datetime.strptime(text, _FORMAT).replace(tzinfo=timezone.utc)
    if write(instant) != text:
        raise ValueError(f"{text!r} is not of the form YYYY-MM-DD HH:MM:SS")
    return instant


def write(instant: datetime) -> str:
    """The API's text for an aware instant."""
    return instant.astimezone(timezone.utc).strftime(_FORMAT)
