"""What a settled file is, read by whichever reader can: as a whole, or what damage left of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from agent.config import Config, Conform, FootageFolder
from agent.device.clock import ClockSegment
from agent.device.safe_open import RETRY_REFUSED_SECONDS, open_regular_file
from agent.errors import FootageGone, FootageIncomplete, FootageRefused
from agent.intake.identify.inspector import MAX_DURATION_SECONDS, Inspector, read_mp4
from agent.intake.identify.recording import MP4, Media
from agent.intake.identify.recording_time import resolve_against_clock
from agent.intake.planning import ConformJob
from agent.media import damage
from agent.media.ffmpeg import CancelToken, InputFile, container_of, is_installed, needs_ffmpeg, probe_file
from agent.model import Clip, ClipKey, Footage


class FootageReader:
    """Reads the footage of one folder.

    Args:
        folder: how the files are named, and the camera's clock.
        config: vehicle and limits.
        stop: set when the daemon is to stop.

    Attributes:
        fingerprint: changes whenever something changes that decides what is refused: a setting, or the presence of
            ffmpeg.
    """

    def __init__(self, folder: FootageFolder, config: Config, stop: threading.Event) -> None:
        media = MediaReader(config.conform, CancelToken(stop))
        self._inspector = Inspector(folder, config, media.read)
        self._salvager = Inspector(folder, config, media.read_damaged)
        self.fingerprint = f"{self._inspector.fingerprint}{'-with-ffmpeg' if is_installed() else ''}"

    def read(self, footage: Footage, settings: Sequence[ClockSegment], *, is_abandoned: bool) -> ConformJob | None:
        """What a settled file is; None if it is not whole and someone may still be writing it.

        Args:
            footage: as it settled.
            settings: how this device's clock was set in this boot.
            is_abandoned: nobody will make it whole any more.

        Raises:
            FootageRefused: it cannot be delivered; the reason says why and what to do.
            FootageGone: it vanished, or changed since it settled.
            Cancelled: the daemon is to stop.
        """
        try:
            job = ConformJob(self._inspector.recording(footage.path))
        except FootageIncomplete:
            if not is_abandoned:
                return None
            job = ConformJob(self._salvager.recording(footage.path), is_whole=False)
        recording = job.recording
        if recording.footage != footage:
            raise FootageGone("it changed after it had settled")
        # What is refused for its time need not be cut first.
        video = ClipKey(recording.registration, recording.camera, recording.start, recording.end)
        resolve_against_clock([Clip(footage, video)], settings)
        return job


class MediaReader:
    """Reads what a file holds, for the inspector.

    Args:
        conform: whether other containers than MP4, and damage, may be worked on.
        watch: ffprobe is given up when it says stop.
    """

    def __init__(self, conform: Conform, watch: CancelToken) -> None:
        self._conform = conform
        self._watch = watch

    def read(self, path: Path) -> tuple[Footage, Media]:
        """The headers of a whole file.

        Raises:
            FootageIncomplete: it is no whole MP4, but may become one.
            FootageRefused: it is no video, or ffprobe is needed to read it and is not installed.
            FootageGone: it vanished, or changed while it was read.
            Cancelled: the daemon is to stop.
        """
        with open_regular_file(path) as file:
            container = container_of(file) if self._conform.enabled else None
        return read_mp4(path) if container is None else self._probed(path, container, f"it is {container}")

    def read_damaged(self, path: Path) -> tuple[Footage, Media]:
        """The headers of an MP4 that is not whole, and that nobody writes any more.

        Raises:
            FootageRefused: nothing of it can be saved; the reason is the likely cause.
            FootageGone, Cancelled: as `read`.
        """
        with open_regular_file(path) as file:
            if not damage.has_index(file):
                raise FootageRefused(damage.diagnose(file))
        if not self._conform.enabled:
            raise FootageRefused(f"{damage.CUT}: with conform.enabled = true its good part can be saved")
        return self._probed(path, MP4, damage.CUT)

    def _probed(self, path: Path, container: str, why: str) -> tuple[Footage, Media]:
        if not is_installed():
            raise FootageRefused(needs_ffmpeg(why), RETRY_REFUSED_SECONDS)
        with open_regular_file(path) as file:
            footage = Footage.from_stat(path, os.fstat(file.fileno()))
            facts = probe_file(InputFile(file.fileno(), container), self._watch)
            if Footage.from_stat(path, os.fstat(file.fileno())) != footage:
                raise FootageGone("it changed while it was read")
        if facts.duration_seconds > MAX_DURATION_SECONDS:
            raise FootageRefused(f"it lasts {facts.duration_seconds:,.0f} s by its headers: the file is damaged")
        return footage, Media(container, facts.code, facts.duration_seconds)
