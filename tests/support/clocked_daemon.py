"""The real daemon on a device whose clocks a test moves: `python -m tests.support.clocked_daemon READINGS CONFIG`.

Only the clock readings are replaced: `agent.daemon.Daemon` takes them as an argument.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from agent.config import secrets_of
from agent.daemon import Daemon, read_config
from agent.device import logs
from agent.device.clock import Clock
from tests.support.daemon import DaemonProcess


class ToldDevice:
    """Clocks that run like this machine's, with an offset that is read from a file."""

    def __init__(self, readings: Path) -> None:
        self._readings = readings

    def _said(self, what: str) -> Any:
        return json.loads(self._readings.read_text())[what]

    def wall(self) -> float:
        return time.time() + float(self._said("off"))

    def boot_seconds(self) -> float:
        return time.monotonic()

    def boot_id(self) -> str:
        return str(self._said("boot"))

    def kernel_synchronised(self) -> bool:
        return bool(self._said("synchronised"))

    def timesyncd_synchronised(self) -> bool:
        return False

    def rtc_seconds(self) -> float | None:
        return None


class ClockedDaemon(DaemonProcess):
    """A daemon whose device the test boots, and whose clock it sets.

    Args:
        off: offset of the device's clock at boot, in seconds.
    """

    def __init__(self, place: Path, base_url: str, *, off: float, trust: str = "auto") -> None:
        super().__init__(place, base_url, {"clock": f'trust = "{trust}"'})
        self._readings = place / "clocks.json"
        self.program = ["-m", "tests.support.clocked_daemon", str(self._readings), str(self.config)]
        self.set_clock(off, synchronised=False)

    def __enter__(self) -> ClockedDaemon:
        self.start()
        return self

    def set_clock(self, off: float, *, synchronised: bool, boot: str = "1" * 32) -> None:
        self.off = off
        new = self._readings.with_suffix(".new")
        new.write_text(json.dumps({"off": off, "synchronised": synchronised, "boot": boot}))
        new.replace(self._readings)


def main() -> int:
    readings, file = Path(sys.argv[1]), Path(sys.argv[2])
    config = read_config(file)
    logs.configure(config.log, secrets=secrets_of(config))
    return Daemon(file, config, Clock(config.clock.trust, ToldDevice(readings))).run()


if __name__ == "__main__":
    sys.exit(main())
