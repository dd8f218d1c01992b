from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.config import FootageFolder
from agent.errors import printable
from agent.intake.identify.filename import Naming, read_name
from agent.intake.identify.presets import EVENT, LOCKED, PARKING, PRESETS, Created, Preset, tag_for_folder

AT = datetime(2026, 7, 28, 14, 41, 41)
CLOCK = r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)"


def folder(
    pattern: str | None = None,
    *,
    path: str = "/media/card",
    preset: str = "auto",
    cameras: Mapping[str, int] = MappingProxyType({}),
) -> FootageFolder:
    compiled = re.compile(pattern, re.IGNORECASE) if pattern else None
    return FootageFolder(Path(path), pattern=compiled, preset=preset, cameras=cameras)


def test_a_preset_can_be_chosen_by_name() -> None:
    assert read_name("ABC1234X_1_20260728_144141.mp4", folder(preset="plain")).start == AT
    assert read_name("ABC1234X_1_20260728_144141.mp4", folder(preset="viofo")).start is None


def test_a_name_that_no_preset_matches_has_no_values() -> None:
    found = read_name("holiday.MP4", folder())
    assert (found.registration, found.camera, found.start, found.event, found.faults) == (None, None, None, None, {})


class TestPattern:
    def test_its_groups_match_the_path_below_the_folder(self) -> None:
        found = read_name(
            "ABC1234X/2/20260728_144141_P.mp4", folder(rf"^(?P<registration>\w+)/(?P<camera>\d)/{CLOCK}_(?P<event>P)?")
        )
        assert (found.registration, found.camera, found.start, found.event) == ("ABC1234X", 2, AT, EVENT)
        assert found.sources["registration"] == "file name (pattern)"

    def test_a_pattern_replaces_the_presets(self) -> None:
        assert read_name("ABC1234X_1_20260728_144141.mp4", folder(r"(?P<camera>\d)_")).start is None

    @pytest.mark.parametrize("name", ["2026-07-28T14-41-41.mp4", "20260728144141.mp4", "x 20260728_144141.mp4"])
    def test_the_group_start_takes_iso_8601(self, name: str) -> None:
        assert read_name(name, folder(r"(?P<start>\d{4}[-\dT_]+)")).start == AT

    def test_a_start_with_a_zone_keeps_it(self) -> None:
        found = read_name("20260728T144141+0200.mp4", folder(r"(?P<start>[\dT+]+)"))
        assert found.start == AT.replace(tzinfo=timezone(timedelta(hours=2)))

    def test_a_two_digit_year_is_of_this_century_and_seconds_are_optional(self) -> None:
        found = read_name("2607281441.mp4", folder(r"(?P<y>\d\d)(?P<m>\d\d)(?P<d>\d\d)(?P<H>\d\d)(?P<M>\d\d)"))
        assert found.start == datetime(2026, 7, 28, 14, 41)

    def test_a_date_without_a_time_is_no_start(self) -> None:
        assert read_name("20260728.mp4", folder(r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)")).start is None

    def test_empty_or_blank_groups_have_no_value(self) -> None:
        found = read_name("   -144141.mp4", folder(r"(?P<registration>.*)-(?P<event>x?)(?P<camera>y)?"))
        assert (found.registration, found.camera, found.event) == (None, None, None)

    @pytest.mark.parametrize(
        ("name", "what"),
        [("20261328_144141.mp4", "month must be in 1..12"), ("20260230_144141.mp4", "day is out of range")],
    )
    def test_an_impossible_date_is_a_fault_that_shows_the_name_and_its_parts(self, name: str, what: str) -> None:
        found = read_name(name, folder(CLOCK))
        assert found.start is None
        assert name in found.faults["start"]
        assert f"Y=2026 m={name[4:6]} d={name[6:8]} H=14 M=41 S=41" in found.faults["start"]
        assert what in found.faults["start"]

    @pytest.mark.parametrize("name", ["20269999T144141", "Jan", "9" * 40])
    def test_an_invalid_start_group_is_a_fault(self, name: str) -> None:
        assert f"start={name}" in read_name(f"{name}.mp4", folder(r"^(?P<start>\w+)")).faults["start"]

    def test_a_number_out_of_range_is_a_fault(self) -> None:
        pattern = r"(?P<Y>\d+)-(?P<m>\d)-(?P<d>\d)-(?P<H>\d)-(?P<M>\d)"
        assert "impossible time" in read_name(f"{'9' * 40}-1-1-1-1.mp4", folder(pattern)).faults["start"]

    def test_undecodable_bytes_in_a_name_are_matched_and_shown_escaped(self) -> None:
        found = read_name("caf\udce9_20261328_144141.mp4", folder(CLOCK))
        assert r"caf\udce9_20261328" in found.faults["start"]

    def test_an_overlong_path_is_not_searched(self) -> None:
        found = read_name("a/" * 600 + "20260728_144141.mp4", folder(CLOCK))
        assert found == Naming(faults={"start": "the path is longer than 255 characters and was not read"})


class TestCamera:
    def test_a_camera_letter_is_mapped_by_the_folder_ignoring_case(self) -> None:
        assert read_name("20260728_r.mp4", folder(r"_(?P<camera>[a-z])\.", cameras={"R": 2})).camera == 2

    def test_the_folder_may_map_a_number_to_another_channel(self) -> None:
        assert read_name("x_1.mp4", folder(r"_(?P<camera>\d)\.", cameras={"1": 9})).camera == 9

    def test_an_unmapped_letter_is_a_fault_with_the_entry_to_add(self) -> None:
        found = read_name("cam1/x_R.mp4", folder(r"_(?P<camera>[A-Z])\.", cameras={"F": 1}))
        assert found.camera is None
        assert "cameras = { R = 2 }" in found.faults["camera"]

    def test_a_word_that_toml_must_quote_is_shown_quoted(self) -> None:
        found = read_name("x_left side.mp4", folder(r"_(?P<camera>[a-z ]+)\."))
        assert 'cameras = { "left side" = 1 }' in found.faults["camera"]

    def test_a_number_that_is_no_channel_is_a_fault(self) -> None:
        found = read_name("x_20260728.mp4", folder(r"_(?P<camera>\d+)\."))
        assert found.faults["camera"] == "camera 20260728 in the name is no channel: allowed are 0 to 255"

    @pytest.mark.parametrize(
        ("name", "camera"),
        [("ch1", 1), ("CH02", 2), ("cam3", 3), ("camera_4", 4), ("Camera1", 1), ("channel-2", 2), ("cam 12", 12)],
    )
    def test_a_folder_named_after_a_camera_gives_the_channel(self, name: str, camera: int) -> None:
        found = read_name(f"{name}/2026/x.mp4", folder())
        assert found.camera == camera
        assert found.sources["camera"] == "folder name"

    @pytest.mark.parametrize("name", ["champion", "2", "cam", "camera999", "chap1", "mycam1"])
    def test_other_folders_give_no_channel(self, name: str) -> None:
        assert read_name(f"{name}/x.mp4", folder()).camera is None

    def test_a_file_name_may_use_the_same_camera_words(self) -> None:
        assert read_name("cam_7-x.mp4", folder(r"^(?P<camera>\w+)-")).camera == 7

    def test_the_default_channel_of_a_family_is_kept_apart(self) -> None:
        found = read_name("2016_1119_113330_021.MOV", folder())
        assert (found.camera, found.default_camera) == (None, 1)
        assert read_name("cam4/2016_1119_113330_021.MOV", folder()).camera == 4

    def test_the_nearest_folder_wins_and_the_file_name_over_it(self) -> None:
        assert read_name("cam1/cam2/x.mp4", folder()).camera == 2
        assert read_name("cam1/x_7.mp4", folder(r"_(?P<camera>\d)\.")).camera == 7

    def test_the_watched_folder_itself_may_be_named_after_the_camera(self) -> None:
        assert read_name("x.mp4", folder(path="/media/cam5")).camera == 5

    def test_a_folder_may_be_named_by_a_word_of_the_cameras_setting(self) -> None:
        assert read_name("Rear/x.mp4", folder(cameras={"Rear": 2})).camera == 2


class TestPresetsWithWordsOfTheirOwn:
    @pytest.fixture(autouse=True)
    def family(self, monkeypatch: pytest.MonkeyPatch) -> None:
        family = Preset(
            "family",
            "a family",
            re.compile(rf"family-{CLOCK}_(?P<event>[A-Z])(?P<camera>[A-Z])\.mp4$", re.IGNORECASE),
            examples={"family-20260728_144141_NF.mp4": ""},
            cameras={"f": 1, "r": 2},
            clock="utc",
            event_tags={"e": EVENT, "p": PARKING},
        )
        monkeypatch.setitem(PRESETS, "family", family)

    def test_its_clock_may_run_on_utc(self) -> None:
        assert read_name("family-20260728_144141_NF.mp4", folder()).start == AT.replace(tzinfo=timezone.utc)

    def test_its_camera_words_are_known_and_the_folder_may_remap_them(self) -> None:
        assert read_name("family-20260728_144141_NR.mp4", folder()).camera == 2
        assert read_name("family-20260728_144141_NR.mp4", folder(cameras={"R": 7})).camera == 7

    def test_only_its_event_words_tag_events(self) -> None:
        assert read_name("family-20260728_144141_NF.mp4", folder()).event is None
        assert read_name("family-20260728_144141_EF.mp4", folder()).event == EVENT

    def test_a_name_that_two_presets_read_alike_is_accepted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PRESETS, "twin", replace(PRESETS["family"], name="twin"))
        found = read_name("family-20260728_144141_NF.mp4", folder())
        assert (found.start, found.camera, found.faults) == (AT.replace(tzinfo=timezone.utc), 1, {})

    def test_a_single_letter_is_no_word_for_a_folder(self) -> None:
        assert read_name("A/20230309061733_000000.MP4", folder()).camera is None
        assert read_name("A/20230309061733_000000.MP4", folder(cameras={"A": 4})).camera == 4
        assert read_name("Movie_E/20230309061733_000000.MP4", folder()).camera == 2

    def test_a_start_that_two_presets_find_differently_is_not_guessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PRESETS, "rival", replace(PRESETS["gopro"], name="rival", created=Created("utc", "start")))
        assert "which read its start differently" in read_name("GX010123.MP4", folder()).faults["start"]

    def test_a_name_that_two_presets_read_differently_is_not_guessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PRESETS, "rival", replace(PRESETS["family"], name="rival", cameras={"f": 3}))
        found = read_name("family-20260728_144141_NF.mp4", folder())
        assert (found.preset, found.camera, found.start) == (None, None, AT.replace(tzinfo=timezone.utc))
        assert "fits several cameras, family and rival, which read its camera differently" in found.faults["camera"]
        assert 'set preset = "family"' in found.faults["camera"]
        assert read_name("family-20260728_144141_NF.mp4", folder(preset="rival")).camera == 3


