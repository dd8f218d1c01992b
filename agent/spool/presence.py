"""Whether footage is still there, or gone for good, or only out of reach for now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.model import Footage
from agent.spool.records import Record


def is_there(footage: Footage) -> bool:
    """Whether the file still stands there as it was."""
    try:
        stat = footage.path.lstat()
    except (OSError, ValueError):  # ValueError: a damaged row can name a path with a NUL byte
        return False
    return Footage.from_stat(footage.path, stat) == footage


def can_start_anew(record: Record) -> bool:
    """Whether a scan takes a clip in anew once its row is forgotten: one piece of several it would not miss."""
    # Of an adopted clip nobody knows the footage: its stored file stands for it, and is all that there is.
    is_adopted = record.stored is not None and record.footage.path.name == record.stored.name
    return record.pieces == 1 and not is_adopted and is_there(record.footage)


def is_gone(footage: Footage, folders: Sequence[Path]) -> bool:
    """Whether no scan can find the footage any more.

    Args:
        folders: those that are scanned and had footage lately. A card that is not plugged in leaves its folder missing
            or empty: what belongs there, or to no folder at all, is out of reach and not gone.
    """
    place = next((folder for folder in folders if folder in footage.path.parents), None)
    return place is not None and place.is_dir() and not is_there(footage)
