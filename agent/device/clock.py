"""Whether this device's clock can be trusted, and how it was set during this boot.

A device without a battery-backed clock (RTC) boots with the time at which it was last switched off, or with 1970, and
jumps to the right time when it reaches a time server, minutes or days later. A recorder on the device names its files
by that clock. Within the same boot its offset can be computed afterwards, from the time since boot (CLOCK_BOOTTIME),
which nobody can set.
"""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog

from agent.model import CLOCK_STEP_SECONDS

log = structlog.get_logger()

# 2026-01-01, before this program was written: a clock that shows an earlier time was never set.
EARLIEST_PLAUSIBLE = 1_767_225_600.0
# From this error on, the kernel and timedated report a clock as unsynchronised. STA_UNSYNC is no evidence: it may be
# set only to keep the kernel from writing to the RTC.
MAX_ERROR_MICROSECONDS = 16_000_000
# An RTC this close to the system clock is taken as its source. Drift is far smaller; after a dead battery, or after
# systemd advanced the clock to its last known time, the difference is years.
RTC_TOLERANCE_SECONDS = 300.0
# Tolerance at both ends of a segment: a step is noticed only at the next sample.
SLACK_SECONDS = 60.0
# Bounds the memory of a clock that is set again and again.
MAX_SEGMENTS = 16


class ClockSource(Protocol):
    """Reads the clocks of a device."""

    def wall(self) -> float:
        """Unix seconds."""

    def boot_seconds(self) -> float:
        """Seconds since boot, including suspend; nobody can set this clock."""

    def boot_id(self) -> str:
        """32 hexadecimal digits, new with each boot."""

    def kernel_synchronised(self) -> bool:
        """Whether any time service keeps the kernel's clock synchronised."""

    def timesyncd_synchronised(self) -> bool:
        """Whether systemd-timesyncd has reached a server in this boot."""

    def rtc_seconds(self) -> float | None:
        """Unix seconds by the RTC that the system clock was set from; None if there is none."""


class SystemClocks:
    """The clocks of the machine that this process runs on."""

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


class _Timex(ctypes.Structure):
    """The first fields of struct timex (adjtimex(2)), and room for the rest. modes = 0 means read only."""

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
        boot_seconds: seconds since boot, by the clock that nobody can set.
        wall: Unix seconds, by the clock that can be set.
        trusted: whether `wall` is taken as correct.
    """

    boot_id: str
    boot_seconds: float
    wall: float
    trusted: bool

    @property
    def boot_time(self) -> float:
        """Boot time in Unix seconds, by this reading: moves by exactly as much as the clock is set."""
        return self.wall - self.boot_seconds


@dataclass(frozen=True, slots=True)
class ClockSegment:
    """A period of this boot in which the clock was not set and its trust did not change.

    Args:
        since: its beginning in seconds since boot; 0 for the first one.
        latest: the last reading in it.
    """

    since: float
    latest: ClockReading

    def contains(self, unix_seconds: float) -> bool:
        """Whether the clock showed this time during the segment."""
        at = unix_seconds - self.latest.boot_time
        return self.since - SLACK_SECONDS <= at <= self.latest.boot_seconds + SLACK_SECONDS


class Clock:
    """Samples this device's clock, decides whether it is trusted, and keeps the segments of this boot.

    Args:
        trust: "auto" trusts a clock that was synchronised in this boot and not set by hand since, or that agrees with
            its RTC; "always" trusts it unconditionally. May be changed; takes effect with the next sample.
        source: where the readings come from.

    Threads: `sample` runs in one thread at a time: the intake's, and the main thread only while no pipeline runs.
    Any thread may read `latest`, `segments` and `wall`: the segments are an immutable tuple, replaced as a whole.
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
        """Unix seconds, trusted or not."""
        return self._source.wall()

    @property
    def latest(self) -> ClockReading:
        """The reading of the last sample."""
        return self._segments[-1].latest

    @property
    def segments(self) -> tuple[ClockSegment, ...]:
        """The segments of this boot since start-up, oldest first; the last one is current."""
        return self._segments

    def sample(self) -> ClockReading:
        """Read the clock; log if it was set since the last sample, or if its trust changed."""
        wall, boot_seconds = self._source.wall(), self._source.boot_seconds()
        before = self._segments[-1] if self._segments else None
        step = wall - boot_seconds - before.latest.boot_time if before else 0.0
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
        """Log whether the clock is trusted."""
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
            # Set by hand, or by a time service that has not updated the kernel yet: earlier synchronisation is void.
            self._synchronised, self._stepped = False, True
        elif not self._stepped:
            # A synchronised clock stays right for days without a network, although the kernel's error estimate grows
            # past the limit after 9 h.
            self._synchronised = self._synchronised or self._source.timesyncd_synchronised()
        if self._synchronised:
            return True
        rtc = self._source.rtc_seconds()
        return wall >= EARLIEST_PLAUSIBLE and rtc is not None and abs(wall - rtc) <= RTC_TOLERANCE_SECONDS


NOT_TRUSTED = (
    "it was not synchronised over the network in this boot, and no battery-backed clock confirms it: clips recorded by "
    "this clock are held until then. Let the device reach a time server (NTP); if its clock is right by other means, "
    'set trust = "always" in [clock]'
)


def _utc(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_seconds))
