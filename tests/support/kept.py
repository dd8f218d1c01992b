"""Where machines are kept between runs of the tests: to make one takes longer than to use it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vision-ingest-tests"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Two test processes must not make the same thing at once.

    Args:
        name: of the lock, beside what is kept.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
