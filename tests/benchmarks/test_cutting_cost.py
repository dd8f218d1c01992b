"""What cutting costs, beside a plain copy and ffmpeg alone on the same file: `make benchmark`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import demo_long
from tests.conftest import Figure
from tests.support.ffmpeg import ffmpeg, needs_ffmpeg

GB = 1e9
SIZE_BYTES = 400_000_000

# Cuts a recording with the parts of the agent, and says what that took: its own time, and that of its children.
CUT = """
import json, resource, sys, threading
from datetime import datetime, timezone
from pathlib import Path
from agent.config import Conform, Limits, SpoolSettings
from agent.intake.conform.media import MediaReader
from agent.intake.conform.process import Watch
from agent.intake.conform.work import Job, Rules, conform
from agent.intake.recording import Recording

source, folder = map(Path, sys.argv[1:])
watch = Watch(threading.Event())
def used(who):
    return (lambda u: u.ru_utime + u.ru_stime)(resource.getrusage(who))
own = used(resource.RUSAGE_SELF)
footage, media = MediaReader(Conform(), watch).read(source)
job = Job(Recording(footage, media, "ABC1234X", 1, datetime(2026, 7, 28, tzinfo=timezone.utc)))
pieces = conform(job, Rules(Limits(), Conform(), SpoolSettings(folder, min_free_bytes=0)), folder, watch)
print(json.dumps({
    "own": used(resource.RUSAGE_SELF) - own,
    "children": used(resource.RUSAGE_CHILDREN),
    "memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    "own_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "sizes": [file.stat().st_size for _, file in pieces],
}))
"""


def seconds_of(*command: object) -> float:
    """The processor time of a command, with what the kernel spends for it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@needs_ffmpeg
@pytest.mark.slow
def test_cutting_costs_little_more_than_copying(tmp_path: Path, figure: Figure) -> None:
    place = tmp_path / "scene"
    place.mkdir()
    scene = demo_long.record(place, place / "scene.mp4")
    assert scene is not None
    source = tmp_path / "recording.mp4"
    ffmpeg("-stream_loop", str(SIZE_BYTES // scene.size_bytes), "-i", scene.path, "-c", "copy", source)
    shutil.rmtree(place)
    gigabytes = source.stat().st_size / GB
    pieces, mine = tmp_path / "pieces", tmp_path / "mine"
    pieces.mkdir()
    mine.mkdir()

    copied = seconds_of("cp", source, tmp_path / "copy.mp4") / gigabytes
    (tmp_path / "copy.mp4").unlink()
    words = f"ffmpeg -v error -i {source} -c copy -f segment -segment_time 60 -reset_timestamps 1 -y".split()
    alone = seconds_of(*words, pieces / "%04d.mp4") / gigabytes
    shutil.rmtree(pieces)
    said = subprocess.run(
        [sys.executable, "-c", CUT, str(source), str(mine)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ).stdout
    cut = json.loads(said.splitlines()[-1])
    cost = (cut["own"] + cut["children"]) / gigabytes

    figure("CPU s per GB: cp", copied)
    figure("CPU s per GB: ffmpeg -f segment", alone)
    figure("CPU s per GB: cut by the agent, scanned and checked", cost)
    figure("CPU s per GB: of that in the agent itself", cut["own"] / gigabytes)
    figure("peak memory while cutting, MB: ffmpeg", cut["memory"] / 1e6, most=True)
    figure("peak memory while cutting, MB: the agent's part", cut["own_memory"] / 1e6, most=True)
    assert sum(cut["sizes"]) > 0.99 * source.stat().st_size
    assert max(cut["sizes"]) <= 50_000_000
    assert min(cut["sizes"][:-1]) > 45_000_000
    assert max(cut["memory"], cut["own_memory"]) < 150_000_000
    # Both read and write every byte once; the scan reads it once more, the index is put first.
    assert cost < 4 * alone + 2
