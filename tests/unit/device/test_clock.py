from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.device.clock import EARLIEST_PLAUSIBLE, Clock, SystemClocks
from tests.support.clocks import BenchDevice

BOOTED = 1_790_000_000.0
YEAR = 365 * 86_400.0


def test_a_clock_synchronised_by_a_time_service_is_trusted() -> None:
    assert Clock(source=BenchDevice(BOOTED, kernel=True)).latest.trusted


def test_a_plausible_clock_without_a_source_is_not_trusted() -> None:
    """A device without an RTC resumes with the time at which it was switched off: plausible, but wrong."""
    assert not Clock(source=BenchDevice(BOOTED)).latest.trusted


def test_always_trusts_any_clock_without_checking() -> None:
    class Silent(BenchDevice):
        def kernel_synchronised(self) -> bool:
            raise AssertionError("asked")

    assert Clock("always", Silent(0.0)).latest.trusted


@pytest.mark.parametrize(
    ("off", "trusted"), [(0.0, True), (200.0, True), (-200.0, True), (400.0, False), (-YEAR, False)]
)
def test_a_clock_that_agrees_with_its_rtc_is_trusted(off: float, trusted: bool) -> None:
    """With a dead battery the RTC reads 2000, and systemd advances the system clock to the last known time."""
    device = BenchDevice(BOOTED)
    device.rtc = device.wall() + off
    assert Clock(source=device).latest.trusted is trusted


def test_an_rtc_before_the_programs_own_date_is_not_trusted() -> None:
    device = BenchDevice(EARLIEST_PLAUSIBLE - 1000.0, uptime=10.0)
    device.rtc = device.wall()
    assert not Clock(source=device).latest.trusted


def test_a_synchronised_clock_stays_trusted_without_a_network() -> None:
    device = BenchDevice(BOOTED, kernel=True)
    clock = Clock(source=device)
    device.uptime += 10 * 3600.0
    device.kernel = False
    assert clock.sample().trusted


@pytest.mark.parametrize("seconds", [YEAR, -YEAR, 10.0])
def test_a_clock_set_by_hand_is_not_trusted_until_it_is_synchronised(seconds: float) -> None:
    device = BenchDevice(BOOTED, kernel=True, timesyncd=True)
    clock = Clock(source=device)
    device.kernel = False
    device.booted += seconds
    assert not clock.sample().trusted
    device.uptime += 60.0
    assert not clock.sample().trusted
    device.synchronise(BOOTED)
    assert clock.sample().trusted


def test_timesyncd_alone_is_enough_if_the_clock_was_not_set_since() -> None:
    device = BenchDevice(BOOTED, timesyncd=True)
    assert Clock(source=device).latest.trusted


def test_a_step_is_logged_once_with_its_size() -> None:
    device = BenchDevice(BOOTED)
    clock = Clock(source=device)
    with capture_logs() as logged:
        for _ in range(3):
            device.uptime += 30.0
            clock.sample()
        device.synchronise(BOOTED + YEAR)
        for _ in range(3):
            device.uptime += 30.0
            clock.sample()
    assert [entry["event"] for entry in logged] == ["clock_stepped", "clock_trusted"]
    assert logged[0]["seconds"] == YEAR


def test_suspend_and_ntp_adjustments_are_no_steps() -> None:
    device = BenchDevice(BOOTED)
    clock = Clock(source=device)
    with capture_logs() as logged:
        device.uptime += 5 * 86_400.0
        clock.sample()
        for _ in range(20):
            device.booted += 0.5
            clock.sample()
    assert logged == []
    assert len(clock.segments) == 1


def test_the_segments_of_this_boot_are_remembered() -> None:
    device = BenchDevice(0.0, uptime=5.0)
    clock = Clock(source=device)
    device.uptime = 100.0
    clock.sample()
    device.uptime = 105.0
    device.synchronise(BOOTED)
    clock.sample()
    unset, right = clock.segments
    assert (unset.since, unset.latest.boot_seconds, unset.latest.trusted) == (0.0, 100.0, False)
    assert (right.since, right.latest.boot_time, right.latest.trusted) == (100.0, BOOTED, True)
    assert unset.contains(50.0)
    assert not unset.contains(BOOTED + 50.0)
    assert not unset.contains(500.0)
    assert right.contains(BOOTED + 104.0)
    assert not right.contains(BOOTED)


def test_the_number_of_segments_is_bounded() -> None:
    device = BenchDevice(BOOTED)
    clock = Clock(source=device)
    for _ in range(1000):
        device.booted += 60.0
        clock.sample()
    assert len(clock.segments) <= 16


def test_a_change_of_trust_takes_effect_at_the_next_sample() -> None:
    clock = Clock(source=BenchDevice(BOOTED))
    clock.trust = "always"
    assert clock.sample().trusted


def test_the_clocks_of_this_machine_can_be_read() -> None:
    device = SystemClocks()
    awake_seconds = time.monotonic()
    assert len(bytes.fromhex(device.boot_id())) == 16
    assert device.boot_seconds() >= awake_seconds
    assert abs(device.wall() - time.time()) < 60.0
    assert device.timesyncd_synchronised() == Path("/run/systemd/timesync/synchronized").exists()


def test_the_kernels_clock_error_is_read_as_timedated_reads_it() -> None:
    """Reads the full struct timex of adjtimex(2); the agent declares only its first fields."""

    class Whole(ctypes.Structure):
        _fields_ = (
            ("modes", ctypes.c_uint),
            *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
            ("status", ctypes.c_int),
            ("room", ctypes.c_byte * 512),
        )

    whole = Whole()
    assert ctypes.CDLL(None).adjtimex(ctypes.byref(whole)) >= 0
    assert SystemClocks().kernel_synchronised() == (whole.maxerror < 16_000_000)
