"""Shows the complete journey of clips on this computer, in under a minute, without a camera or an account.

A simulated camera writes recordings, and the real daemon delivers them to a simulated API. Power fails during one
recording, one clip fails at the server once, and the link drops once. If ffmpeg is installed, a recording of three
minutes is too large for the API and is cut. At the end you see what became of each recording, with the proof that the
bytes that arrived are the bytes that were recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli import DONE, FAILED, USAGE
from agent.cli.render import COLOURS, clip_table, console, size
from agent.errors import SpoolError
from agent.media import ffmpeg as tools
from agent.model import State
from agent.spool.queries import open_ledger
from simulator.faults import Fault
from simulator.recorder import RecordedFile, Recorder
from simulator.simulate import MISSING, is_installed
from simulator.store import clip_name

if TYPE_CHECKING:
    from agent.spool.records import Record
    from simulator.server import Simulator

__all__ = ["HELP", "arguments", "is_installed", "run"]

HELP = "see it work on this computer, without camera or account"
FFMPEG_MISSING = "With ffmpeg (sudo apt install ffmpeg) this also shows a recording of three minutes, which is cut."

REGISTRATION = "DEMO123X"
MOMENTS = 4
CAMERAS = (1, 2)
CLIP_SECONDS = 60.0
CLIP_BYTES = 400_000
WRITING_SECONDS = 1.2
# Five seconds are encoded and repeated: as many bytes as a camera writes, at a fraction of the work.
LONG_SECONDS = 180
SCENE_SECONDS = 5
SCENE_BYTES = 1_750_000
TIMEOUT_SECONDS = 150.0
FINAL = (State.DELIVERED, State.REFUSED, State.LOST)

CONFIG = """\
[api]
base_url = "{base_url}"
username = "bench"
password_file = "{password}"

[[footage]]
path = "{footage}"
settle_seconds = 2
rescan_seconds = 5

[spool]
directory = "{spool}"
max_bytes = "1 GB"
min_free_bytes = 0

[upload]
linger_seconds = 1
batch_clips = 4

[clock]
trust = "always"

[log]
format = "json"
"""


@dataclass(frozen=True, slots=True)
class Journey:
    """What the camera recorded, and what became of it.

    Args:
        sums: the SHA-256 of each received file, by the clip's name at the API.
        split: the names of recordings that were cut and of which every frame arrived.
    """

    recorded: Sequence[RecordedFile]
    records: Sequence[Record]
    sums: dict[str, str]
    split: frozenset[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder, and leave it there")


def run(args: argparse.Namespace) -> int:
    if not is_installed():
        print(MISSING, file=sys.stderr)
        return USAGE
    with _work_folder(args.keep) as folder:
        journey = _run_journey(folder)
    proven = _show_results(journey)
    if not journey.split:
        print(FFMPEG_MISSING)
    return DONE if proven else FAILED


@contextmanager
def _work_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="vision-ingest-demo-") as folder:
        yield Path(folder)


def _run_journey(folder: Path) -> Journey:
    """Run the simulator, the camera and the daemon."""
    from simulator.server import Simulator

    received = folder / "received"
    recorded: list[RecordedFile] = []
    with Simulator(keep_directory=received) as simulator:
        config = _configure(folder, simulator.base_url)
        with _daemon(folder, config):
            camera = threading.Thread(target=_record, args=(folder / "footage", simulator, recorded), daemon=True)
            camera.start()
            records = _follow(folder / "spool", camera, recorded)
        sums = {video.name: video.sha256 for video in simulator.received}
    # Do not rely on the simulator's word: hash the files that it stored.
    on_disk = {hashlib.sha256(file.read_bytes()).hexdigest() for file in received.glob("*.mp4")}
    sums = {name: sha256 for name, sha256 in sums.items() if sha256 in on_disk}
    split = frozenset(one.path.name for one in recorded if _arrived_in_clips(one, records, sums, received))
    return Journey(recorded, records, sums, split)


def _arrived_in_clips(one: RecordedFile, records: Sequence[Record], sums: dict[str, str], received: Path) -> bool:
    """Whether a recording was cut and all its frames arrived unchanged and in order."""
    clips = sorted((r for r in records if r.footage.path == one.path), key=lambda record: record.piece)
    if len(clips) < 2 or not all(clip.state is State.DELIVERED for clip in clips):
        return False
    files = [received / f"{sums[_api_name(clip)]}.mp4" for clip in clips if _api_name(clip) in sums]
    return _frame_hashes(files) == _frame_hashes([one.path])


def _api_name(record: Record) -> str:
    """The clip's name at the simulated API."""
    key = record.key
    return clip_name(key.registration, str(key.camera), f"{key.start:%Y-%m-%d %H:%M:%S}") if key else ""


