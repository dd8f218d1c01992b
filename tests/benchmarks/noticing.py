"""From closing a file to the first byte on the wire, compared with a shell script with inotifywait."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

from simulator.recorder import recording
from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_most, ratio
from tests.benchmarks.sender import START
from tests.benchmarks.sink import Served, Sink, sink
from tests.support.daemon import await_until

FILES = 5
CLIP_BYTES = 1_000_000

# What a user would otherwise write: it waits for closed files and tries each until the API has it.
SCRIPT = r"""
inotifywait -m -q -r -e close_write -e moved_to --format '%w%f' --include '\.mp4$' "$FOOTAGE" |
while read -r file; do
    name=$(basename "$file" .mp4)
    IFS=_ read -r registration camera day hour <<< "$name"
    start="${day:0:4}-${day:4:2}-${day:6:2} ${hour:0:2}:${hour:2:2}:${hour:4:2}"
    end=$(date -u -d "$start UTC + 60 seconds" '+%F %T')
    delay=1
    until curl -sS --fail --cacert "$CA" -u bench:bench -o /dev/null \
        -F "registration=$registration" -F "camera=$camera" -F "start_timestamp=$start" -F "end_timestamp=$end" \
        -F "video_file=@$file;type=video/mp4" "$URL/vision/video/upload"; do
        sleep $delay
        delay=$((delay < 300 ? delay * 2 : 300))
    done
done
"""


def measure(rounds: int) -> Iterable[Figure]:
    ours, theirs = [], []
    for _ in range(rounds):
        with _folder() as folder, sink() as api, MeasuredDaemon(folder, api) as daemon:
            ours.append(_median_delay(daemon.footage, api))
        with _folder() as folder, sink() as api, _script(folder, api):
            theirs.append(_median_delay(folder, api))
    yield Figure("file closed to first byte on the wire, median", "ms", [1000 * delay for delay in ours], at_most(50))
    yield ratio("file closed to first byte", ours, theirs, unit="s", peer="inotifywait and curl")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vision-ingest-noticing-") as directory:
        yield Path(directory)


@contextmanager
def _script(footage: Path, api: Sink) -> Iterator[None]:
    environ = os.environ | {"FOOTAGE": str(footage), "CA": str(api.ca_file), "URL": api.base_url}
    process = subprocess.Popen(["bash", "-c", SCRIPT], env=environ, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=10)


def _median_delay(footage: Path, api: Sink) -> float:
    """Median delay in seconds for several files in sequence, without the first, which opens the connection."""
    content = recording(60.0, size_bytes=CLIP_BYTES)
    time.sleep(1.5)  # whoever watches has begun to
    delays: list[float] = []
    for number in range(FILES + 1):
        path = footage / f"ABC1234X_1_{START + timedelta(minutes=number):%Y%m%d_%H%M%S}.mp4"
        path.write_bytes(content)
        closed = time.time()
        delays.append(_await_upload(api, number).began - closed)
        time.sleep(0.3)
    return median(delays[1:])


def _await_upload(api: Sink, number: int) -> Served:
    await_until(lambda: len(api.uploads()) > number, "the file has arrived", 60)
    return api.uploads()[number]
