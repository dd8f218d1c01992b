"""Cards of known camera families, with a real daemon: footage arrives as the right camera's, at the right time."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.model import EVENT_PRIORITY, State
from agent.spool.records import Record
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.daemon import DaemonProcess, await_until

pytestmark = pytest.mark.daemon

JOHANNESBURG = {
    "api": "stall_timeout_seconds = 3600",
    "vehicle": 'registration = "ABC1234X"',
    "[footage]": 'timezone = "Africa/Johannesburg"',
    "upload": "batch_clips = 1",
}
LOCKED = "DCIM/Movie/RO/2026_0728_141441_001F.MP4"
FREE = "DCIM/Movie/2026_0728_141441_001F.MP4"
OTHER = "DCIM/Movie/2026_0728_141541_002F.MP4"


class Camera(DaemonProcess):
    """A daemon with a card that a camera in Johannesburg writes."""

    def __enter__(self) -> Camera:
        self.start()
        return self

    def write(self, name: str, seed: str = "", written: datetime | None = None) -> Path:
        path = self.footage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(".being-written")
        hidden.write_bytes(recording(2.0, seed=seed or name))
        if written is not None:
            os.utime(hidden, (written.timestamp(), written.timestamp()))
        hidden.rename(path)
        return path

    def move(self, name: str, to: str) -> None:
        target = self.footage / to
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.footage / name).rename(target)

    def record_of(self, name: str) -> Record | None:
        return next((record for record in self.records() if str(record.footage.path).endswith(name)), None)

    def await_known(self, name: str) -> None:
        """Waits until the agent has noticed the new path of a clip."""
        await_until(lambda: self.record_of(name) is not None, f"{name} to be noticed", 120)


def test_a_card_with_the_footage_of_many_families_arrives_as_it_was_recorded(tmp_path: Path) -> None:
    at = datetime(2026, 7, 28, 12, 14, 41, tzinfo=timezone.utc)
    expected = {
        "BlackVue/Record/20260728_141441_EF.mp4": (1, at, "event"),
        "DCIM/Movie/Parking/2026_0728_141441_000123PR.MP4": (2, at, "parking"),
        "DCIM/100MEDIA/20260728_141442_0012_N_C.MP4": (3, at + timedelta(seconds=1), ""),
        "TeslaCam/SavedClips/2026-07-28_14-24-41/2026-07-28_14-14-41-left_repeater.mp4": (3, at, "saved"),
        "2026-07-28/009/dav/14/14.14.41-14.15.14[M][0@0][0].mp4": (9, at, "motion"),
        "frigate/2026-07-28/14/cam8/14.41.mp4": (8, at + timedelta(hours=2), ""),
        "DCIM/100GOPRO/GX010123.MP4": (1, at + timedelta(hours=1), ""),
    }
    with Simulator() as simulator, Camera(tmp_path, simulator.base_url, JOHANNESBURG) as camera:
        for name in expected:
            camera.write(name, written=at + timedelta(hours=1, seconds=2))
        camera.write("BlackVue/Record/20260728_141441_EFS.mp4")
        camera.await_records(len(expected), State.DELIVERED, seconds=120)
        received = {(video.registration, video.camera, video.start, video.comments) for video in simulator.received}
        assert received == {
            ("ABC1234X", channel, f"{start:%Y-%m-%d %H:%M:%S}", comment)
            for channel, start, comment in expected.values()
        }
        gopro = camera.record_of("GX010123.MP4")
        assert gopro is not None
        assert gopro.sources["start"] == "date of the file less the duration"
        assert len(camera.records()) == len(expected)
        assert "date of the file less the duration" in camera.command("why", "GX010123.MP4").stdout


def test_a_clip_that_is_locked_while_it_waits_goes_first_and_once(tmp_path: Path) -> None:
    with Simulator() as simulator, Camera(tmp_path, simulator.base_url, JOHANNESBURG) as camera:
        simulator.faults.add(Fault("answer", times=0, status=503))
        camera.write(OTHER)
        camera.await_records(1, State.WAITING)
        camera.write(FREE)
        camera.await_records(2, State.WAITING)
        camera.move(FREE, LOCKED)
        camera.await_known(LOCKED)
        record = camera.record_of(LOCKED)
        assert record is not None
        assert record.priority == EVENT_PRIORITY
        simulator.faults.clear()
        camera.await_records(2, State.DELIVERED, seconds=120)
        assert [video.start for video in simulator.received] == ["2026-07-28 12:14:41", "2026-07-28 12:15:41"]
        assert [video.updates for video in simulator.received] == [0, 0]
        assert [video.comments for video in simulator.received] == ["locked", ""]


@pytest.mark.slow
def test_a_clip_that_is_locked_while_it_is_sent_is_delivered_once(tmp_path: Path) -> None:
    with Simulator() as simulator, Camera(tmp_path, simulator.base_url, JOHANNESBURG) as camera:
        simulator.faults.add(Fault("stall", times=0, path="upload", after_bytes=1000, seconds=3600))
        camera.write(FREE)
        camera.await_records(1, State.SENDING)
        camera.move(FREE, LOCKED)
        camera.await_known(LOCKED)
        assert [record.state for record in camera.records()] == [State.SENDING]
        camera.stop()
        simulator.faults.clear()
        camera.start()
        camera.await_records(1, State.DELIVERED)
        assert [video.updates for video in simulator.received] == [0]


@pytest.mark.parametrize("restarted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_clip_that_is_locked_after_its_delivery_is_not_sent_again(tmp_path: Path, restarted: bool) -> None:
    with Simulator() as simulator, Camera(tmp_path, simulator.base_url, JOHANNESBURG) as camera:
        camera.write(FREE)
        camera.await_records(1, State.DELIVERED)
        if restarted:
            camera.stop()
        camera.move(FREE, LOCKED)
        if restarted:
            camera.start()
        camera.await_known(LOCKED)
        camera.write(OTHER)
        camera.await_records(2, State.DELIVERED)
        assert [video.updates for video in simulator.received] == [0, 0]
        assert len(camera.records()) == 2


def test_new_footage_under_an_old_name_is_delivered_as_new(tmp_path: Path) -> None:
    first = datetime(2026, 7, 28, 12, 0, 2, tzinfo=timezone.utc)
    with Simulator() as simulator, Camera(tmp_path, simulator.base_url, JOHANNESBURG) as camera:
        for number in range(3):
            camera.write("DCIM/100GOPRO/GX010123.MP4", f"take {number}", first + timedelta(hours=number))
            camera.await_records(number + 1, State.DELIVERED)
        assert [video.start for video in simulator.received] == [f"2026-07-28 {hour}:00:00" for hour in (12, 13, 14)]


def test_a_ring_that_is_overwritten_in_place_is_listed_once(tmp_path: Path) -> None:
    with Simulator() as simulator, Camera(tmp_path, simulator.base_url, JOHANNESBURG) as camera:
        block = camera.footage / "hiv00000.mp4"
        for number in range(3):
            with block.open("ab") as ring:
                ring.write(b"\0\0\1\xba" * 1000)
            camera.write(f"DCIM/Movie/2026_0728_141{number}00_00{number}F.MP4")
            camera.await_records(number + 1, State.DELIVERED)
        (refused,) = camera.await_records(1, State.REFUSED)
        assert refused.footage.path == block
        assert "overwrite in place" in refused.reason
