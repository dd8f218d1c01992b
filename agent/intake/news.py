"""What stays true from scan to scan is news once, and news again when it had ended and came back."""

from __future__ import annotations

from pathlib import Path

import structlog

log = structlog.get_logger()


class News:
    """Warnings that are told once for as long as their cause lasts."""

    def __init__(self) -> None:
        self._lasting: dict[tuple[str, Path], str] = {}

    def tell(self, event: str, path: Path, reason: str, **fields: str) -> None:
        """Logs a warning, unless it was told already and is not over; a new reason alone makes it no news."""
        if (event, path) not in self._lasting:
            self._lasting[event, path] = reason
            log.warning(event, path=str(path), reason=reason, **fields)

    def over(self, event: str, path: Path) -> bool:
        """What was told is no longer true.

        Returns:
            Whether it had been told.
        """
        return self._lasting.pop((event, path), None) is not None

    def only(self, event: str, paths: set[Path], below: Path) -> None:
        """Of all that was told under this name below a folder, only these paths still have it."""
        for key in [key for key in self._lasting if key[0] == event and key[1].is_relative_to(below)]:
            if key[1] not in paths:
                del self._lasting[key]
