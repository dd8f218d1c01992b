"""What would become of footage, without taking any of it in: for `vision-ingest inspect`."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from agent.config import Config, FootageFolder
from agent.errors import FootageGone, FootageRefused
from agent.intake.identify.filename import Naming, is_proxy, read_name
from agent.intake.identify.inspector import Inspector, read_mp4
from agent.intake.identify.reader import MediaReader
from agent.intake.identify.recording import Media, Recording
from agent.intake.planning import ConformJob, forecast, needs_work, passthrough
from agent.intake.scanner import NotFootage, matches_filters, stat_footage, walk
from agent.media.ffmpeg import CancelToken
from agent.model import Clip, Footage

# Stands for the registration where none is known yet: everything else can be shown all the same.
NO_REGISTRATION = "NOT-SET"


@dataclass(frozen=True, slots=True)
class Finding:
    """What would become of one file.

    Args:
        path: the file.
        size_bytes: 0 if it could not be looked at.
        naming: what its name says.
        media: what it holds; None if that cannot be read.
        recording: what it is; None if that is not known, for the reason in `refusal`.
        clips: what would be delivered; empty if nothing would, for the reason in `refusal`.
    """

    path: Path
    size_bytes: int
    naming: Naming
    media: Media | None = None
    recording: Recording | None = None
    clips: tuple[Clip, ...] = ()
    refusal: str = ""


class DryRun:
    """Looks at the footage below one folder, or at one file, as the daemon would.

    Args:
        folder: says how names are read; its path is where the names begin.
        config: vehicle and limits.
    """

    def __init__(self, folder: FootageFolder, config: Config) -> None:
        self._folder = folder
        self._limits = config.limits
        self._conform = config.conform
        self._watch = CancelToken(threading.Event())
        if not (config.vehicle.registration or folder.registration):
            config = replace(config, vehicle=replace(config.vehicle, registration=NO_REGISTRATION))
        self._inspector = Inspector(folder, config, MediaReader(config.conform, self._watch).read)

    def files(self, directory: Path) -> list[Path]:
        """The footage below a directory, in order.

        Raises:
            OSError: the directory cannot be read.
        """
        return sorted(found.path for found in walk(replace(self._folder, path=directory)))

    def others(self, directory: Path) -> Counter[str]:
        """What lies beside the footage: how many smaller copies, and how many files of each other kind."""
        kinds: Counter[str] = Counter()
        for _, folders, names in os.walk(directory):
            folders[:] = [name for name in folders if not name.startswith(".")] if self._folder.recursive else []
            for name in names:
                if not matches_filters(self._folder, name):
                    kind = Path(name).suffix.lower() or "files without an ending"
                    kinds["smaller copies" if is_proxy(name, self._folder) else kind] += 1
        return kinds

    def look_at(self, path: Path, now: datetime, *, exactly: bool = True) -> Finding | None:
        """What would become of a file; None if it is gone.

        Args:
            path: below the folder.
            now: this device's clock, aware.
            exactly: read all of what is to be cut, to tell where; without, the clips are an estimate.
        """
        found = stat_footage(path)
        naming = read_name(path.relative_to(self._folder.path).as_posix(), self._folder)
        if isinstance(found, NotFootage):
            return Finding(path, 0, naming, refusal=found.reason)
        if not matches_filters(self._folder, path.name):
            copy = is_proxy(path.name, self._folder)
            refusal = "it is a smaller copy of a recording" if copy else "its name is not in include, or is in exclude"
            return Finding(path, found.size_bytes if found else 0, naming, refusal=f"it is passed over: {refusal}")
        try:
            return self._decide(found, naming, now, exactly=exactly) if found is not None else None
        except FootageGone:
            return None

    def _decide(self, footage: Footage, naming: Naming, now: datetime, *, exactly: bool) -> Finding:
        finding = Finding(footage.path, footage.size_bytes, naming)
        try:
            recording = self._inspector.recording(footage.path, now)
        except FootageRefused as refusal:
            return replace(finding, media=_media(footage.path), refusal=refusal.reason)
        finding = replace(finding, media=recording.media, recording=recording)
        try:
            return replace(finding, clips=self._clips(recording, exactly=exactly))
        except FootageRefused as refusal:
            return replace(finding, refusal=refusal.reason)

    def _clips(self, recording: Recording, *, exactly: bool) -> tuple[Clip, ...]:
        """What the daemon would make of a recording.

        Raises:
            FootageRefused: nothing.
        """
        if needs_work(ConformJob(recording), self._limits, self._conform):
            return tuple(forecast(recording, self._limits, self._watch, exactly=exactly))
        return (passthrough(recording, self._limits),)


def _media(path: Path) -> Media | None:
    try:
        return read_mp4(path)[1]
    except FootageRefused:
        return None


def footage_folder(path: Path, config: Config) -> FootageFolder | None:
    """The configured folder that a path is, or lies in; None if none is."""
    place = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links, and the daemon never does
    inside = [folder for folder in config.footage if folder.path == place or folder.path in place.parents]
    return max(inside, key=lambda folder: len(folder.path.parts), default=None)
