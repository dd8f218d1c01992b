"""Ends the wait of the main thread at once: from other threads, and on signals."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import suppress


class Waker:
    """A self-pipe that the main thread polls.

    A Python signal handler alone is not enough: it runs between two bytecodes of the main thread, so a signal that
    arrives just before the thread enters a blocking wait would be noticed only after that wait. The interpreter's
    C-level handler writes to this socket at once (`signal.set_wakeup_fd`), so no signal is missed.

    Threads: created, waited on and closed by the main thread only; `wake` may be called from any thread until `close`.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def wake(self) -> None:
        """End the current wait, or else the next one."""
        with suppress(BlockingIOError):  # the buffer is full of wake-ups that were not read yet: one is enough
            self._writer.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Wait for `wake` or a signal, at most this long; returns at once if one came since the last wait."""
        if self._poll.poll(seconds * 1000):
            self._reader.recv(4096)

    def close(self) -> None:
        """Stop listening for signals. `wake` must not be called any more."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()
