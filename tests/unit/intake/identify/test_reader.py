from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import structlog

from agent.config import (
    Api,
    Config,
    Conform,
    FootageFolder,
    Limits,
    Secret,
    Vehicle,
)
from agent.device.safe_open import open_footage
from agent.errors import FootageGone, FootageIncomplete, FootageRefused
from agent.intake.identify import reader
from agent.intake.identify.presets import PRESETS
from agent.intake.identify.reader import FootageReader, read_media, settings_fingerprint
from agent.intake.identify.recording_time import check_recording_time
from agent.intake.planning import AsIs, PlanSettings, Reject, plan
from agent.media import mp4
from agent.media.ffmpeg import CancelToken
from agent.model import EVENT_PRIORITY, NORMAL_PRIORITY, Clip, ClipKey, Footage
from simulator.recorder import recording
from tests.support.footage import created

NOW = datetime(2026, 7, 28, 15, 0, tzinfo=timezone.utc)
START = datetime(2026, 7, 28, 14, 41, 41, tzinfo=timezone.utc)
NAME = "ABC1234X_1_20260728_144141.mp4"
NAMELESS = "holiday.mp4"
WITHOUT_CONFORMING = Conform(enabled=False)
TIMED = re.compile(r"(?P<start>\d{8}_\d{6})")


def configuration(vehicle: Vehicle, limits: Limits) -> Config:
    api = Api("https://localhost", "user", Secret("password"))
    return Config(file=Path("config.toml"), api=api, vehicle=vehicle, footage=(), limits=limits)


class Card:
    """A footage folder with the settings of a test."""

    def __init__(self, path: Path) -> None:
        self.folder = FootageFolder(path)
        self.vehicle = Vehicle()
        self.limits = Limits()

    def write(self, name: str = NAME, content: bytes | None = None, sidecar: dict[str, Any] | None = None) -> Path:
        path = self.folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(recording(60) if content is None else content)
        if sidecar is not None:
            path.with_suffix(".json").write_text(json.dumps(sidecar))
        return path

    def reader(self) -> FootageReader:
        config = replace(configuration(self.vehicle, self.limits), conform=WITHOUT_CONFORMING)
        return FootageReader(self.folder, config, Event())

    def inspect(self, path: Path) -> Clip:
        with open_footage(path) as opened:
            found = self.reader().read(opened, is_abandoned=True)
        assert found is not None
        check_recording_time(found.start, found.end, NOW)
        chosen = plan(found, PlanSettings(self.limits, WITHOUT_CONFORMING))
        if isinstance(chosen, Reject):
            raise chosen.error
        assert isinstance(chosen, AsIs)
        return chosen.clip

    def refusal(self, path: Path) -> FootageRefused:
        with pytest.raises(FootageRefused) as refused:
            self.inspect(path)
        return refused.value


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path / "media")


def test_footage_with_a_complete_name_becomes_a_clip(card: Card) -> None:
    path = card.write()
    assert card.inspect(path) == Clip(
        Footage.from_stat(path, path.stat()),
        ClipKey("ABC1234X", 1, START, START.replace(minute=42)),
        priority=NORMAL_PRIORITY,
        sources={
            "registration": "file name (plain)",
            "camera": "file name (plain)",
            "start": "file name (plain)",
            "end": "start and the duration in the file's headers",
        },
    )


def test_an_event_goes_first(card: Card) -> None:
    clip = card.inspect(card.write("ABC1234X_1_20260728_144141_event.mp4"))
    assert clip.priority == EVENT_PRIORITY
    assert clip.sources["event"] == "file name (plain): event"
    assert clip.comments == "event"


def test_the_sidecar_overrides_the_name(card: Card) -> None:
    sidecar = {
        "registration": "xyz 987",
        "camera": 4,
        "start": "2026-07-28T10:00:00Z",
        "comments": "late delivery",
        "event": True,
    }
    clip = card.inspect(card.write(sidecar=sidecar))
    assert (clip.key.registration, clip.key.camera, clip.key.start) == (
        "XYZ 987",
        4,
        START.replace(hour=10, minute=0, second=0),
    )
    assert (clip.comments, clip.priority) == ("late delivery", EVENT_PRIORITY)
    assert {clip.sources[key] for key in ("registration", "camera", "start")} == {"sidecar"}
    assert clip.sources["event"] == "sidecar: event"


