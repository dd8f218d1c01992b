"""The real daemon, with measurements from the kernel."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.sink import Sink
from tests.support.daemon import DaemonProcess

# A port that nothing listens on: the daemon is then one whose link is down.
NOWHERE = "https://127.0.0.1:9/rest"


@dataclass(frozen=True, slots=True)
class Effort:
    """Resources that a process has used since its start.

    Args:
        cpu_seconds: of all threads.
        wake_ups: how often a thread continued after waiting.
    """

    cpu_seconds: float
    wake_ups: int


class MeasuredDaemon(DaemonProcess):
    """`vision-ingest run`, configured as on a device and started as by systemd.

    Args:
        api: where it delivers to; None for a link that is down.
    """

    def __init__(self, place: Path, api: Sink | None, more: Mapping[str, str] | None = None) -> None:
        secure = f'\nca_file = "{api.ca_file}"' if api else ""
        sections = {
            "[footage]": f'path = "{place / "footage"}"\nsettle_seconds = 5\nrescan_seconds = 60',
            "spool": 'max_bytes = "100 GB"',
            "upload": 'confirm = "answer"\nlinger_seconds = 0\nencoding = "multipart"',
            "log": 'level = "info"\nformat = "json"',
            "api": secure,
        }
        for name, lines in (more or {}).items():
            sections[name] = sections.get(name, "") + "\n" + lines
        super().__init__(place, api.base_url if api else NOWHERE, sections)
        self._manager = place / "manager.sock"
        self.environ["NOTIFY_SOCKET"] = str(self._manager)

    def start(self) -> None:
        self.start_timed()

    def start_timed(self) -> float:
        """Starts it.

        Returns:
            Seconds until it reported readiness to the service manager.
        """
        self._manager.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self._manager))
            manager.settimeout(120)
            started = time.monotonic()
            with self.log_file.open("ab") as log:
                command = [*self.launcher, sys.executable, *self.program]
                self._process = subprocess.Popen(command, stderr=log, env=self.environ)
            while b"READY=1" not in manager.recv(4096):
                pass
            return time.monotonic() - started

    def effort(self) -> Effort:
        """Processor time from proc(5), in ticks of 10 ms, and the voluntary context switches of all threads."""
        threads = list(Path(f"/proc/{self.process.pid}/task").iterdir())
        ticks = wake_ups = 0
        for thread in threads:
            fields = (thread / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            status = (thread / "status").read_text()
            wake_ups += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return Effort(ticks / 100, wake_ups)
