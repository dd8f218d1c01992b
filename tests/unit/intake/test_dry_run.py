from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.config import (
    Api,
    Config,
    FootageFolder,
    Secret,
    Vehicle,
)
from agent.intake.dry_run import NO_REGISTRATION, DryRun, Finding, footage_folder
from simulator.recorder import recording

NOW = datetime(2026, 7, 28, 15, 0, tzinfo=timezone.utc)
NAME = "DCIM/Movie/2026_0728_141441_001F.MP4"


def configuration(*folders: FootageFolder, vehicle: Vehicle = Vehicle()) -> Config:  # noqa: B008 - frozen
    api = Api("https://localhost", "user", Secret(""))
    return Config(file=Path("config.toml"), api=api, vehicle=vehicle, footage=folders)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return tmp_path / "card"


def write(card: Path, name: str, content: bytes = b"") -> Path:
    path = card / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or recording(60))
    return path


def look_at(card: Path, path: Path) -> Finding:
    finding = DryRun(FootageFolder(card), configuration()).inspect(path, NOW)
    assert finding is not None
    return finding


def test_deliverable_footage_has_its_clips(card: Path) -> None:
    finding = look_at(card, write(card, NAME))
    (clip,) = finding.clips
    assert (clip.key.camera, clip.key.registration) == (1, NO_REGISTRATION)
    assert finding.naming.preset is not None
    assert (finding.naming.preset.name, finding.refusal) == ("viofo", "")


def test_the_registration_of_the_configuration_is_used(card: Path) -> None:
    dry_run = DryRun(FootageFolder(card), configuration(vehicle=Vehicle("ABC1234X")))
    finding = dry_run.inspect(write(card, NAME), NOW)
    assert finding is not None
    assert finding.recording is not None
    assert finding.recording.registration == "ABC1234X"


def test_footage_that_does_not_fit_is_still_identified(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    finding = look_at(card, write(card, NAME, recording(400)))
    assert finding.recording is not None
    assert finding.recording.camera == 1
    assert (finding.clips, "it lasts 400 s" in finding.refusal) == ((), True)


def test_footage_without_a_time_still_shows_what_it_holds(card: Path) -> None:
    finding = look_at(card, write(card, "cam2/holiday.mp4"))
    assert finding.media is not None
    assert (finding.media.codec, finding.naming.camera, finding.recording) == ("avc1", 2, None)
    assert "no recording time" in finding.refusal


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hiv00000.mp4", "overwrite in place"),
        ("2026_0728_141441_002F.MP4", "it is not an MP4"),
        ("240915_143027_001_FL.MP4", "it is passed over: it is a smaller copy"),
        ("notes.txt", "it is passed over: its name is not in include"),
    ],
)
def test_unreadable_footage_says_why(card: Path, name: str, reason: str) -> None:
    finding = look_at(card, write(card, name, b"no video at all"))
    assert finding.media is None
    assert reason in finding.refusal


def test_links_and_vanished_files_are_no_footage(card: Path) -> None:
    link = card / "2026_0728_141441_003F.MP4"
    link.parent.mkdir(parents=True)
    link.symlink_to(card / "elsewhere.mp4")
    assert "symbolic link" in look_at(card, link).refusal
    assert DryRun(FootageFolder(card), configuration()).inspect(card / "2026_0728_141441_004F.MP4", NOW) is None


def test_the_files_of_a_card_are_listed_in_order_and_the_rest_counted(card: Path) -> None:
    second, first = write(card, "DCIM/Movie/2026_0728_141541_002F.MP4"), write(card, NAME)
    for name in ("DCIM/1.gps", "DCIM/2.GPS", "240915_143027_001_FL.MP4", "README", ".hidden/x.gps"):
        write(card, name, b"-")
    dry_run = DryRun(FootageFolder(card), configuration())
    assert dry_run.files(card) == [first, second]
    assert dry_run.count_others(card) == Counter({".gps": 2, "smaller copies": 1, "files without an ending": 1})
    alone = DryRun(FootageFolder(card, recursive=False), configuration())
    assert (alone.files(card), alone.count_others(card)) == (
        [],
        Counter({"smaller copies": 1, "files without an ending": 1}),
    )


def test_a_path_has_the_settings_of_the_nearest_folder_that_it_lies_in(card: Path) -> None:
    outer, inner = FootageFolder(card, recursive=False), FootageFolder(card / "inner")
    config = configuration(outer, inner)
    assert footage_folder(card, config) is outer
    assert footage_folder(card / "inner" / "x.mp4", config) is inner
    assert footage_folder(card.parent, config) is None
