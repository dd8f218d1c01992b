"""Clips, a clock and the usual moves for tests of the spool."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.config import SpoolSettings
from agent.device.safe_open import open_footage
from agent.model import Clip, ClipKey, Footage, Upload
from agent.spool import NotTaken, Spool, Taken
from agent.spool.admission import Pieces
from agent.spool.clip_queue import ClipQueue
from agent.spool.records import Record

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)


class Clock:
    """Unix seconds, moved only by the test."""

    def __init__(self) -> None:
        self.seconds = 1_780_000_000.0

    def __call__(self) -> float:
        return self.seconds


def make_clip(folder: Path, number: int, content: bytes = b"x" * 100, **changes: object) -> Clip:
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.mp4"
    path.write_bytes(content)
    start = START + timedelta(minutes=number)
    clip = Clip(
        Footage.from_stat(path, path.stat()), ClipKey("ABC1234X", 1, start, start + timedelta(seconds=60)), sources={}
    )
    return replace(clip, **changes)  # type: ignore[arg-type]


def take_in(spool: Spool, pieces: Pieces) -> list[Taken]:
    """Takes in the clips of one piece of footage; raises why it was not taken in."""
    (outcome,) = spool.take_in_group([pieces])
    if isinstance(outcome, list):
        return outcome
    raise outcome


def take(spool: Spool, clip: Clip) -> Taken:
    """Takes in a whole file of footage, as intake does: opened once."""
    with open_footage(clip.footage.path) as opened:
        (taken,) = take_in(spool, [(clip, opened)])
    return taken


def take_all(spool: Spool, clips: Iterable[Clip]) -> list[list[Taken] | NotTaken]:
    """Takes in many at once, which costs one commit."""
    with ExitStack() as files:
        return spool.take_in_group([[(clip, files.enter_context(open_footage(clip.footage.path)))] for clip in clips])


def add_records(queue: ClipQueue, records: Iterable[Record]) -> list[int]:
    """Adds rows without stored files, in one transaction, and returns their numbers."""
    with queue.transaction() as db:
        return [queue.enter(db, record) for record in records]


def claim(spool: Spool, most: int = 100) -> list[Upload]:
    return spool.claim(lambda ready: [upload for _, upload in zip(range(most), ready, strict=False)])


def stored(settings: SpoolSettings) -> list[Path]:
    return sorted((settings.directory / "clips").iterdir())


def reopen(spool: Spool, settings: SpoolSettings, clock: Clock) -> Spool:
    spool.close()
    return Spool(settings, clock)
