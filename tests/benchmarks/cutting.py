"""The cost of cutting, compared with a plain copy and ffmpeg alone. Needs 1.3 GB of disk temporarily."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from simulator.demo import record_long
from tests.benchmarks.figures import Figure, ratio
from tests.support.ffmpeg import ffmpeg

GB = 1e9
SIZE_BYTES = 400_000_000

# Cuts a recording with the parts of the agent, and says what that took: its own time, and that of its children.
CUT = """
import json, resource, sys, threading
from datetime import datetime, timezone
from pathlib import Path
from agent.config import Conform, Limits, SpoolSettings
from agent.device.safe_open import open_footage
from agent.intake.identify.reader import read_media
from agent.media.ffmpeg import CancelToken
from agent.intake.conformer import ConformJob, ConformSettings, conform
from agent.intake.planning import PlanSettings, plan
from agent.intake.identify.recording import Recording

source, folder = map(Path, sys.argv[1:])
cancel = CancelToken(threading.Event())
def used(who):
    return (lambda u: u.ru_utime + u.ru_stime)(resource.getrusage(who))
own = used(resource.RUSAGE_SELF)
with open_footage(source) as opened:
    media = read_media(opened, Conform(), cancel)
    found = Recording(opened.footage, media, "ABC1234X", 1, datetime(2026, 7, 28, tzinfo=timezone.utc))
    job = ConformJob.of(found, plan(found, PlanSettings(Limits(), Conform())), opened)
pieces = conform(job, ConformSettings(Limits(), Conform(), SpoolSettings(folder, min_free_bytes=0)), folder, cancel)
print(json.dumps({
    "own": used(resource.RUSAGE_SELF) - own,
    "children": used(resource.RUSAGE_CHILDREN),
    "memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    "own_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


def seconds_of(*command: object) -> float:
    """The CPU time of a command, in user space and in the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> Iterable[Figure]:
    with tempfile.TemporaryDirectory(prefix="vision-ingest-cutting-") as directory:
        place = Path(directory)
        source = _recording(place)
        gigabytes = source.stat().st_size / GB
        copied, alone, ours, own = [], [], [], []
        memory = []
        for _ in range(rounds):
            copied.append(seconds_of("cp", source, place / "copy.mp4") / gigabytes)
            (place / "copy.mp4").unlink()
            with tempfile.TemporaryDirectory(dir=place) as pieces:
                words = (
                    f"ffmpeg -v error -i {source} -c copy -f segment -segment_time 60 -reset_timestamps 1 -y".split()
                )
                alone.append(seconds_of(*words, Path(pieces) / "%04d.mp4") / gigabytes)
            with tempfile.TemporaryDirectory(dir=place) as pieces:
                cut = _cut(source, Path(pieces))
            ours.append((cut["own"] + cut["children"]) / gigabytes)
            own.append(cut["own"] / gigabytes)
            memory.append(max(cut["memory"], cut["own_memory"]) / 2**20)
    yield ratio("CPU of cutting: scan, cut, index first, check", ours, copied, unit="s/GB", peer="cp")
    yield ratio("the same", ours, alone, unit="s/GB", peer="ffmpeg -f segment")
    yield Figure("of that in the agent itself", "s/GB", own)
    yield Figure("peak memory while cutting, the larger of agent and ffmpeg", "MiB", memory)


def _recording(place: Path) -> Path:
    scene = record_long(place, place / "scene.mp4")
    if scene is None:
        raise RuntimeError("ffmpeg is needed: sudo apt install ffmpeg")
    source = place / "recording.mp4"
    ffmpeg("-stream_loop", str(SIZE_BYTES // scene.size_bytes), "-i", scene.path, "-c", "copy", source)
    scene.path.unlink()
    return source


def _cut(source: Path, pieces: Path) -> dict[str, float]:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CUT, str(source), str(pieces)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout
    cut: dict[str, float] = json.loads(said.splitlines()[-1])
    return cut
