from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.config import FootageFolder
from agent.intake.naming import Naming, printable, read_name
from agent.intake.presets import PRESETS, Preset

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


class TestPlainPreset:
    @pytest.mark.parametrize(
        ("name", "registration", "camera", "event"),
        [
            ("ABC1234X_1_20260728_144141.mp4", "ABC1234X", 1, None),
            ("ABC1234X_1_20260728_144141_event.mp4", "ABC1234X", 1, "event"),
            ("ABC1234X_2_20260728144141.MP4", "ABC1234X", 2, None),
            ("ABC 1234_ch2_20260728-144141_SOS.mp4", "ABC 1234", 2, "SOS"),
            ("ABC-1234_CAM03_20260728T144141.mp4", "ABC-1234", 3, None),
            ("ABC1234X_camera-4_2026-07-28_14-41-41.mp4", "ABC1234X", 4, None),
            ("trip 7/ABC1234X_F_2026-07-28T14.41.41_alarm.mp4", "ABC1234X", 1, "alarm"),
        ],
    )
    def test_each_of_its_forms_is_read(self, name: str, registration: str, camera: int, event: str | None) -> None:
        found = read_name(name, folder(cameras={"F": 1}))
        assert (found.registration, found.camera, found.start, found.event) == (registration, camera, AT, event)
        assert found.sources["start"] == "file name (plain)"
        assert found.faults == {}

    def test_it_can_be_chosen_by_name(self) -> None:
        assert read_name("ABC1234X_1_20260728_144141.mp4", folder(preset="plain")).start == AT


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_examples_beside_a_preset_are_read_by_it_and_by_no_other(preset: Preset) -> None:
    assert preset.examples
    for example in preset.examples:
        assert [other.name for other in PRESETS.values() if other.pattern.search(example)] == [preset.name]


def test_a_name_that_no_preset_knows_says_nothing() -> None:
    found = read_name("GRMN0001.MP4", folder())
    assert (found.registration, found.camera, found.start, found.event, found.faults) == (None, None, None, None, {})


