"""From footage to queue, and what a clip costs the card, compared with bare SQLite commits and `cp`."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from agent.model import State
from agent.spool.queries import READY, TABLE, open_ledger
from agent.spool.store import open_database
from simulator.recorder import recording, recording_blocks
from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_least, at_most, ratio
from tests.benchmarks.sender import START
from tests.benchmarks.sink import sink
from tests.support.daemon import await_until

QUEUED_CLIPS = 1000
QUEUED_SLOWLY_CLIPS = 200
QUEUED_BYTES = 20_000
# What a row of the queue takes.
ROW_BYTES = 700
CLIP_BYTES = 48_000_000
BATCH_CLIPS = 20
BATCHES = f'batch_clips = {BATCH_CLIPS}\nbatch_bytes = "1 GB"\nlinger_seconds = 1'

# A disk of a computer syncs in a tenth of a millisecond, a card in a device needs several.
SYNC_DELAY = ("-e", "inject=fsync,fdatasync:delay_exit=5000")
STRACE = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync")
INSERT = f"INSERT INTO {TABLE} (data, timestamp, status, bytes, identity, video) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608


def measure(rounds: int) -> Iterable[Figure]:
    queued, bare, queued_slowly, bare_slowly, written, copied, syncs = [], [], [], [], [], [], []
    slowly = (*STRACE, "-o", os.devnull, *SYNC_DELAY)
    for _ in range(rounds):
        queued.append(_queued_per_second(QUEUED_CLIPS))
        bare.append(_commits_per_second(QUEUED_CLIPS))
        queued_slowly.append(_queued_per_second(QUEUED_SLOWLY_CLIPS, slowly))
        bare_slowly.append(_commits_per_second(QUEUED_SLOWLY_CLIPS, slowly))
        ours, theirs, calls = _delivery()
        written.append(ours / 1000)
        copied.append(theirs / 1000)
        syncs.append(calls)
    name, unit, peer, goal = "footage to queued", "clips/s", "bare SQLite commits", at_least(0.5)
    yield ratio(name, queued, bare, unit=unit, peer=peer, goal=goal)
    yield ratio(f"{name}, each sync 5 ms longer", queued_slowly, bare_slowly, unit=unit, peer=peer, goal=goal)
    yield Figure("written to disk per clip of 48 MB, arrival to delivered", "KB", written, at_most(64))
    yield ratio("the same", written, copied, unit="KB", peer="cp")
    yield Figure(f"fsync and fdatasync per delivered clip, batches of {BATCH_CLIPS}", "", syncs, at_most(3))


@contextmanager
def _place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vision-ingest-spooling-") as directory:
        yield Path(directory)


def _name(number: int) -> str:
    return f"ABC1234X_1_{START + timedelta(minutes=number):%Y%m%d_%H%M%S}.mp4"


def _queued_per_second(clips: int, launcher: Sequence[str] = ()) -> float:
    """Clips per second, from readiness of the daemon until all clips on the card have rows."""
    with _place() as place:
        daemon = MeasuredDaemon(place, None, {"[footage]": "settle_seconds = 0"})
        daemon.launcher = [*launcher]
        for number in range(clips):
            with (daemon.footage / _name(number)).open("wb") as file:
                file.write(recording(60.0, size_bytes=QUEUED_BYTES, seed=str(number)))
                os.fsync(file.fileno())
        with daemon, open_ledger(daemon.spool) as ledger:
            began = time.monotonic()
            await_until(lambda: ledger.counts()[State.WAITING].clips == clips, "all clips have rows", 120)
            return clips / (time.monotonic() - began)


def _commits_per_second(commits: int, launcher: Sequence[str] = ()) -> float:
    """Commits per second of SQLite, one row each, in a process of its own."""
    with _place() as place:
        command = [*launcher, sys.executable, "-m", "tests.benchmarks.spooling", str(place), str(commits)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def commit_rows(directory: Path, commits: int) -> float:
    """Commit rows like those of the queue one by one, with the same indexes and durability.

    Returns:
        Commits per second.
    """
    db = open_database(directory)
    db.isolation_level = None
    began = time.monotonic()
    for number in range(commits):
        row = (os.urandom(ROW_BYTES), time.time(), READY, QUEUED_BYTES, os.urandom(16).hex(), _name(number))
        db.execute(INSERT, row)
    seconds = time.monotonic() - began
    db.close()
    return commits / seconds


def _delivery() -> tuple[float, float, float]:
    """Let clips arrive together and be delivered in one request.

    Returns:
        Per clip: bytes written by the daemon, bytes written by `cp`, and syncs.
    """
    with _place() as place, sink() as api:
        daemon = MeasuredDaemon(place, api, {"upload": BATCHES, "[footage]": "settle_seconds = 1"})
        trace = place / "trace"
        daemon.launcher = [*STRACE, "-ttt", "-o", str(trace)]
        recorded = place / "recorded.mp4"
        with recorded.open("wb") as file:
            for block in recording_blocks(60.0, size_bytes=CLIP_BYTES):
                file.write(block)
        with daemon:
            began, before = time.time(), _written_bytes(daemon)
            for number in range(BATCH_CLIPS):
                (daemon.footage / _name(number)).hardlink_to(recorded)
            daemon.await_records(BATCH_CLIPS, State.DELIVERED)
            ended, after = time.time(), _written_bytes(daemon)
        synced = [float(at) for at in re.findall(r"^\d+ +([\d.]+) f(?:data)?sync\(", trace.read_text(), re.MULTILINE)]
        calls = sum(began < at < ended for at in synced)
        return (after - before) / BATCH_CLIPS, _copied_bytes(recorded), calls / BATCH_CLIPS


def _written_bytes(daemon: MeasuredDaemon) -> int:
    """The bytes that the process has written to disks (proc(5))."""
    counts = Path(f"/proc/{daemon.process.pid}/io").read_text()
    return int(counts.split("\nwrite_bytes: ")[1].split()[0])


def _copied_bytes(file: Path) -> float:
    """The bytes that `cp` writes for one clip; getrusage(2) counts blocks of 512 bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock
    subprocess.run(["cp", str(file), str(file.with_suffix(".copy"))], check=True)
    return (resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - before) * 512


if __name__ == "__main__":
    print(commit_rows(Path(sys.argv[1]), int(sys.argv[2])))
