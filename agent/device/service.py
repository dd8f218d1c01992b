"""Notifications to the service manager: readiness, status, watchdog (sd_notify(3), without a library)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

SEND_SECONDS = 1.0


class ServiceManager:
    """Sends to $NOTIFY_SOCKET; without that variable, does nothing.

    Args:
        environ: holds NOTIFY_SOCKET and WATCHDOG_USEC.

    Attributes:
        watchdog_seconds: the service is killed if `watchdog_ping` is not called for this long; None: no watchdog.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        micros = environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(micros) / 1e6 if micros.isdecimal() and int(micros) > 0 else None
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ means the abstract namespace: replaced by a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the status line of `systemctl status`.

        Args:
            text: may quote a server: line breaks are replaced, since each line is a message to the service manager.
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
                # The manager is gone or its queue is full: not worth delaying deliveries.
                return
