"""Clips, a clock and the usual moves for tests of the spool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.config import SpoolSettings
from agent.model import Clip, ClipKey, Footage, Upload
from agent.spool import Spool, Taken

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)


class Clock:
    """Unix seconds that only the test moves."""

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


def take(spool: Spool, clip: Clip) -> Taken:
    (taken,) = spool.take_in([(clip, clip.footage.path)])
    return taken


def take_all(spool: Spool, clips: Iterable[Clip]) -> None:
    """Takes in many at once, which costs one commit."""
    spool.take_in_group([[(clip, clip.footage.path)] for clip in clips])


def claim(spool: Spool, most: int = 100) -> list[Upload]:
    return spool.claim(lambda ready: [upload for _, upload in zip(range(most), ready, strict=False)])


def stored(settings: SpoolSettings) -> list[Path]:
    return sorted((settings.directory / "clips").iterdir())


def reopen(spool: Spool, settings: SpoolSettings, clock: Clock) -> Spool:
    spool.close()
    return Spool(settings, clock)