def test_the_sidecar_corrects_a_wrong_name(card: Card) -> None:
    clip = card.inspect(card.write("ABC1234X_F_20261399_144141.mp4", sidecar={"camera": 1, "start": "20260728T144141"}))
    assert (clip.key.registration, clip.key.camera, clip.key.start) == ("ABC1234X", 1, START)


def test_what_the_name_does_not_say_comes_from_the_folder_and_the_vehicle(card: Card) -> None:
    card.folder = replace(card.folder, pattern=TIMED)
    card.vehicle = Vehicle("ABC1234X", 3)
    clip = card.inspect(card.write("20260728_144141.mp4"))
    assert (clip.key.registration, clip.key.camera) == ("ABC1234X", 3)
    assert (clip.sources["registration"], clip.sources["camera"]) == ("vehicle.registration", "vehicle.camera")

    card.folder = replace(card.folder, registration="FOLDER-1")
    clip = card.inspect(card.write("cam2/20260728_144141.mp4"))
    assert (clip.key.registration, clip.key.camera) == ("FOLDER-1", 2)
    assert (clip.sources["registration"], clip.sources["camera"]) == ("footage.registration", "folder name")


class TestRegistration:
    @pytest.mark.parametrize(
        ("written", "normal"), [(" abc 1234x ", "ABC 1234X"), ("ab-12-cd", "AB-12-CD"), ("กข 1234", "กข 1234")]
    )
    def test_it_is_normalised(self, card: Card, written: str, normal: str) -> None:
        card.vehicle = Vehicle(written)
        assert (
            card.inspect(card.write("cam1/20260728_144141.mp4", sidecar={"start": "20260728T144141"})).key.registration
            == normal
        )

    @pytest.mark.parametrize("written", ["AB  12", "AB_12", "-AB12", "A" * 21, "AB\n12", "   ", "AB/12"])
    def test_an_invalid_one_is_refused_with_what_is_allowed(self, card: Card, written: str) -> None:
        card.vehicle = Vehicle(written, 1)
        reason = card.refusal(card.write(NAMELESS, sidecar={"start": "20260728T144141"})).reason
        assert "(vehicle.registration) cannot be right: allowed are 1 to 20 letters and digits" in reason
        assert "\n" not in reason

    def test_without_one_the_refusal_names_the_ways_to_set_it(self, card: Card) -> None:
        refusal = card.refusal(card.write("cam1/x.mp4", sidecar={"start": "20260728T144141"}))
        for way in ("[vehicle]", "this folder", "pattern", "sidecar"):
            assert way in refusal.reason
        assert refusal.retry_after_seconds == 600