class TestPattern:
    def test_its_groups_are_read_from_the_path_below_the_folder(self) -> None:
        found = read_name(
            "ABC1234X/2/20260728_144141_P.mp4", folder(rf"^(?P<registration>\w+)/(?P<camera>\d)/{CLOCK}_(?P<event>P)?")
        )
        assert (found.registration, found.camera, found.start, found.event) == ("ABC1234X", 2, AT, "P")
        assert found.sources["registration"] == "file name (pattern)"

    def test_it_takes_the_place_of_the_presets(self) -> None:
        assert read_name("ABC1234X_1_20260728_144141.mp4", folder(r"(?P<camera>\d)_")).start is None

    @pytest.mark.parametrize("name", ["2026-07-28T14-41-41.mp4", "20260728144141.mp4", "x 20260728_144141.mp4"])
    def test_the_group_start_takes_iso_8601(self, name: str) -> None:
        assert read_name(name, folder(r"(?P<start>\d{4}[-\dT_]+)")).start == AT

    def test_a_start_with_a_zone_keeps_it(self) -> None:
        found = read_name("20260728T144141+0200.mp4", folder(r"(?P<start>[\dT+]+)"))
        assert found.start == AT.replace(tzinfo=timezone(timedelta(hours=2)))

    def test_two_digits_of_a_year_are_of_this_century_and_seconds_may_be_missing(self) -> None:
        found = read_name("2607281441.mp4", folder(r"(?P<y>\d\d)(?P<m>\d\d)(?P<d>\d\d)(?P<H>\d\d)(?P<M>\d\d)"))
        assert found.start == datetime(2026, 7, 28, 14, 41)

    def test_a_date_without_a_time_is_no_start(self) -> None:
        assert read_name("20260728.mp4", folder(r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)")).start is None

    def test_groups_that_catch_nothing_or_blanks_say_nothing(self) -> None:
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
    def test_what_the_group_start_cannot_mean_is_a_fault(self, name: str) -> None:
        assert f"start={name}" in read_name(f"{name}.mp4", folder(r"^(?P<start>\w+)")).faults["start"]

    def test_a_number_beyond_any_calendar_is_a_fault(self) -> None:
        pattern = r"(?P<Y>\d+)-(?P<m>\d)-(?P<d>\d)-(?P<H>\d)-(?P<M>\d)"
        assert "impossible time" in read_name(f"{'9' * 40}-1-1-1-1.mp4", folder(pattern)).faults["start"]

    def test_undecodable_bytes_in_a_name_are_matched_and_shown_escaped(self) -> None:
        found = read_name("caf\udce9_20261328_144141.mp4", folder(CLOCK))
        assert r"caf\udce9_20261328" in found.faults["start"]

    def test_a_path_of_absurd_length_is_not_searched(self) -> None:
        found = read_name("a/" * 600 + "20260728_144141.mp4", folder(CLOCK))
        assert found == Naming(faults={"start": "the path is longer than 255 characters and was not read"})


class TestCamera:
    def test_a_letter_means_what_the_folder_says_whatever_its_case(self) -> None:
        assert read_name("20260728_r.mp4", folder(r"_(?P<camera>[a-z])\.", cameras={"R": 2})).camera == 2

    def test_the_folder_may_give_a_number_another_meaning(self) -> None:
        assert read_name("x_1.mp4", folder(r"_(?P<camera>\d)\.", cameras={"1": 9})).camera == 9

    def test_a_letter_without_a_meaning_is_a_fault_that_says_which_entry_to_add(self) -> None:
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
    def test_a_folder_called_after_a_camera_gives_it(self, name: str, camera: int) -> None:
        found = read_name(f"{name}/2026/x.mp4", folder())
        assert found.camera == camera
        assert found.sources["camera"] == "folder name"

    @pytest.mark.parametrize("name", ["champion", "2", "cam", "camera999", "chap1", "mycam1"])
    def test_other_folders_do_not(self, name: str) -> None:
        assert read_name(f"{name}/x.mp4", folder()).camera is None

    def test_the_nearest_folder_counts_and_the_name_of_the_file_more(self) -> None:
        assert read_name("cam1/cam2/x.mp4", folder()).camera == 2
        assert read_name("cam1/x_7.mp4", folder(r"_(?P<camera>\d)\.")).camera == 7

    def test_the_watched_folder_itself_may_be_called_after_the_camera(self) -> None:
        assert read_name("x.mp4", folder(path="/media/cam5")).camera == 5

    def test_a_folder_may_be_called_by_a_word_of_the_cameras_setting(self) -> None:
        assert read_name("Rear/x.mp4", folder(cameras={"Rear": 2})).camera == 2


class TestPresetsWithWordsOfTheirOwn:
    @pytest.fixture(autouse=True)
    def family(self, monkeypatch: pytest.MonkeyPatch) -> None:
        family = Preset(
            "family",
            re.compile(rf"{CLOCK}_(?P<event>[A-Z])(?P<camera>[A-Z])\.mp4$", re.IGNORECASE),
            examples=("20260728_144141_NF.mp4",),
            cameras={"f": 1, "r": 2},
            clock="utc",
            events=frozenset("e"),
        )
        monkeypatch.setitem(PRESETS, "family", family)

    def test_its_clock_may_run_on_utc(self) -> None:
        assert read_name("20260728_144141_NF.mp4", folder()).start == AT.replace(tzinfo=timezone.utc)

    def test_its_words_for_cameras_are_known_and_the_folder_may_change_them(self) -> None:
        assert read_name("20260728_144141_NR.mp4", folder()).camera == 2
        assert read_name("20260728_144141_NR.mp4", folder(cameras={"R": 7})).camera == 7

    def test_only_its_words_for_events_mark_events(self) -> None:
        assert read_name("20260728_144141_NF.mp4", folder()).event is None
        assert read_name("20260728_144141_EF.mp4", folder()).event == "E"


def test_text_for_a_terminal_has_no_control_characters_and_no_undecodable_bytes() -> None:
    assert printable("a b\x1b[2J\n\udcff é") == r"a b\x1b[2J\n\udcff é"
