"""The demo's recording that is too large for the API: three minutes, which the agent cuts. It needs ffmpeg."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.intake.conform.process import is_installed

if TYPE_CHECKING:
    from simulator.recorder import RecordedFile

SECONDS = 180
# Five seconds are encoded and repeated: as many bytes as a camera writes, at a fraction of the work.
SCENE_SECONDS = 5
SCENE_BYTES = 1_750_000

MISSING = "With ffmpeg (sudo apt install ffmpeg) this also shows a recording of three minutes, which is cut."


def record(place: Path, target: Path) -> RecordedFile | None:
    """Writes a recording of three minutes and over 60 MB.

    Args:
        place: a folder for what is needed on the way.
        target: appears when it is complete, as when a card is filled by a camera that renames its files.

    Returns:
        What was written; None if ffmpeg is not installed, or cannot encode H.264.
    """
    from simulator.recorder import RecordedFile

    if not is_installed():
        return None
    scene, whole = place / "scene.mp4", place / "whole.mp4"
    try:
        _encode(scene)
    except subprocess.CalledProcessError:
        return None
    _ffmpeg("-stream_loop", SECONDS // SCENE_SECONDS - 1, "-i", scene, "-c", "copy", whole)
    with whole.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    size_bytes = whole.stat().st_size
    whole.rename(target)
    return RecordedFile(target, size_bytes, digest.hexdigest(), whole=True)


def pictures_of(files: Iterable[Path]) -> list[str]:
    """A hash of each stored picture in some files, one after the other."""
    words = "ffprobe -v error -select_streams v -show_data_hash MD5 -show_entries packet=data_hash -of csv=p=0"
    return [picture for file in files for picture in _said([*words.split(), str(file)]).split()]


def _encode(scene: Path) -> None:
    kilobits = SCENE_BYTES * 8 // SCENE_SECONDS // 1000
    words = (
        f"-f lavfi -i testsrc2=duration={SCENE_SECONDS}:size=640x360:rate=25 -vf noise=alls=60:allf=t -c:v libx264"
        f" -preset ultrafast -pix_fmt yuv420p -g 25 -b:v {kilobits}k -minrate {kilobits}k -maxrate {kilobits}k"
        f" -bufsize {kilobits}k -x264-params nal-hrd=cbr"
    )
    _ffmpeg(*words.split(), scene)


def _ffmpeg(*words: object) -> None:
    _said(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)])


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # words of our own
