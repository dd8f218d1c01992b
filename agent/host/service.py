"""What the service manager is told: ready, what the daemon does, that it moves (sd_notify(3), without a library)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class ServiceManager:
    """The other end of $NOTIFY_SOCKET; without one, every message goes nowhere.

    Args:
        environ: where NOTIFY_SOCKET and WATCHDOG_USEC stand.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ means the abstract namespace, whose first byte is zero.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() else None

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            try:
                notifier.sendto(message.encode(), self._address)
            except OSError:
                # The manager went away or its queue is full: nothing that footage should wait for.
                return
