"""What stays true from scan to scan is news once, and news again when it had ended and came back."""

from __future__ import annotations

from pathlib import Path

import structlog

log = structlog.get_logger()


class WarnOnce:
    """Warnings that are told once for as long as their cause lasts."""

    def __init__(self) -> None:
        self._lasting: set[tuple[str, Path]] = set()

    def warn(self, event: str, path: Path, reason: str, **fields: str) -> None:
        """Logs a warning, unless it was told already and is not over; a new reason alone makes it no news."""
        if (event, path) not in self._lasting:
            self._lasting.add((event, path))
            log.warning(event, path=str(path), reason=reason, **fields)

    def clear(self, event: str, path: Path) -> bool:
        """What was told is no longer true.

        Returns:
            Whether it had been told.
        """
        was_told = (event, path) in self._lasting
        self._lasting.discard((event, path))
        return was_told

    def clear_except(self, event: str, paths: set[Path], below: Path) -> None:
        """Of all that was told under this name below a folder, only these paths still have it."""
        self._lasting -= {
            (told, path)
            for told, path in self._lasting
            if told == event and path not in paths and path.is_relative_to(below)
        }