def _configure(folder: Path, base_url: str) -> Path:
    (folder / "footage").mkdir()
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text("bench\n")
    config = folder / "config.toml"
    config.write_text(
        CONFIG.format(base_url=base_url, password=password, footage=folder / "footage", spool=folder / "spool")
    )
    return config


@contextmanager
def _daemon(folder: Path, config: Path) -> Iterator[None]:
    """Run the daemon as a process of its own, as the service manager does."""
    environ = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(  # noqa: S603  # our own program and arguments
            [sys.executable, "-m", "agent.cli", "run", "--config", str(config)], stderr=log, env=environ
        )
        try:
            yield
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=10)


def _record(folder: Path, simulator: Simulator, recorded: list[RecordedFile]) -> None:
    """Record minute after minute on two channels, with some faults on the way. Runs in a thread of its own."""
    start = datetime.now(tz=timezone.utc).replace(microsecond=0) - timedelta(minutes=10)
    failing = start + timedelta(seconds=CLIP_SECONDS)
    simulator.faults.add(
        Fault(
            "reject",
            clip=f"{REGISTRATION} 1 {failing:%Y-%m-%d %H:%M:%S}",
            content="Temporary failure of the storage, try again.",
        )
    )
    long_start = start - timedelta(seconds=LONG_SECONDS)
    long = record_long(folder.parent, folder / f"{REGISTRATION}_3_{long_start:%Y%m%d_%H%M%S}.mp4")
    recorded += [long] if long else []
    recorder = Recorder(folder, REGISTRATION)
    for minute in range(MOMENTS):
        if minute == 2:
            simulator.faults.add(Fault("drop", seconds=3.0, path="bulk-upload"))
        for camera in CAMERAS:
            power_fails = minute == 1 and camera == 2
            recorded.append(
                recorder.record(
                    camera,
                    start + timedelta(seconds=minute * CLIP_SECONDS),
                    CLIP_SECONDS,
                    size_bytes=CLIP_BYTES,
                    event=minute == MOMENTS - 1,
                    writing_seconds=WRITING_SECONDS,
                    power_fails_at=0.6 if power_fails else 1.0,
                )
            )