class TestEvents:
    def test_an_event_folder_tags_its_footage_whatever_the_preset(self) -> None:
        found = read_name("RO/ABC1234X_1_20260728_144141.mp4", folder())
        assert (found.event, found.sources["event"]) == (LOCKED, "folder RO")
        assert read_name("evt_rec/20260728_144141.mp4", folder(CLOCK)).event == EVENT

    @pytest.mark.parametrize("name", ["SavedClips", "100EVENT", "Emergency", "sos", "manual_rec"])
    def test_event_folders_are_recognised_in_any_case(self, name: str) -> None:
        for spelled in (name, name.lower(), name.upper()):
            event = tag_for_folder(spelled)
            assert event is not None
            assert event.high_priority

    @pytest.mark.parametrize("name", ["Movie", "DCIM", "100MEDIA", "Normal", "cont_rec", "RecentClips", "105UNSVD"])
    def test_other_folders_tag_nothing(self, name: str) -> None:
        assert tag_for_folder(name) is None

    def test_a_tag_of_high_priority_wins(self) -> None:
        parked_and_locked = read_name("Parking/RO/2026_0728_144141_0001PF.MP4", folder())
        assert parked_and_locked.event == LOCKED
        parked = read_name("Parking/2026_0728_144141_0001F.MP4", folder())
        assert parked.event == PARKING
        event = read_name("Parking/2026_0728_144141_0001EF.MP4", folder())
        assert (event.event, event.sources["event"]) == (EVENT, "file name (viofo)")


def test_printable_text_has_no_control_characters_or_undecodable_bytes() -> None:
    assert printable("a b\x1b[2J\n\udcff é") == r"a b\x1b[2J\n\udcff é"
