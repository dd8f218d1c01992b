"""What a settled file is, read by whichever reader can: as a whole, or what damage left of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from agent.config import Config, FootageFolder
from agent.device.clock import ClockSegment
from agent.errors import FootageGone, FootageIncomplete
from agent.intake.conform.media import MediaReader
from agent.intake.conform.process import CancelToken, is_installed
from agent.intake.conform.work import ConformJob
from agent.intake.dating import resolve_against_clock
from agent.intake.inspection import Inspector
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