def record_long(work: Path, target: Path) -> RecordedFile | None:
    """Write a recording of three minutes and over 60 MB, too large for the API.

    Args:
        work: a folder for intermediate files.
        target: appears when it is complete, as with a camera that renames its files.

    Returns:
        What was written; None if ffmpeg is not installed or cannot encode H.264.
    """
    if not tools.is_installed():
        return None
    scene, whole = work / "scene.mp4", work / "whole.mp4"
    kilobits = SCENE_BYTES * 8 // SCENE_SECONDS // 1000
    encode = (
        f"-f lavfi -i testsrc2=duration={SCENE_SECONDS}:size=640x360:rate=25 -vf noise=alls=60:allf=t -c:v libx264"
        f" -preset ultrafast -pix_fmt yuv420p -g 25 -b:v {kilobits}k -minrate {kilobits}k -maxrate {kilobits}k"
        f" -bufsize {kilobits}k -x264-params nal-hrd=cbr"
    )
    ffmpeg = ["ffmpeg", "-v", "error", "-nostdin", "-y"]
    try:
        _output(*ffmpeg, *encode.split(), scene)
    except subprocess.CalledProcessError:
        return None
    _output(*ffmpeg, "-stream_loop", LONG_SECONDS // SCENE_SECONDS - 1, "-i", scene, "-c", "copy", whole)
    digest = hashlib.sha256()
    with whole.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    size_bytes = whole.stat().st_size
    whole.rename(target)
    return RecordedFile(target, size_bytes, digest.hexdigest(), whole=True)


def _frame_hashes(files: Iterable[Path]) -> list[str]:
    """A hash of each stored frame of some files, in order."""
    words = "ffprobe -v error -select_streams v -show_data_hash MD5 -show_entries packet=data_hash -of csv=p=0"
    return [frame for file in files for frame in _output(*words.split(), file).split()]


def _output(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout  # noqa: S603  # our own arguments


def _follow(spool: Path, camera: threading.Thread, recorded: list[RecordedFile]) -> list[Record]:
    """Show a live table until every recording has a final state."""
    from rich.live import Live

    deadline = time.monotonic() + TIMEOUT_SECONDS
    records: list[Record] = []
    with Live(console=console(), refresh_per_second=5) as live:
        while time.monotonic() < deadline:
            records = _records(spool)
            live.update(clip_table(records))
            known = {record.footage.path.name for record in records}
            all_final = known >= {one.path.name for one in recorded} and all(r.state in FINAL for r in records)
            if all_final and not camera.is_alive():
                break
            time.sleep(0.2)
        # Clear it: the table of the results follows.
        live.update("")
    return records


def _records(spool: Path) -> list[Record]:
    try:
        with open_ledger(spool) as ledger:
            return list(ledger.records())
    except SpoolError:
        return []


def _show_results(journey: Journey) -> bool:
    """Show what became of every recording.

    Returns:
        Whether each recording was delivered with identical bytes or, if it was cut, identical frames; or refused
        because it was damaged.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("recording", "bytes", "state", "history", "proof"):
        table.add_column(heading, overflow="fold")
    proven = True
    for one in journey.recorded:
        clips = [record for record in journey.records if record.footage.path.name == one.path.name]
        if not clips:
            proven = False
            table.add_row(one.path.name, f"{one.size_bytes:,}", "[red]unknown", "", "")
            continue
        proof = _proof(one, clips, journey)
        proven &= proof is not None
        table.add_row(
            one.path.name,
            f"{one.size_bytes:,}",
            f"[{COLOURS[clips[0].state]}]{clips[0].state.value}",
            _history(clips),
            proof or "[red]FAILED",
        )
    screen = console()
    screen.print(table)
    refused = sum(record.state is not State.DELIVERED for record in journey.records)
    delivered = len(journey.recorded) - refused - len(journey.split)
    split = f"{len(journey.split)} cut into clips with every frame unchanged, " if journey.split else ""
    if proven:
        screen.print(
            f"[green]As expected:[/] {delivered} delivered byte for byte, {split}"
            f"{refused} refused with a reason, none lost."
        )
    else:
        screen.print("[red]Not as expected: see the table.[/]")
    return proven


def _proof(one: RecordedFile, clips: Sequence[Record], journey: Journey) -> str | None:
    """The evidence that a recording was handled correctly; None if it was not."""
    if not one.whole:
        return "not sent" if clips[0].state is State.REFUSED else None
    if one.path.name in journey.split:
        return f"frames received = frames recorded, in {len(clips)} clips"
    if clips[0].state is State.DELIVERED and journey.sums.get(_api_name(clips[0])) == one.sha256:
        return f"received = recorded, SHA-256 {one.sha256[:12]}…"
    return None


def _history(clips: Sequence[Record]) -> str:
    reasons = [change.reason for change in clips[0].history if change.reason]
    if len(clips) > 1:
        sizes = ", ".join(size(clip.stored.size_bytes) for clip in clips if clip.stored)
        reasons.insert(0, f"cut without encoding: {sizes}")
    return "; then ".join(reasons)
