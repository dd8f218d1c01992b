"""Settled files that go into the spool together: what a sync costs the card is then paid once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import FootageFolder
from agent.model import Clip, Footage

# Those that came first wait while the last one is inspected, and while all are synced.
MOST_FILES = 32
MOST_BYTES = 200_000_000
LONGEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Member:
    """A settled file that is to be taken in as the clip that it makes, and the folder that it was found in."""

    folder: FootageFolder
    clip: Clip


class Group:
    """Files that were found settled one right after the other."""

    def __init__(self) -> None:
        self._members: dict[Footage, Member] = {}
        self._since = 0.0

    def __contains__(self, footage: Footage) -> bool:
        return footage in self._members

    def add(self, member: Member, now: float) -> None:
        """Args: now: monotonic seconds."""
        if not self._members:
            self._since = now
        self._members[member.clip.footage] = member

    def is_due(self, now: float) -> bool:
        """Whether it should not wait for more files."""
        size_bytes = sum(footage.size_bytes for footage in self._members)
        is_full = len(self._members) >= MOST_FILES or size_bytes >= MOST_BYTES
        return is_full or (bool(self._members) and now - self._since >= LONGEST_SECONDS)

    def leave(self) -> list[Member]:
        """All members; the next file begins a new group."""
        members = list(self._members.values())
        self._members.clear()
        return members
