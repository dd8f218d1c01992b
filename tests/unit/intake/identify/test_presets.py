from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import FootageFolder
from agent.config.patterns import GROUPS
from agent.intake.identify.filename import Naming, is_proxy, read_name, unsupported_reason
from agent.intake.identify.presets import PRESETS, UNSUPPORTED, Preset

ALL = {preset.name: preset for preset in (*PRESETS.values(), *UNSUPPORTED)}
CARD = FootageFolder(Path("/media/card"))
CAMERAS = (Path(__file__).parents[4] / "docs" / "cameras.md").read_text()


def said(found: Naming) -> str:
    """What was read from a name, as the presets write it beside their examples."""
    camera = found.default_camera if found.camera is None else found.camera
    utc = " UTC" if found.start and found.start.tzinfo else ""
    words = [
        found.registration,
        "camera ?" if camera is None else f"camera {camera}",
        f"{found.start:%Y-%m-%d %H:%M:%S}{utc}" if found.start else "no time",
        found.event.word if found.event else None,
    ]
    return ", ".join(word for word in words if word)


@pytest.mark.parametrize("preset", ALL.values(), ids=ALL)
def test_the_examples_beside_a_preset_are_read_by_it_and_by_no_other(preset: Preset) -> None:
    assert preset.examples
    for example in preset.examples:
        for spelled in (example, example.lower(), example.upper(), f"mnt/card 1/{example}"):
            assert [other.name for other in ALL.values() if other.pattern.search(spelled)] == [preset.name]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_examples_are_read_as_documented(preset: Preset) -> None:
    for example, expected in preset.examples.items():
        found = read_name(example, CARD)
        assert found.preset is preset
        assert said(found) == expected
        assert found.faults.keys() <= {"camera"}, found.faults


@pytest.mark.parametrize("preset", ALL.values(), ids=ALL)
def test_its_groups_are_known(preset: Preset) -> None:
    of_the_clock = {"ymd", "hms"}  # the separators in the plain names
    assert set(preset.pattern.groupindex) <= {*GROUPS, "camera2", "event2"} | of_the_clock
    tells_time = bool({"Y", "y"} & set(preset.pattern.groupindex))
    assert preset.refused or tells_time == (preset.clock != "none")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_its_recordings_are_included_and_are_no_proxies(preset: Preset) -> None:
    from agent.intake.scanner import matches_filters

    for example in preset.examples:
        assert matches_filters(CARD, Path(example).name)


@pytest.mark.parametrize("preset", ALL.values(), ids=ALL)
def test_the_documentation_of_cameras_has_a_row_for_it(preset: Preset) -> None:
    assert re.search(rf"^\| .*`{re.escape(preset.name)}`", CAMERAS, re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        "20181026_135003_NFL.mp4",
        "20181026_135003_NFS.mp4",
        "20181026_135003_NF.thm",
        "20181026_135003_N.gps",
        "240915_143027_001_FL.MP4",
        "GX010123.LRV",
        "GX010123.THM",
        "FILE240131-101500F.NMEA",
        "event.json",
    ],
)
def test_proxies_and_companion_files_are_recognised(name: str) -> None:
    assert is_proxy(name, CARD)
    assert not is_proxy(name, FootageFolder(Path("/media/card"), preset="plain"))
    assert not is_proxy(name, FootageFolder(Path("/media/card"), pattern=re.compile("(?P<camera>F)")))


@pytest.mark.parametrize("preset", UNSUPPORTED, ids=[preset.name for preset in UNSUPPORTED])
def test_an_unsupported_family_says_what_to_change_on_the_camera(preset: Preset) -> None:
    for example in preset.examples:
        reason = unsupported_reason(example)
        assert reason == preset.refused
        assert "MP4" in reason
    assert unsupported_reason("2026_0728_141441_001F.MP4") is None
