from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tracemalloc
from datetime import datetime
from pathlib import Path

import pytest

from agent.media import mp4
from simulator.recorder import Recorder, recording, recording_blocks

START = datetime(2026, 7, 28, 14, 41, 41)


@pytest.mark.parametrize("seconds", [0.5, 2, 60, 299.999, 3600])
def test_a_recording_lasts_as_long_as_asked(seconds: float) -> None:
    assert mp4.read(io.BytesIO(recording(seconds))).duration_seconds == seconds


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_real_players_take_it_and_see_the_same_duration(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(recording(61.5, size_bytes=200_000))
    wanted = "format=duration:stream=codec_name,duration"
    probe = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", wanted, str(path)]
    found = json.loads(subprocess.run(probe, check=True, capture_output=True).stdout)
    assert found["format"]["duration"] == "61.500000"
    assert found["streams"] == [{"codec_name": "h264", "duration": "61.500000"}]
    decoded = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "null", "-"], capture_output=True, check=True)
    assert decoded.stderr == b""


@pytest.mark.parametrize("size_bytes", [8_000, 65_536, 1_000_001])
def test_a_recording_has_the_size_that_was_asked_for(size_bytes: int) -> None:
    content = recording(60, size_bytes=size_bytes)
    assert len(content) == size_bytes
    assert mp4.read(io.BytesIO(content)).duration_seconds == 60


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert recording(60, seed="a") == recording(60, seed="a")
    assert recording(60, seed="a") != recording(60, seed="b")
    assert recording(60, size_bytes=100_000, seed="a") != recording(60, size_bytes=100_000, seed="b")


def test_a_large_recording_is_never_whole_in_memory() -> None:
    tracemalloc.start()
    size_bytes = sum(len(block) for block in recording_blocks(60, size_bytes=48_000_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size_bytes == 48_000_000
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize(("seconds", "size_bytes"), [(-1, None), (1e6, None), (60, 5_000)])
def test_what_no_recording_can_be_is_an_error(seconds: float, size_bytes: int | None) -> None:
    with pytest.raises(ValueError, match="is impossible"):
        recording(seconds, size_bytes=size_bytes)


class TestRecorder:
    def test_a_file_is_named_by_vehicle_channel_and_time(self, tmp_path: Path) -> None:
        recorded = Recorder(tmp_path / "DCIM", "ABC1234X").record(2, START, 60)
        assert recorded.path == tmp_path / "DCIM" / "ABC1234X_2_20260728_144141.mp4"
        assert recorded.whole

    def test_an_event_is_marked_in_the_name(self, tmp_path: Path) -> None:
        recorded = Recorder(tmp_path, "ABC1234X").record(1, START, 60, event=True)
        assert recorded.path.name == "ABC1234X_1_20260728_144141_event.mp4"

    def test_what_it_says_it_wrote_is_in_the_file(self, tmp_path: Path) -> None:
        recorded = Recorder(tmp_path, "ABC1234X").record(1, START, 60, size_bytes=300_000)
        content = recorded.path.read_bytes()
        assert recorded.size_bytes == len(content) == 300_000
        assert recorded.sha256 == hashlib.sha256(content).hexdigest()
        assert mp4.read(io.BytesIO(content)).duration_seconds == 60

    def test_two_channels_of_one_moment_have_different_bytes(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path, "ABC1234X")
        assert recorder.record(1, START, 60).sha256 != recorder.record(2, START, 60).sha256

    def test_it_writes_piece_by_piece_with_the_index_last(self, tmp_path: Path) -> None:
        seen: list[tuple[int, float]] = []

        def wait(seconds: float) -> None:
            (path,) = tmp_path.iterdir()
            with path.open("rb") as file, pytest.raises(mp4.Mp4Incomplete):
                mp4.read(file)
            seen.append((path.stat().st_size, seconds))

        Recorder(tmp_path, "ABC1234X", wait=wait, piece_bytes=50_000).record(
            1, START, 60, size_bytes=200_000, writing_seconds=4
        )
        sizes = [size for size, _ in seen]
        assert len(sizes) >= 4
        assert sizes == sorted(set(sizes))
        assert sum(seconds for _, seconds in seen) == pytest.approx(4, rel=0.02)

    def test_power_may_fail_at_a_given_part_of_the_file(self, tmp_path: Path) -> None:
        recorded = Recorder(tmp_path, "ABC1234X").record(1, START, 60, size_bytes=100_000, power_fails_at=0.6)
        assert not recorded.whole
        assert recorded.size_bytes == recorded.path.stat().st_size == 60_000
        with recorded.path.open("rb") as file, pytest.raises(mp4.Mp4Incomplete, match="cut by a power loss"):
            mp4.read(file)

    def test_power_may_fail_before_anything_is_written(self, tmp_path: Path) -> None:
        assert Recorder(tmp_path, "ABC1234X").record(1, START, 60, power_fails_at=0).path.read_bytes() == b""

    def test_a_wait_that_is_broken_off_is_a_power_failure(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path, "ABC1234X", wait=lambda seconds: True)
        recorded = recorder.record(1, START, 60, size_bytes=100_000, writing_seconds=10)
        assert not recorded.whole
        assert recorded.sha256 == hashlib.sha256(recorded.path.read_bytes()).hexdigest()