class TestCamera:
    def test_without_one_the_refusal_names_the_ways_to_set_it(self, card: Card) -> None:
        refusal = card.refusal(card.write(NAMELESS, sidecar={"start": "20260728T144141", "registration": "A1"}))
        for way in ("[vehicle]", "pattern", "ch1", "sidecar"):
            assert way in refusal.reason

    def test_an_unmapped_letter_is_refused_not_guessed(self, card: Card) -> None:
        card.vehicle = Vehicle(camera=1)
        assert "cameras = { R = 1 }" in card.refusal(card.write("ABC1234X_R_20260728_144141.mp4")).reason

    def test_the_default_channel_of_a_family_is_the_last_resort(self, card: Card) -> None:
        path = card.write("2026_0728_144141_021.MP4", sidecar={"registration": "A1"})
        clip = card.inspect(path)
        assert (clip.key.camera, clip.sources["camera"]) == (1, "the usual channel of novatek")
        card.vehicle = Vehicle(camera=3)
        assert card.inspect(path).key.camera == 3

    def test_a_name_that_fits_two_families_is_refused_until_one_is_chosen(
        self, card: Card, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rival = replace(PRESETS["vantrue"], name="rival", cameras={"a": 2})
        monkeypatch.setitem(PRESETS, "rival", rival)
        card.vehicle = Vehicle("ABC1234X")
        path = card.write("20260728_144141_0012_N_A.MP4")
        assert 'set preset = "vantrue"' in card.refusal(path).reason
        card.folder = replace(card.folder, preset="rival")
        assert card.inspect(path).key.camera == 2


class TestTime:
    def test_without_a_time_in_the_name_the_date_in_the_file_is_used(self, card: Card) -> None:
        card.vehicle = Vehicle("ABC1234X")
        card.folder = replace(card.folder, timezone=ZoneInfo("Africa/Johannesburg"))
        path = card.write("100GOPRO/GX010123.MP4", created(recording(60), datetime(2026, 7, 28, 14, 42, 41)))
        clip = card.inspect(path)
        assert clip.key.start == START.replace(hour=12)
        assert clip.sources["start"] == "date in the file less the duration, the camera's local time"

    def test_without_that_the_date_of_the_file_is_used(self, card: Card) -> None:
        card.vehicle = Vehicle("ABC1234X")
        path = card.write("100EVENT/GRMN0001.MP4")
        os.utime(path, (START.timestamp() + 60.4, START.timestamp() + 60.4))
        clip = card.inspect(path)
        assert (clip.key.start, clip.sources["start"]) == (START, "date of the file less the duration")
        assert (clip.priority, clip.sources["event"]) == (EVENT_PRIORITY, "folder 100EVENT: event")

    def test_a_fat_date_does_not_resolve_an_ambiguous_hour(self, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "has_local_timestamps", lambda path: True)
        card.folder = replace(card.folder, timezone=ZoneInfo("Europe/Berlin"))
        path = card.write("ABC1234X_1_20251026_023030.mp4")
        modified = datetime(2025, 10, 26, 1, 31, 30, tzinfo=timezone.utc).timestamp()
        os.utime(path, (modified, modified))
        assert card.inspect(path).key.start.hour == 0

    def test_the_camera_clock_is_in_the_zone_of_its_folder(self, card: Card) -> None:
        card.folder = replace(card.folder, timezone=ZoneInfo("Africa/Johannesburg"))
        assert card.inspect(card.write()).key.start == START.replace(hour=12)

    @pytest.mark.parametrize(("written", "hour"), [("00:31:30", 0), ("01:31:30", 1)], ids=["first time", "second time"])
    def test_an_ambiguous_hour_is_resolved_by_the_file_date_and_logged(
        self, card: Card, written: str, hour: int
    ) -> None:
        card.folder = replace(card.folder, timezone=ZoneInfo("Europe/Berlin"))
        path = card.write("ABC1234X_1_20251026_023030.mp4")
        modified = datetime.fromisoformat(f"2025-10-26T{written}+00:00").timestamp()
        os.utime(path, (modified, modified))
        with structlog.testing.capture_logs() as logs:
            clip = card.inspect(path)
        assert clip.key.start == datetime(2025, 10, 26, hour, 30, 30, tzinfo=timezone.utc)
        assert "came twice" in clip.sources["start"]
        assert [entry["note"] in clip.sources["start"] for entry in logs] == [True]

    def test_a_file_date_out_of_range_is_ignored(self, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
        path = card.write()
        beyond = replace(Footage.from_stat(path, path.stat()), modified_ns=2**63 * 1000)
        monkeypatch.setattr(Footage, "from_stat", lambda path, stat: beyond)
        assert card.inspect(path).key.start == START

    @pytest.mark.parametrize(
        ("name", "pattern", "read_by"),
        [(NAMELESS, None, "preset auto"), (NAMELESS, TIMED, "the folder's pattern")],
    )
    def test_without_a_time_the_refusal_names_what_was_tried_and_the_remedies(
        self, card: Card, name: str, pattern: re.Pattern[str] | None, read_by: str
    ) -> None:
        card.folder = replace(card.folder, pattern=pattern)
        refusal = card.refusal(card.write(name))
        assert refusal.reason.startswith(
            f"no recording time: {read_by} reads none from the name. Give the folder a pattern"
        )
        assert refusal.retry_after_seconds == 600

    def test_an_impossible_time_is_refused_with_its_parts(self, card: Card) -> None:
        reason = card.refusal(card.write("ABC1234X_1_20261328_144141.mp4")).reason
        assert "m=13" in reason

    def test_a_camera_whose_clock_was_never_set_is_refused(self, card: Card) -> None:
        assert "is before 2015" in card.refusal(card.write("ABC1234X_1_20000101_000000.mp4")).reason

    def test_a_recording_from_the_future_is_retried(self, card: Card) -> None:
        refusal = card.refusal(card.write("ABC1234X_1_20270101_000000.mp4"))
        assert "is in the future" in refusal.reason
        assert refusal.retry_after_seconds == 3600


class TestDuration:
    @pytest.mark.parametrize(("seconds", "whole"), [(0.04, 1), (1.4, 1), (59.6, 60), (300.0, 300), (300.4, 300)])
    def test_it_is_rounded_to_whole_seconds_and_at_least_one(self, card: Card, seconds: float, whole: int) -> None:
        assert card.inspect(card.write(content=recording(seconds))).key.duration_seconds == whole

    def test_more_than_the_limit_is_refused_with_the_setting_and_the_remedy(self, card: Card) -> None:
        reason = card.refusal(card.write(content=recording(300.6))).reason
        assert reason == "it lasts 301 s and the limit is 300 s (limits.max_seconds): set a shorter loop in the camera"

    def test_no_duration_is_refused(self, card: Card) -> None:
        assert "no duration" in card.refusal(card.write(content=recording(0))).reason

    def test_an_absurd_duration_is_refused_and_does_not_overflow(self, card: Card) -> None:
        content = bytearray(recording(60))
        at = content.index(b"mdhd")
        content[at + 16 : at + 24] = b"\x00\x00\x00\x01\xff\xff\xff\xfe"
        assert "it lasts 4,294,967,294 s" in card.refusal(card.write(content=bytes(content))).reason


class TestSize:
    def test_exactly_the_limit_passes(self, card: Card) -> None:
        card.limits = Limits(max_bytes=20_000)
        assert card.inspect(card.write(content=recording(60, size_bytes=20_000))).footage.size_bytes == 20_000

    def test_a_byte_more_is_refused_with_the_setting_and_the_remedy(self, card: Card) -> None:
        card.limits = Limits(max_bytes=20_000)
        reason = card.refusal(card.write(content=recording(60, size_bytes=20_001))).reason
        assert reason == (
            "it has 20,001 bytes and the limit is 20,000 (limits.max_bytes): "
            "set a shorter loop or a lower bitrate in the camera"
        )


class TestFormat:
    @pytest.mark.parametrize(
        ("before", "after", "sentence"),
        [
            (b"avc1\0\0", b"hvc1\0\0", "switch the camera from H.265/HEVC to H.264"),
            (b"avc1\0\0", b"hev1\0\0", "switch the camera from H.265/HEVC to H.264"),
            (b"avc1\0\0", b"mp4v\0\0", "its video is MPEG-4 Part 2, which is not taken: switch the camera to H.264"),
            (b"avc1\0\0", b"xyz1\0\0", "its video is xyz1"),
            (b"avc1\0\0", b"\x1b[2J\0\0", r"its video is \x1b[2J"),
            (b"vide", b"soun", "it has no video track"),
            (b"ftypisom", b"ftypqt  ", "switch the camera from MOV to MP4"),
        ],
    )
    def test_what_the_api_does_not_take_is_refused_with_the_remedy(
        self, card: Card, before: bytes, after: bytes, sentence: str
    ) -> None:
        content = recording(60).replace(before, after)
        assert content != recording(60)
        assert sentence in card.refusal(card.write(content=content)).reason

    def test_avc3_is_h264_too(self, card: Card) -> None:
        assert card.inspect(card.write(content=recording(60).replace(b"avc1\0\0", b"avc3\0\0"))).key.start == START

    def test_what_a_name_says_can_never_be_used_is_not_even_read(
        self, card: Card, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(mp4, "read")
        assert "overwrite in place" in card.refusal(card.write("datadir0/hiv00001.mp4")).reason

    def test_a_file_of_another_kind_is_refused(self, card: Card) -> None:
        refusal = card.refusal(card.write(content=b"\x1aE\xdf\xa3" + bytes(100)))
        assert "Matroska" in refusal.reason
        assert not isinstance(refusal, FootageIncomplete)

    def test_an_incomplete_recording_may_still_be_completed(self, card: Card) -> None:
        path = card.write(content=recording(60, size_bytes=20_000)[:12_000])
        with open_footage(path) as opened:
            assert card.reader().read(opened, is_abandoned=False) is None
            with pytest.raises(FootageIncomplete, match="cut by a power loss"):
                read_media(opened, WITHOUT_CONFORMING, CancelToken(Event()))


class TestFileSystem:
    def test_a_file_that_vanished_is_gone(self, card: Card) -> None:
        with pytest.raises(FootageGone):
            card.inspect(card.folder.path / NAME)

    def test_a_symbolic_link_is_refused(self, card: Card) -> None:
        path = card.write("elsewhere.mp4")
        path.with_name(NAME).symlink_to(path)
        assert "symbolic link" in card.refusal(path.with_name(NAME)).reason

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_file_that_changes_while_it_is_read_is_gone(
        self, card: Card, whole: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = card.write(content=recording(60) if whole else recording(60)[:-100])
        real_read = mp4.read

        def read_while_written(file: io.BufferedReader) -> mp4.Movie:
            with path.open("ab") as writer:
                writer.write(b"more")
            return real_read(file)

        monkeypatch.setattr(mp4, "read", read_while_written)
        with pytest.raises(FootageGone, match="changed while it was read"):
            card.inspect(path)

    def test_a_name_that_is_not_unicode_is_no_obstacle(self, card: Card) -> None:
        path = card.write("caf\udce9/" + NAME)
        assert card.inspect(path).footage.path == path

    def test_an_ignored_sidecar_is_logged(self, card: Card) -> None:
        path = card.write()
        path.with_suffix(".json").write_text("[]")
        with structlog.testing.capture_logs() as logs:
            card.inspect(path)
        assert [entry["event"] for entry in logs] == ["footage_note"]

    def test_inspection_reads_little_whatever_the_file_size(self, card: Card) -> None:
        small, large = card.write(), card.write("ABC1234X_2_20260728_144141.mp4", recording(60, size_bytes=40_000_000))

        def bytes_read(path: Path) -> int:
            before = _bytes_read_so_far()
            card.inspect(path)
            return _bytes_read_so_far() - before

        card.inspect(small)
        assert bytes_read(large) < 40_000


def _bytes_read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


class TestSettingsFingerprint:
    FOLDER = FootageFolder(Path("/media"), pattern=TIMED, cameras={"F": 1, "R": 2})

    def fingerprint(
        self,
        folder: FootageFolder = FOLDER,
        vehicle: Vehicle = Vehicle(),  # noqa: B008 - frozen
        limits: Limits = Limits(),  # noqa: B008 - frozen
        conform: Conform = Conform(),  # noqa: B008 - frozen
    ) -> str:
        return settings_fingerprint(folder, vehicle, limits, conform)

    def test_it_is_the_same_for_the_same_settings(self) -> None:
        cameras = MappingProxyType({"R": 2, "F": 1})
        assert self.fingerprint() == self.fingerprint(replace(self.FOLDER, cameras=cameras, timezone=ZoneInfo("UTC")))
        assert re.fullmatch("[0-9a-f]{16}", self.fingerprint())

    @pytest.mark.parametrize(
        "change",
        [
            {"folder": replace(FOLDER, timezone=ZoneInfo("Asia/Tokyo"))},
            {"folder": replace(FOLDER, cameras={"F": 1})},
            {"folder": replace(FOLDER, pattern=re.compile("x"))},
            {"folder": replace(FOLDER, pattern=re.compile(TIMED.pattern, re.IGNORECASE))},
            {"folder": replace(FOLDER, registration="A")},
            {"vehicle": Vehicle(camera=1)},
            {"limits": Limits(max_seconds=60)},
            {"conform": Conform(enabled=False)},
        ],
    )
    def test_it_changes_with_each_setting_that_decides(self, change: dict[str, Any]) -> None:
        assert self.fingerprint(**change) != self.fingerprint()

    def test_it_changes_with_the_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.fingerprint()
        monkeypatch.setattr(reader, "__version__", "99.0")
        assert self.fingerprint() != before

    def test_the_reader_carries_it(self) -> None:
        reader = FootageReader(self.FOLDER, configuration(Vehicle(), Limits()), Event())
        assert reader.fingerprint.removesuffix("-with-ffmpeg") == self.fingerprint()
