from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.device.clock import Clock
from agent.errors import FootageRefused
from agent.intake.identify.recording_time import resolve_against_clock
from agent.model import Clip, ClipKey, Footage, UntrustedClock
from tests.support.clocks import BOOT, BenchDevice

RIGHT = 1_790_000_000.0  # when the device booted, by the right time
UNSET = 0.0
DAYS_BEHIND = RIGHT - 3 * 86_400.0
CLOCKS = pytest.mark.parametrize("wrong", [UNSET, DAYS_BEHIND, RIGHT - 1000.0, RIGHT + 365 * 86_400.0])


def clip(start: float, *, written: float, seconds: float = 60.0) -> Clip:
    begin = datetime.fromtimestamp(round(start), tz=timezone.utc)
    video = ClipKey("ABC1234X", 1, begin, begin + timedelta(seconds=seconds))
    return Clip(Footage(Path("/card/a.mp4"), 1000, int(written * 1e9)), video, sources={"start": "file name"})


def start_of(clip: Clip) -> float:
    return clip.key.start.timestamp()


def unset_until(device: BenchDevice, uptime: float) -> Clock:
    """A clock that is looked at until so many seconds after the boot."""
    clock = Clock(source=device)
    device.uptime = uptime
    clock.sample()
    return clock


@CLOCKS
def test_footage_recorded_by_an_unset_clock_is_held(wrong: float) -> None:
    clock = unset_until(BenchDevice(wrong), 200.0)
    recorded = clip(wrong + 100.0, written=wrong + 162.0)
    (held,) = resolve_against_clock([recorded], clock.segments)
    assert held == replace(recorded, clock=UntrustedClock(BOOT, round(wrong), 2))


@CLOCKS
def test_footage_being_recorded_when_the_clock_was_set_is_corrected(wrong: float) -> None:
    """The first recording of nearly every trip: named before the network is there, closed after."""
    device = BenchDevice(wrong)
    clock = unset_until(device, 110.0)
    device.synchronise(RIGHT)
    device.uptime = 170.0
    clock.sample()
    (correct_clip,) = resolve_against_clock([clip(wrong + 100.0, written=RIGHT + 162.0)], clock.segments)
    assert correct_clip.clock is None
    assert start_of(correct_clip) == RIGHT + 100.0
    assert correct_clip.key.duration_seconds == 60
    assert correct_clip.sources["start"].startswith("file name, ")
    assert "before it was set" in correct_clip.sources["start"]


@CLOCKS
def test_footage_noticed_only_after_the_clock_was_set_is_corrected(wrong: float) -> None:
    device = BenchDevice(wrong)
    clock = unset_until(device, 200.0)
    device.synchronise(RIGHT)
    device.uptime = 210.0
    clock.sample()
    (correct_clip,) = resolve_against_clock([clip(wrong + 100.0, written=wrong + 162.0)], clock.segments)
    assert start_of(correct_clip) == RIGHT + 100.0


@CLOCKS
def test_footage_recorded_after_the_clock_was_set_is_unchanged(wrong: float) -> None:
    device = BenchDevice(wrong)
    clock = unset_until(device, 200.0)
    device.synchronise(RIGHT)
    device.uptime = 900.0
    clock.sample()
    recorded = clip(RIGHT + 300.0, written=RIGHT + 362.0)
    assert resolve_against_clock([recorded], clock.segments) == [recorded]


def test_a_camera_with_a_right_clock_of_its_own_is_unchanged() -> None:
    """The device is two minutes behind: the name and the file's date agree only roughly."""
    device = BenchDevice(RIGHT - 120.0)
    clock = unset_until(device, 200.0)
    recorded = clip(RIGHT + 100.0, written=RIGHT - 120.0 + 162.0)
    (held,) = resolve_against_clock([recorded], clock.segments)
    assert held.clock is not None
    assert held.clock.offset_seconds(RIGHT) == 0
    device.synchronise(RIGHT)
    device.uptime = 210.0
    clock.sample()
    assert resolve_against_clock([recorded], clock.segments) == [recorded]


def test_a_camera_ahead_of_an_unset_clock_is_held_not_refused() -> None:
    clock = unset_until(BenchDevice(DAYS_BEHIND), 200.0)
    (held,) = resolve_against_clock([clip(RIGHT + 100.0, written=DAYS_BEHIND + 162.0)], clock.segments)
    assert held.clock is not None
    assert not held.clock.is_time_source
    assert held.clock.offset_seconds(RIGHT) == 0


def test_a_camera_ahead_of_a_clock_that_is_trusted_is_refused() -> None:
    clock = Clock(source=BenchDevice(RIGHT, kernel=True))
    with pytest.raises(FootageRefused, match="in the future"):
        resolve_against_clock([clip(RIGHT + 1000.0, written=RIGHT + 60.0)], clock.segments)


def test_footage_of_a_camera_with_its_own_clock_is_not_held() -> None:
    clock = unset_until(BenchDevice(RIGHT), 200.0)
    recorded = clip(RIGHT - 86_400.0, written=RIGHT - 86_300.0)
    assert resolve_against_clock([recorded], clock.segments) == [recorded]


def test_a_camera_whose_own_clock_was_never_set_is_refused() -> None:
    clock = unset_until(BenchDevice(DAYS_BEHIND), 200.0)
    with pytest.raises(FootageRefused, match="before 2015"):
        resolve_against_clock([clip(946_684_800.0, written=DAYS_BEHIND + 100.0)], clock.segments)


def test_footage_of_an_earlier_unset_boot_is_not_matched_to_this_boot() -> None:
    clock = unset_until(BenchDevice(UNSET), 30.0)
    (held,) = resolve_against_clock([clip(UNSET + 900.0, written=UNSET + 961.0)], clock.segments)
    assert held.clock is not None
    assert held.clock.boot_id != BOOT
    assert held.clock.is_time_source


def test_the_clips_of_one_recording_are_checked_as_one() -> None:
    """Only the end of the last piece lies near the file's date."""
    clock = unset_until(BenchDevice(UNSET), 2000.0)
    pieces = [clip(UNSET + 100.0 + 290.0 * n, written=UNSET + 1261.0, seconds=290.0) for n in range(4)]
    held = resolve_against_clock(pieces, clock.segments)
    assert {piece.clock for piece in held} == {UntrustedClock(BOOT, 0, 1)}


def test_a_clock_that_proves_right_changes_nothing() -> None:
    device = BenchDevice(RIGHT)
    clock = unset_until(device, 200.0)
    recorded = clip(RIGHT + 100.0, written=RIGHT + 162.0)
    (held,) = resolve_against_clock([recorded], clock.segments)
    assert held.clock is not None
    device.synchronise(RIGHT + 1.0)
    device.uptime = 210.0
    clock.sample()
    assert resolve_against_clock([recorded], clock.segments) == [recorded]
