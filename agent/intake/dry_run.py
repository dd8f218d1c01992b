"""Dry run: what the daemon would make of footage, without taking any of it in. For `vision-ingest inspect`."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from agent.config import Config, FootageFolder
from agent.device.safe_open import OpenFootage, open_footage, translated_errors
from agent.errors import FootageGone, FootageRefused
from agent.intake.identify.filename import Naming, is_proxy, read_name
from agent.intake.identify.reader import FootageReader, read_media
from agent.intake.identify.recording import Media, Recording
from agent.intake.identify.recording_time import check_recording_time
from agent.intake.planning import AsIs, PlanSettings, Reencode, Reject, Salvage, clips_of, plan
from agent.intake.scanner import NotFootage, matches_filters, stat_footage, walk
from agent.media import damage
from agent.media.ffmpeg import CancelToken, InputFile, probe_file
from agent.media.segments import MARGIN, Segment, plan_segments
from agent.media.transcode import read_gops
from agent.model import Clip

# The registration where none is configured yet, so that everything else can be shown.
NO_REGISTRATION = "NOT-SET"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the daemon would make of one file.

    Args:
        path: the file.
        size_bytes: 0 if it cannot be read.
        naming: what its name says.
        media: what it holds; None if that cannot be read.
        recording: what it is; None if it cannot be identified, for the reason in `refusal`.
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
    """Puts the footage below one folder, or one file, through the daemon's stages, and changes nothing.

    Args:
        folder: how names are read; paths are relative to its path.
        config: vehicle and limits.
    """

    def __init__(self, folder: FootageFolder, config: Config) -> None:
        self._folder = folder
        self._settings = PlanSettings(config.limits, config.conform)
        self._cancel = CancelToken(threading.Event())
        if not (config.vehicle.registration or folder.registration):
            config = replace(config, vehicle=replace(config.vehicle, registration=NO_REGISTRATION))
        self._conform = config.conform
        self._reader = FootageReader(folder, config, self._cancel.stop)

    def files(self, directory: Path) -> list[Path]:
        """The footage below a directory, in order.

        Raises:
            OSError: the directory cannot be read.
        """
        return sorted(found.path for found in walk(replace(self._folder, path=directory)))

    def count_others(self, directory: Path) -> Counter[str]:
        """What lies beside the footage: the number of proxy files, and of files of each other kind."""
        kinds: Counter[str] = Counter()
        for _, folders, names in os.walk(directory):
            folders[:] = [name for name in folders if not name.startswith(".")] if self._folder.recursive else []
            for name in names:
                if not matches_filters(self._folder, name):
                    kind = Path(name).suffix.lower() or "files without an ending"
                    kinds["smaller copies" if is_proxy(name, self._folder) else kind] += 1
        return kinds

    def inspect(self, path: Path, now: datetime, *, exact: bool = True) -> Finding | None:
        """What the daemon would make of a file; None if it is gone.

        Args:
            path: below the folder.
            now: this device's clock, aware.
            exact: read every packet of footage that would be cut, to find out where; else its clips are an estimate.
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
            return self._inspect(path, naming, now, exact=exact)
        except FootageGone:
            return None
        except FootageRefused as refusal:
            return Finding(path, found.size_bytes if found else 0, naming, refusal=refusal.reason)

    def _inspect(self, path: Path, naming: Naming, now: datetime, *, exact: bool) -> Finding:
        """Opens, identifies and plans, as the intake does.

        Raises:
            FootageGone: it vanished.
            FootageRefused: it cannot be opened.
        """
        with open_footage(path) as opened:
            finding = Finding(path, opened.footage.size_bytes, naming)
            try:
                recording = self._reader.read(opened, is_abandoned=not opened.is_being_written())
                if recording is not None:
                    check_recording_time(recording.start, recording.end, now)
            except FootageRefused as refusal:
                return replace(finding, media=self._media(opened), refusal=refusal.reason)
            if recording is None:
                return replace(finding, refusal="it is not complete: it is still being written or copied")
            finding = replace(finding, media=recording.media, recording=recording)
            try:
                return replace(finding, clips=tuple(self._clips(recording, opened, exact=exact)))
            except FootageRefused as refusal:
                return replace(finding, refusal=refusal.reason)

    def _media(self, opened: OpenFootage) -> Media | None:
        """What a file holds that cannot be identified; None if that cannot be read either."""
        try:
            return read_media(opened, self._conform, self._cancel)
        except FootageRefused:
            return None

    def _clips(self, recording: Recording, opened: OpenFootage, *, exact: bool) -> Sequence[Clip]:
        """The clips that the daemon would make of a recording.

        Raises:
            FootageRefused: it would make none.
        """
        chosen = plan(recording, self._settings)
        if isinstance(chosen, Reject):
            raise chosen.error
        if isinstance(chosen, AsIs):
            return [chosen.clip]
        if not exact or isinstance(chosen, Reencode):
            return clips_of(recording, self._estimate(recording), "as far as can be told without reading it all")
        segments = self._segments(recording, opened)
        if isinstance(chosen, Salvage) and isinstance(chosen.if_intact, AsIs) and all(s.is_intact for s in segments):
            return [chosen.if_intact.clip]
        return clips_of(recording, segments, "without encoding")

    def _segments(self, recording: Recording, opened: OpenFootage) -> Sequence[Segment]:
        """What the conformer would cut the footage into, by reading every packet of it."""
        source = InputFile(opened.file.fileno(), recording.media.container)
        with translated_errors(recording.footage.path):
            gops = read_gops(source, probe_file(source, self._cancel), self._cancel)
            segments = plan_segments(gops, self._settings.limits)
        if not any(segment.is_intact for segment in segments):
            raise FootageRefused(damage.diagnose_without_frames(bool(segments)))
        return segments

    def _estimate(self, recording: Recording) -> Sequence[Segment]:
        """As few segments of equal length as the limits allow, as if every second had as many bytes."""
        limits = self._settings.limits
        seconds, size_bytes = recording.media.duration_seconds, recording.footage.size_bytes
        count = math.ceil(max(size_bytes / limits.max_bytes, seconds / limits.max_seconds) / MARGIN)
        each = seconds / count
        return [Segment(number, number * each, (number + 1) * each, size_bytes // count) for number in range(count)]


def footage_folder(path: Path, config: Config) -> FootageFolder | None:
    """The configured folder that a path is, or lies in; None if none is."""
    place = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links, and the daemon never does
    inside = [folder for folder in config.footage if folder.path == place or folder.path in place.parents]
    return max(inside, key=lambda folder: len(folder.path.parts), default=None)
