from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.cli import main
from simulator.recorder import recording
from tests.support.ffmpeg import RECIPES, needs_ffmpeg
from tests.support.footage import created

NAME = "DCIM/Movie/RO/2026_0728_141441_001F.MP4"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("VISION_INGEST_CONFIG", str(tmp_path / "none.toml"))
    yield
    structlog.reset_defaults()


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(recording(60))
    return tmp_path / "card"


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without the layout."""
    return " ".join(capsys.readouterr().out.split())


def test_a_file_is_shown_with_where_each_value_comes_from(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--registration", "ABC1234X", "--timezone", "Africa/Johannesburg"]
    assert main(["inspect", str(card / NAME), *arguments]) == 0
    text = shown(capsys)
    for words in (
        "preset viofo (Viofo)",
        "registration ABC1234X footage.registration",
        "camera 1 file name (viofo)",
        "start 2026-07-28 12:14:41 UTC file name (viofo)",
        "2026-07-28 14:14:41 Africa/Johannesburg",
        "end 2026-07-28 12:15:41 UTC",
        "event locked: delivered first folder RO",
        "duration 60.0 s",
        "video H.264 in MP4",
        "It would be delivered as one clip",
    ):
        assert words in text


def test_a_refused_file_is_shown_with_the_reason_and_what_is_known(
    card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = card / "2026_0728_141541_002R.MP4"
    path.write_bytes(recording(60).replace(b"avc1\0\0", b"hvc1\0\0"))
    assert main(["inspect", str(path)]) == 1
    text = shown(capsys)
    assert "It would not be delivered: its video is H.265/HEVC" in text
    assert "camera 2" in text
    assert "registration – not set: --registration, or registration in [vehicle]" in text


def test_an_unknown_name_is_shown_with_what_the_file_holds(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = card / "cam3" / "holiday\x1b[2J.mp4"
    path.parent.mkdir()
    path.write_bytes(recording(60))
    assert main(["inspect", str(path)]) == 1
    text = shown(capsys)
    assert "preset none knows this name" in text
    assert "camera 3 folder name" in text
    assert "no recording time" in text
    assert "\x1b[2J" not in text


def test_a_card_is_summed_up_by_preset_and_camera_and_by_reason(
    card: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    for number in range(10, 14):
        (card / f"2026_0728_14{number}00_00{number}R.MP4").write_bytes(recording(60 if number < 12 else 390 + number))
    (card / "GX010001.MP4").write_bytes(recording(60))
    (card / "GX010001.LRV").write_bytes(b"-")
    for number in range(2):
        (card / f"{number}.gps").write_bytes(b"-")
    (card / "hiv00000.mp4").write_bytes(b"-")
    assert main(["inspect", str(card), "--registration", "ABC1234X"]) == 0
    text = shown(capsys)
    for words in (
        "viofo 1 1 0:01:00",
        "1 locked",
        "viofo 2 2 0:02:00",
        "gopro 1 1 0:01:00",
        "Vehicle: ABC1234X.",
        "taken to run in UTC",
        "Start of 1 by: date of the file less the duration.",
        "viofo 2 it lasts 402 s and the limit is 300 s (limits.max_seconds): to deliver it, the agent needs ffmpeg",
        "– 1 it is a block of the ring",
        "Passed over: 2 .gps, 1 smaller copies.",
        "7 files",
        "4 would be delivered as 4 clips",
        "3 would be refused",
    ):
        assert words in text


def test_a_summary_counts_the_clips_that_long_recordings_would_give(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("ffmpeg", "ffprobe"):
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (card / "2026_0728_141541_002F.MP4").write_bytes(recording(700))
    assert main(["inspect", str(card), "--registration", "ABC1234X"]) == 0
    assert "2 would be delivered as 4 clips" in shown(capsys)


@needs_ffmpeg
def test_a_recording_that_is_too_long_is_shown_with_its_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ABC1234X_1_20260728_140000.mp4"
    RECIPES["constant.mp4"](path)
    config = tmp_path / "config.toml"
    config.write_text('api = {region = "za", username = "u"}\nlimits = {max_seconds = 12}\n[[footage]]\npath = "."\n')
    assert main(["inspect", str(path), "--config", str(config)]) == 0
    text = shown(capsys)
    assert "It would be delivered as 3 clips, cut without encoding:" in text
    assert "2026-07-28 14:00:11 UTC, 11 s 2026-07-28 14:00:22 UTC, 8 s" in text


def test_a_utc_date_in_the_file_reveals_a_wrong_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = created(recording(60), datetime(2026, 7, 28, 12, 15, 41))
    for name in ("20260728_141441_NF.mp4", "20260728_141441_NR.mp4"):
        (tmp_path / name).write_bytes(content)
    assert main(["inspect", str(tmp_path)]) == 0
    assert "The dates in 2 files say otherwise: the camera's clock is 2:00 h ahead of that zone." in shown(capsys)
    assert main(["inspect", str(tmp_path / "20260728_141441_NF.mp4")]) == 0
    assert "doubt the camera's clock is 2:00 h ahead of that zone" in shown(capsys)
    assert main(["inspect", str(tmp_path), "--timezone", "Africa/Johannesburg"]) == 0
    assert "say otherwise" not in shown(capsys)


def test_several_vehicles_are_listed_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for registration in ("ABC1234X", "XYZ9876A"):
        (tmp_path / f"{registration}_1_20260728_141441.mp4").write_bytes(recording(60))
    assert main(["inspect", str(tmp_path)]) == 0
    text = shown(capsys)
    assert "plain ABC1234X 1 1 0:01:00" in text
    assert "plain XYZ9876A 1 1 0:01:00" in text


def test_other_programs_read_a_json_object_a_line(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (card / "holiday.mp4").write_bytes(recording(60))
    assert main(["inspect", str(card), "--json"]) == 0
    objects: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    known, unknown = objects
    assert (known["preset"], known["camera"], known["start"]) == ("viofo", 1, "2026-07-28T14:14:41+00:00")
    assert (known["delivered"], known["event"], known["registration"]) == (True, "locked", None)
    assert known["clips"] == [{"start": "2026-07-28T14:14:41+00:00", "end": "2026-07-28T14:15:41+00:00"}]
    assert (unknown["delivered"], unknown["preset"], unknown["codec"]) == (False, None, "avc1")
    assert "no recording time" in unknown["reason"]


class TestWithAConfiguration:
    @pytest.fixture
    def config(self, card: Path, tmp_path: Path) -> Path:
        file = tmp_path / "config.toml"
        file.write_text(
            '[api]\nregion = "za"\nusername = "bench"\n[vehicle]\nregistration = "CFG 1"\n'
            f'[[footage]]\npath = "{card}"\ntimezone = "Africa/Johannesburg"\ncameras = {{ F = 7 }}\n'
        )
        return file

    def test_files_in_a_footage_folder_have_its_settings(
        self, card: Path, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", str(card / NAME), "--config", str(config)]) == 0
        text = shown(capsys)
        assert "registration CFG 1 vehicle.registration" in text
        assert "camera 7" in text
        assert "start 2026-07-28 12:14:41 UTC" in text

    def test_options_override_the_configuration(
        self, card: Path, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--config", str(config), "--timezone", "UTC", "--preset", "plain"]
        assert main(["inspect", str(card / NAME), *arguments]) == 1
        assert "preset plain reads none from the name" in shown(capsys)

    def test_a_wrong_configuration_fails(self, card: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_text("[api]\n")
        assert main(["inspect", str(card), "--config", str(config)]) == 2
        assert "api.username" in capsys.readouterr().err


class TestMistakes:
    def test_a_path_that_is_not_there(self, card: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", str(card / "nowhere")]) == 1
        assert "is not there" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(["--preset", "vofio"], 'did you mean "viofo"?'), (["--timezone", "Joburg"], "there is no time zone")],
    )
    def test_a_preset_or_zone_that_does_not_exist(
        self, card: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["inspect", str(card), *arguments])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err

    def test_a_folder_without_footage(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", str(tmp_path)]) == 1
        assert "0 files" in shown(capsys)
