"""A cache of machines between test runs: creating one takes longer than using it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vision-ingest-tests"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """A lock, so that two test processes do not create the same thing at once.

    Args:
        name: name of the lock file in the cache.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
