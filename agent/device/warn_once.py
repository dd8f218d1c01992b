"""Deduplicates warnings: each is logged once until its cause clears."""

from __future__ import annotations

from pathlib import Path

import structlog

log = structlog.get_logger()


class WarnOnce:
    """Remembers which warnings were logged. Not thread-safe: each instance belongs to one thread."""

    def __init__(self) -> None:
        self._active: set[tuple[str, Path]] = set()

    def warn(self, event: str, path: Path, reason: str, **fields: str) -> None:
        """Logs a warning, unless the same event is active for this path already, for whatever reason."""
        if (event, path) not in self._active:
            self._active.add((event, path))
            log.warning(event, path=str(path), reason=reason, **fields)

    def clear(self, event: str, path: Path) -> bool:
        """The cause is gone: the next warning is logged again.

        Returns:
            Whether the warning was active.
        """
        was_active = (event, path) in self._active
        self._active.discard((event, path))
        return was_active

    def clear_except(self, event: str, paths: set[Path], below: Path) -> None:
        """Clears this event for all paths below a folder but these, which still have the cause."""
        self._active -= {
            (warned, path)
            for warned, path in self._active
            if warned == event and path not in paths and path.is_relative_to(below)
        }
