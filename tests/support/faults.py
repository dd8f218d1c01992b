"""Kernel faults: failing system calls of a running process, and a small disk."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemon import await_until


@contextmanager
def failing_calls(pid: int, *injections: str) -> Iterator[None]:
    """Make system calls of a process fail within the context: strace(1), --inject.

    Args:
        injections: such as "fsync,fdatasync:error=EIO".
    """
    calls = ",".join(injection.split(":", maxsplit=1)[0] for injection in injections)
    command = ["strace", "-f", "-q", "-o", os.devnull, "-e", f"trace={calls}", "-p", str(pid)]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        try:
            await_until(lambda: _is_traced(pid), "strace to attach", 60)
            yield
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=60)


def _is_traced(pid: int) -> bool:
    """Whether every thread of the process has a tracer; threads that have ended do not count."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)
    except FileNotFoundError:
        return False


@contextmanager
def small_disk(place: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs within the context. Requires root."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, *, leave_bytes: int = 0) -> Path:
    """Fills a disk to the last block, as a recorder would.

    Returns:
        The file that fills it; delete it to free the space.
    """
    ballast = place / "ballast"
    with ballast.open("ab", buffering=0) as file:
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize - leave_bytes
        os.posix_fallocate(file.fileno(), 0, max(1, os.fstat(file.fileno()).st_size + free))
    return ballast
