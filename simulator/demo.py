"""Shows the whole journey of clips on this computer, in under a minute, without a camera or an account.

A pretend camera writes recordings, the real daemon delivers them to a simulated API. One recording is cut by a power
failure, one clip fails at the server once, and the link drops once. Where ffmpeg is installed, a recording of three
minutes is too large for the API and is cut. At the end each clip's fate is shown, and the proof that the bytes that
arrived are the bytes that were recorded.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.tables import size
from agent.errors import SpoolError
from agent.model import State
from agent.spool.ledger import open_ledger
from simulator import demo_long
from simulator.simulate import MISSING, is_installed

__all__ = ["HELP", "arguments", "is_installed", "run"]

if TYPE_CHECKING:
    from agent.spool.records import Record
    from simulator.recorder import RecordedFile
    from simulator.server import Simulator

HELP = "see it work on this computer, without camera or account"

REGISTRATION = "DEMO123X"
MOMENTS = 4
CAMERAS = (1, 2)
CLIP_SECONDS = 60.0
CLIP_BYTES = 400_000
WRITING_SECONDS = 1.2
PATIENCE_SECONDS = 150.0
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
        sums: the SHA-256 of each received file by the clip's name at the API.
        split: the names of recordings that were cut and whose every picture arrived.
    """

    recorded: Sequence[RecordedFile]
    records: Sequence[Record]
    sums: dict[str, str]
    split: frozenset[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder, and leave it there")


def run(args: argparse.Namespace) -> int:
    from agent.cli import DONE, FAILED, USAGE

    if not is_installed():
        print(MISSING, file=sys.stderr)
        return USAGE
    with _workplace(args.keep) as place:
        journey = _journey(place)
    proven = _show_fates(journey)
    if not journey.split:
        print(demo_long.MISSING)
    return DONE if proven else FAILED


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="vision-ingest-demo-") as place:
        yield Path(place)


def _journey(place: Path) -> Journey:
    """Everything runs: simulator, camera and daemon."""
    from simulator.server import Simulator

    kept = place / "received"
    recorded: list[RecordedFile] = []
    with Simulator(keep_directory=kept) as simulator:
        config = _configure(place, simulator.base_url)
        with _daemon(place, config):
            camera = threading.Thread(target=_film, args=(place / "footage", simulator, recorded), daemon=True)
            camera.start()
            records = _follow(place / "spool", camera, recorded)
        sums = {video.name: video.sha256 for video in simulator.received}
        # What the simulator claims is not taken on trust: the files that it kept are read again.
        on_disk = {hashlib.sha256(file.read_bytes()).hexdigest() for file in kept.glob("*.mp4")}
    sums = {name: sha256 for name, sha256 in sums.items() if sha256 in on_disk}
    split = frozenset(one.path.name for one in recorded if _arrived_in_pieces(one, records, sums, kept))
    return Journey(recorded, records, sums, split)


def _arrived_in_pieces(one: RecordedFile, records: Sequence[Record], sums: dict[str, str], kept: Path) -> bool:
    """Whether a recording was cut and each of its pictures received, as it was and in order."""
    pieces = sorted((r for r in records if r.footage.path == one.path), key=lambda record: record.piece)
    if len(pieces) < 2 or not all(piece.state is State.DELIVERED for piece in pieces):
        return False
    received = [kept / f"{sums[_clip_name(piece)]}.mp4" for piece in pieces if _clip_name(piece) in sums]
    return demo_long.pictures_of(received) == demo_long.pictures_of([one.path])


def _clip_name(record: Record) -> str:
    """A clip's name at the simulated API."""
    from simulator.store import clip_name

    key = record.key
    return clip_name(key.registration, str(key.camera), f"{key.start:%Y-%m-%d %H:%M:%S}") if key else ""


def _configure(place: Path, base_url: str) -> Path:
    (place / "footage").mkdir()
    password = place / "password"
    password.touch(mode=0o600)
    password.write_text("bench\n")
    config = place / "config.toml"
    config.write_text(
        CONFIG.format(base_url=base_url, password=password, footage=place / "footage", spool=place / "spool")
    )
    return config


