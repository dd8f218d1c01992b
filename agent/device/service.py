"""What the service manager is told: ready, what the daemon does, that it moves (sd_notify(3), without a library)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

SEND_SECONDS = 1.0


class ServiceManager:
    """The other end of $NOTIFY_SOCKET; without one, every message goes nowhere.

    Args:
        environ: where NOTIFY_SOCKET and WATCHDOG_USEC stand.

    Attributes:
        watchdog_seconds: how long the manager waits for `watchdog_ping` before it ends the service; None for ever.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        micros = environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(micros) / 1e6 if micros.isdecimal() and int(micros) > 0 else None
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ means the abstract namespace, whose first byte is zero.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Shows a sentence in `systemctl status`.

        Args:
            text: any words, a server's too: on a line of their own they would be a message to the service manager.
        """
        self._send(f"STATUS={' '.join(text.split())}")

    def watchdog_ping(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            notifier.settimeout(SEND_SECONDS)
            try:
                notifier.sendto(message.encode(errors="replace"), self._address)
            except OSError:
                # The manager went away or its queue stays full: nothing that footage should wait for.
                return
