"""Realistic footage made with ffmpeg, and its contents."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# Found once, since tests put other programs into its place, or take it away.
_FFMPEG = shutil.which("ffmpeg") or "ffmpeg"
_FFPROBE = shutil.which("ffprobe") or "ffprobe"

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

SECONDS = 30
_PICTURES = "testsrc2=duration={seconds}:size=160x120:rate=10"
_VIDEO = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -threads 1"
_SOUND = f"-f lavfi -i sine=duration={SECONDS}:sample_rate=16000"
# Ten quiet seconds, ten of noise, ten quiet ones.
_STORM = "-vf noise=alls=80:allf=t:enable='between(t,10,20)'"


def ffmpeg(*words: str | Path) -> None:
    subprocess.run([_FFMPEG, "-v", "error", "-nostdin", "-y", *map(str, words)], check=True, capture_output=True)


def _encoded(options: str, seconds: float = SECONDS, more: str = "") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        pictures = _PICTURES.format(seconds=seconds)
        ffmpeg("-f", "lavfi", "-i", pictures, *more.split(), *options.split(), path)

    return make


# Each recording by its file name.
RECIPES: Mapping[str, Callable[[Path], None]] = {
    "constant.mp4": _encoded(f"{_VIDEO} -g 10 -b:v 200k -maxrate 200k -bufsize 50k -c:a aac", more=_SOUND),
    "varying.mp4": _encoded(f"{_VIDEO} -g 10 -crf 30 -c:a aac {_STORM}", more=_SOUND),
    "long-groups.mp4": _encoded(f"{_VIDEO} -g 70 -keyint_min 70 -sc_threshold 0"),
    "b-frames.mp4": _encoded(f"{_VIDEO} -g 10 -bf 3 -b_strategy 0 -flags +cgop -c:a aac", more=_SOUND),
    "timecode.mp4": _encoded(f"{_VIDEO} -g 10 -timecode 10:00:00:00 -c:a aac", more=_SOUND),
    "timecode.mov": _encoded(f"{_VIDEO} -g 10 -timecode 10:00:00:00 -c:a pcm_s16le", more=_SOUND),
    "late-start.ts": _encoded(f"{_VIDEO} -g 10 -bf 2 -output_ts_offset 10 -c:a aac", more=_SOUND),
    "recorder.avi": _encoded(f"{_VIDEO} -g 10 -bf 0 -c:a pcm_s16le", more=_SOUND),
    "camera.mkv": _encoded(f"{_VIDEO} -g 10 -c:a aac", more=_SOUND),
    "faststart.mp4": _encoded(f"{_VIDEO} -g 10 -movflags +faststart"),
    "fragmented.mp4": _encoded(f"{_VIDEO} -g 10 -movflags +frag_keyframe+empty_moov"),
    "hevc.mp4": _encoded("-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none", seconds=4),
    "jpeg.avi": _encoded("-c:v mjpeg", seconds=2),
    "sound-only.mkv": lambda path: ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path),
}


def payloads(*files: Path) -> dict[str, list[str]]:
    """The hash of each packet's bytes in some files, in order: {"video": […], "audio": […]}."""
    words = [_FFPROBE, "-v", "error", "-show_data_hash", "MD5", "-of", "json"]
    words += ["-show_entries", "packet=codec_type,data_hash"]
    found: dict[str, list[str]] = {"video": [], "audio": []}
    for file in files:
        said = subprocess.run([*words, str(file)], check=True, capture_output=True, text=True).stdout
        for packet in json.loads(said)["packets"]:
            if packet["codec_type"] in found:
                found[packet["codec_type"]].append(packet["data_hash"])
    return found


def pictures(path: Path) -> list[str]:
    """The hash of each decoded frame, for containers that store the same frames in different bytes."""
    options = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framehash", "-"]
    words = [_FFMPEG, "-v", "error", "-i", str(path), *options]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [line.split(",")[-1].strip() for line in said.splitlines() if not line.startswith("#")]


def streams(path: Path) -> list[str]:
    """The codecs of a file's streams."""
    words = [_FFPROBE, "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"]
    said = subprocess.run([*words, str(path)], check=True, capture_output=True, text=True).stdout
    return [line.strip(",") for line in said.split()]