@contextmanager
def _daemon(place: Path, config: Path) -> Iterator[None]:
    """The daemon as a process of its own, as the service manager would run it."""
    environ = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    with (place / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(  # noqa: S603  # our own program, with our own arguments
            [sys.executable, "-m", "agent.cli", "run", "--config", str(config)], stderr=log, env=environ
        )
        try:
            yield
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=10)


def _film(folder: Path, simulator: Simulator, recorded: list[RecordedFile]) -> None:
    """Two channels record minute after minute; things go wrong on the way."""
    from simulator.faults import Fault
    from simulator.recorder import Recorder

    start = datetime.now(tz=timezone.utc).replace(microsecond=0) - timedelta(minutes=10)
    failing = start + timedelta(seconds=CLIP_SECONDS)
    simulator.faults.add(
        Fault(
            "reject",
            clip=f"{REGISTRATION} 1 {failing:%Y-%m-%d %H:%M:%S}",
            content="Temporary failure of the storage, try again.",
        )
    )
    long_start = start - timedelta(seconds=demo_long.SECONDS)
    long = demo_long.record(folder.parent, folder / f"{REGISTRATION}_3_{long_start:%Y%m%d_%H%M%S}.mp4")
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


def _follow(spool: Path, camera: threading.Thread, recorded: list[RecordedFile]) -> list[Record]:
    """A live view until each recording has its fate."""
    from rich.live import Live

    from agent.cli.tables import clip_table, console

    deadline = time.monotonic() + PATIENCE_SECONDS
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
        # What stays on the screen is the table at the end, which says more.
        live.update("")
    return records


def _records(spool: Path) -> list[Record]:
    try:
        with open_ledger(spool) as ledger:
            return list(ledger.records())
    except SpoolError:
        return []


def _show_fates(journey: Journey) -> bool:
    """The fate of every recording, and whether what arrived is what was recorded.

    Returns:
        Whether each recording was delivered with identical bytes or, if it was cut, identical pictures; or refused
        because it was damaged.
    """
    from rich import box
    from rich.table import Table

    from agent.cli.tables import COLOURS, console

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("recording", "bytes", "fate", "story", "proof"):
        table.add_column(heading, overflow="fold")
    proven = True
    for one in journey.recorded:
        pieces = [record for record in journey.records if record.footage.path.name == one.path.name]
        if not pieces:
            proven = False
            table.add_row(one.path.name, f"{one.size_bytes:,}", "[red]unknown", "", "")
            continue
        proof = _proof(one, pieces, journey)
        proven &= proof is not None
        table.add_row(
            one.path.name,
            f"{one.size_bytes:,}",
            f"[{COLOURS[pieces[0].state]}]{pieces[0].state.value}",
            _story(pieces),
            proof or "[red]FAILED",
        )
    screen = console()
    screen.print(table)
    refused = sum(record.state is not State.DELIVERED for record in journey.records)
    delivered = len(journey.recorded) - refused - len(journey.split)
    split = f"{len(journey.split)} cut into clips with every picture as it was, " if journey.split else ""
    verdict: dict[bool, Any] = {
        True: f"[green]All as it should be:[/] {delivered} delivered byte for byte, {split}"
        f"{refused} refused with a reason, none lost.",
        False: "[red]Not as it should be: see the table.[/]",
    }
    screen.print(verdict[proven])
    return proven


def _proof(one: RecordedFile, pieces: Sequence[Record], journey: Journey) -> str | None:
    """How it is known that all is as it should be; None if it is not."""
    if not one.whole:
        return "not sent" if pieces[0].state is State.REFUSED else None
    if one.path.name in journey.split:
        return f"pictures received = pictures recorded, in {len(pieces)} clips"
    if pieces[0].state is State.DELIVERED and journey.sums.get(_clip_name(pieces[0])) == one.sha256:
        return f"received = recorded, SHA-256 {one.sha256[:12]}…"
    return None


def _story(pieces: Sequence[Record]) -> str:
    reasons = [change.reason for change in pieces[0].history if change.reason]
    if len(pieces) > 1:
        sizes = ", ".join(size(piece.stored.size_bytes) for piece in pieces if piece.stored)
        reasons.insert(0, f"cut without encoding: {sizes}")
    return "; then ".join(reasons)
