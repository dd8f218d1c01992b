"""What the main thread waits for: other threads and signals ring it."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import suppress


class Waker:
    """Ends the wait of the main thread.

    What a signal's handler in Python does is not enough: it runs between two steps of the main thread, and a signal
    that comes when the thread is on its way into a wait would be noticed only after it. The interpreter's own handler
    writes into this bell's socket at once (`signal.set_wakeup_fd`). Only the main thread can make one.
    """

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)

    def wake(self) -> None:
        """Ends the wait, or the next one; from any thread."""
        with suppress(BlockingIOError):  # so many rings that were not heard yet are enough
            self._writing.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Waits until it rings or a signal comes, at most so long; what rang before counts too."""
        if self._poll.poll(seconds * 1000):
            self._reading.recv(4096)

    def close(self) -> None:
        """Signals are no longer heard, and it must not be rung again."""
        signal.set_wakeup_fd(-1)
        self._reading.close()
        self._writing.close()
