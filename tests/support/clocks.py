"""A device whose clocks are moved only by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BOOT = "b" * 32


@dataclass
class BenchDevice:
    """The clock readings of a device.

    Args:
        booted: boot time in Unix seconds by the wall clock; setting that clock changes it.
        uptime: seconds since then.
    """

    booted: float
    uptime: float = 60.0
    boot: str = BOOT
    kernel: bool = False
    timesyncd: bool = False
    rtc: float | None = None

    def wall(self) -> float:
        return self.booted + self.uptime

    def boot_seconds(self) -> float:
        return self.uptime

    def boot_id(self) -> str:
        return self.boot

    def kernel_synchronised(self) -> bool:
        return self.kernel

    def timesyncd_synchronised(self) -> bool:
        return self.timesyncd

    def rtc_seconds(self) -> float | None:
        return self.rtc

    def synchronise(self, booted: float) -> None:
        """A time server sets the clock right."""
        self.booted = booted
        self.kernel = True


class FixedClock:
    """A source that reads only `wall` and counts as synchronised: for a clock that is trusted unconditionally."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall = wall

    def boot_seconds(self) -> float:
        return self.wall()

    def boot_id(self) -> str:
        return "0" * 32

    def kernel_synchronised(self) -> bool:
        return True

    def timesyncd_synchronised(self) -> bool:
        return True

    def rtc_seconds(self) -> float | None:
        return None
