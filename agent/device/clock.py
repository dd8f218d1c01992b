"""What this device's clock is worth.

A device without a battery-backed clock starts with the time at which it was last switched off, or with 1970, and jumps
to the right one when it reaches a time server: minutes or days later. A recorder on the device names its files by that
clock. What it was off by can be told within the same boot, by the time since the boot, which nobody sets.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog

from agent.model import CLOCK_STEP_SECONDS

log = structlog.get_logger()

# 2026-01-01: this program is younger. A clock that says less was never set.
EARLIEST_PLAUSIBLE = 1_767_225_600.0
# From this error on the kernel and timedated call a clock unsynchronised. STA_UNSYNC says something else: it may be
# set only to keep the kernel from writing to the battery-backed clock.
MAX_ERROR_MICROSECONDS = 16_000_000
# A battery-backed clock that is this near to the system's is where the latter came from; an hour's drift is far less,
# and what a dead battery leaves, or systemd makes of it, is years away.
RTC_TOLERANCE_SECONDS = 300.0
# The file's date and a time by the same clock may be this much outside the stretch in which it was seen.
SLACK_SECONDS = 60.0
MAX_SEGMENTS = 16


class ClockSource(Protocol):
    """Where the readings come from."""

    def wall(self) -> float:
        """Unix seconds."""

    def boot_seconds(self) -> float:
        """Seconds since the boot, those of suspend included; nobody can set them."""

    def boot_id(self) -> str:
        """32 hexadecimal digits, new with each boot."""

    def kernel_synchronised(self) -> bool:
        """Whether a time service keeps the kernel's clock right, whichever service that is."""

    def timesyncd_synchronised(self) -> bool:
        """Whether systemd-timesyncd has reached a server in this boot."""

    def rtc_seconds(self) -> float | None:
        """Unix seconds by the battery-backed clock that the system's was set from; None if there is none."""


class SystemClocks:
    """The readings of the machine that this runs on."""

    def wall(self) -> float:
        return time.time()

    def boot_seconds(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")

    def kernel_synchronised(self) -> bool:
        timex = _Timex()
        if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
            return False
        return int(timex.maxerror) < MAX_ERROR_MICROSECONDS

    def timesyncd_synchronised(self) -> bool:
        return Path("/run/systemd/timesync/synchronized").exists()

    def rtc_seconds(self) -> float | None:
        for rtc in Path("/sys/class/rtc").glob("rtc*"):
            with suppress(OSError, ValueError):
                if int((rtc / "hctosys").read_text()) == 1:
                    return float((rtc / "since_epoch").read_text())
        return None


class FixedClock:
    """A device whose clock is moved by nothing but what it is told: for one that is believed anyway."""

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


class _Timex(ctypes.Structure):
    """The first fields of struct timex (adjtimex(2)), and room for the others. With modes = 0 nothing is set."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("others", ctypes.c_byte * 512),
    )


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One reading of this device's clocks.

    Args:
        boot_seconds: since the boot, by a clock that nobody sets.
        wall: Unix seconds, by the clock that is set.
        trusted: whether `wall` is believed to be right.
    """

    boot_id: str
    boot_seconds: float
    wall: float
    trusted: bool

    @property
    def boot_began(self) -> float:
        """Unix seconds at which the device booted, by this reading: changes by as much as the clock is set."""
        return self.wall - self.boot_seconds


@dataclass(frozen=True, slots=True)
class ClockSegment:
    """A stretch of this boot in which nobody set the clock, and its worth did not change.

    Args:
        since: seconds after the boot at which it began; 0 for the first that was seen.
        latest: the last reading in it.
    """

    since: float
    latest: ClockReading

    def contains(self, unix_seconds: float) -> bool:
        """Whether the clock showed this time during the stretch."""
        at = unix_seconds - self.latest.boot_began
        return self.since - SLACK_SECONDS <= at <= self.latest.boot_seconds + SLACK_SECONDS


class Clock:
    """Reads this device's clock, judges it, and remembers how it was set during this boot.

    Args:
        trust: "auto" believes a clock that was synchronised in this boot and not set by hand since, or that agrees
            with the battery-backed clock it was set from; "always" believes it whatever it says.
        device: where the readings come from.
    """

    def __init__(self, trust: Literal["auto", "always"] = "auto", source: ClockSource | None = None) -> None:
        self.trust = trust
        self._source = source or SystemClocks()
        self._boot_id = self._source.boot_id()
        self._synchronised = False
        self._stepped = False
        self._segments: tuple[ClockSegment, ...] = ()
        self.sample()

    def wall(self) -> float:
        """Unix seconds, right or wrong."""
        return self._source.wall()

    @property
    def latest(self) -> ClockReading:
        """The reading of the last look."""
        return self._segments[-1].latest

    @property
    def segments(self) -> tuple[ClockSegment, ...]:
        """How the clock was set in this boot, as far as it was seen, oldest first; the last one is in force."""
        return self._segments

    def sample(self) -> ClockReading:
        """Reads the clock; logs once if it was set since the last look, or if its worth has changed."""
        wall, boot_seconds = self._source.wall(), self._source.boot_seconds()
        before = self._segments[-1] if self._segments else None
        step = wall - boot_seconds - before.latest.boot_began if before else 0.0
        stepped = abs(step) >= CLOCK_STEP_SECONDS
        if stepped:
            log.warning("clock_stepped", seconds=round(step), before=_utc(wall - step), after=_utc(wall))
        reading = ClockReading(self._boot_id, boot_seconds, wall, self._judge(wall, stepped=stepped))
        if before is None:
            self._segments = (ClockSegment(0.0, reading),)
        elif stepped or reading.trusted != before.latest.trusted:
            self._segments = (*self._segments, ClockSegment(before.latest.boot_seconds, reading))[-MAX_SEGMENTS:]
        else:
            self._segments = (*self._segments[:-1], ClockSegment(before.since, reading))
        if before is not None and reading.trusted != before.latest.trusted:
            self.log_state()
        return reading

    def log_state(self) -> None:
        """Logs what the clock is worth."""
        if self.latest.trusted:
            log.info("clock_trusted", says=_utc(self.latest.wall))
        else:
            log.warning("clock_not_trusted", says=_utc(self.latest.wall), reason=NOT_TRUSTED)

    def _judge(self, wall: float, *, stepped: bool) -> bool:
        if self.trust == "always":
            return True
        if self._source.kernel_synchronised():
            self._synchronised, self._stepped = True, False
        elif stepped:
            # Set by hand, or by a service that has yet to tell the kernel: what was known of the time is void.
            self._synchronised, self._stepped = False, True
        elif not self._stepped:
            # A clock that was synchronised stays right for days without a network; the kernel gives it up after 9 h.
            self._synchronised = self._synchronised or self._source.timesyncd_synchronised()
        if self._synchronised:
            return True
        rtc = self._source.rtc_seconds()
        return wall >= EARLIEST_PLAUSIBLE and rtc is not None and abs(wall - rtc) <= RTC_TOLERANCE_SECONDS


NOT_TRUSTED = (
    "it is neither synchronised over the network in this boot nor confirmed by a battery-backed clock: clips that were "
    "recorded by it are held until it is. Let the device reach a time server (NTP); if its clock is right by other "
    'means, set trust = "always" in [clock]'
)


def _utc(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_seconds))
