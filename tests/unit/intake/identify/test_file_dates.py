from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.errors import FootageRefused
from agent.intake.identify.presets import Created
from agent.intake.identify.recording import Media
from agent.intake.identify.recording_time import has_local_timestamps, start_by_date, start_by_file, utc_offset_mismatch
from agent.model import Footage

NOW = datetime(2026, 7, 28, 15, 0, tzinfo=timezone.utc)
WRITTEN = datetime(2026, 7, 28, 12, 30, 0, tzinfo=timezone.utc)
JOHANNESBURG = ZoneInfo("Africa/Johannesburg")
BERLIN = ZoneInfo("Europe/Berlin")
NANOSECONDS = 10**9


def footage(closed: datetime = WRITTEN) -> Footage:
    return Footage(Path("/media/card/GOPR1234.MP4"), 1000, int(closed.timestamp()) * NANOSECONDS)


def media(created: datetime | None, seconds: float = 90.5) -> Media:
    return Media("MP4", "avc1", seconds, created)


class TestDateInTheFile:
    NOTED = datetime(2026, 7, 28, 14, 30, 0, tzinfo=timezone.utc)

    @pytest.mark.parametrize(
        ("created", "start", "words"),
        [
            (Created("utc", "start"), "14:30:00", "date in the file, UTC"),
            (Created("utc", "close"), "14:28:29", "date in the file less the duration, UTC"),
            (Created("local", "start"), "12:30:00", "date in the file, the camera's local time"),
            (Created("local", "close"), "12:28:29", "date in the file less the duration, the camera's local time"),
        ],
    )
    def test_it_is_read_as_its_family_writes_it(self, created: Created, start: str, words: str) -> None:
        instant, source = start_by_file(footage(), media(self.NOTED), created, JOHANNESBURG)
        assert (f"{instant.utc:%Y-%m-%d %H:%M:%S}", source) == (f"2026-07-28 {start}", words)

    def test_an_ambiguous_hour_is_noted(self) -> None:
        noted = datetime(2025, 10, 26, 2, 30, 0, tzinfo=timezone.utc)
        instant, _ = start_by_file(footage(), media(noted), Created("local", "start"), BERLIN)
        assert instant.utc == datetime(2025, 10, 26, 0, 30, tzinfo=timezone.utc)
        assert instant.note is not None
        assert "came twice" in instant.note

    @pytest.mark.parametrize(
        "noted",
        [
            None,
            datetime(2000, 1, 1, 0, 3, tzinfo=timezone.utc),
            datetime(2014, 12, 31, tzinfo=timezone.utc),
            datetime(9999, 12, 31, 23, 59, tzinfo=timezone.utc),
        ],
        ids=["none", "clock never set", "before such cameras", "the end of all calendars"],
    )
    def test_an_implausible_one_gives_way_to_the_date_of_the_file(self, noted: datetime | None) -> None:
        instant, source = start_by_file(footage(), media(noted), Created("utc", "start"), JOHANNESBURG)
        assert instant.utc == WRITTEN - timedelta(seconds=91)
        assert source == "date of the file less the duration"

    def test_a_future_date_is_left_to_the_check_against_the_clock(self) -> None:
        noted = NOW + timedelta(days=1)
        instant, _ = start_by_file(footage(), media(noted), Created("utc", "start"), JOHANNESBURG)
        assert instant.utc == noted

    def test_one_of_unknown_meaning_is_ignored(self) -> None:
        instant, source = start_by_file(footage(), media(self.NOTED), None, JOHANNESBURG)
        assert instant.utc == WRITTEN - timedelta(seconds=91)
        assert source == "date of the file less the duration"


class TestZoneOfTheClock:
    """A family that notes true UTC in the file tells whether the zone of the name is right."""

    NOTED = datetime(2026, 7, 28, 12, 1, 30, tzinfo=timezone.utc)
    START = datetime(2026, 7, 28, 12, 0, 0, tzinfo=timezone.utc)

    @pytest.mark.parametrize(
        ("off", "error"),
        [
            (timedelta(0), None),
            (timedelta(seconds=40), None),
            (timedelta(hours=2), timedelta(hours=2)),
            (timedelta(hours=-5, minutes=-45, seconds=20), timedelta(hours=-5, minutes=-45)),
            (timedelta(minutes=7), None),
            (timedelta(days=3), None),
        ],
        ids=["none", "seconds", "a zone ahead", "a zone behind", "no zone", "a clock that was never set"],
    )
    def test_a_zone_difference_is_distinguished_from_a_wrong_clock(
        self, off: timedelta, error: timedelta | None
    ) -> None:
        assert utc_offset_mismatch(self.START + off, media(self.NOTED), Created("utc", "close")) == error

    @pytest.mark.parametrize("created", [None, Created("local", "close")])
    def test_a_date_that_is_not_utc_reveals_no_mismatch(self, created: Created | None) -> None:
        assert utc_offset_mismatch(self.START + timedelta(hours=2), media(self.NOTED), created) is None
        assert utc_offset_mismatch(self.START + timedelta(hours=2), media(None), Created("utc", "close")) is None


class TestDateOfTheFile:
    def test_a_date_out_of_range_is_refused(self) -> None:
        beyond = Footage(Path("GOPR1234.MP4"), 1000, 2**63 * 1000)
        assert start_by_date(beyond, 60.0) is None
        with pytest.raises(FootageRefused, match="neither the name nor the file has a date that can be right"):
            start_by_file(beyond, media(None), None, JOHANNESBURG)


class TestCards:
    """The kinds of card, by what /proc/self/mountinfo says of the device that a file lies on."""

    def mountinfo(self, place: Path, filesystem: str, path: Path) -> Path:
        device = path.stat().st_dev
        lines = [
            "22 27 0:21 / /proc rw,nosuid - proc proc rw",
            f"40 27 {os.major(device)}:{os.minor(device)} / /card rw,noatime shared:1 - {filesystem} /dev/sda1 rw",
        ]
        mounts = place / "mountinfo"
        mounts.write_text("\n".join(lines) + "\n")
        return mounts

    @pytest.mark.parametrize(
        ("filesystem", "local"), [("vfat", True), ("exfat", True), ("ext4", False), ("fuseblk", False)]
    )
    def test_fat_has_local_timestamps(self, tmp_path: Path, filesystem: str, local: bool) -> None:
        path = tmp_path / "x.mp4"
        path.touch()
        assert has_local_timestamps(path, self.mountinfo(tmp_path, filesystem, path)) is local

    def test_an_unknown_mount_is_not_taken_for_fat(self, tmp_path: Path) -> None:
        path = tmp_path / "x.mp4"
        assert not has_local_timestamps(path)
        path.touch()
        assert not has_local_timestamps(path, tmp_path / "missing")
        mounts = tmp_path / "mountinfo"
        mounts.write_text("nonsense\n\n40 27\n")
        assert not has_local_timestamps(path, mounts)

    def test_the_date_of_a_file_on_fat_comes_with_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "GOPR1234.MP4"
        path.touch()
        os.utime(path, (WRITTEN.timestamp(), WRITTEN.timestamp()))
        monkeypatch.setattr("agent.intake.identify.recording_time.MOUNTS", self.mountinfo(tmp_path, "vfat", path))
        on_card = Footage.from_stat(path, path.stat())
        _, source = start_by_file(on_card, media(None), None, JOHANNESBURG)
        assert source == "date of the file less the duration, which this card (FAT) keeps in local time, to 2 s"
