"""The headers of footage in any container: MP4 and MOV by our own reader, the others by ffprobe."""

from __future__ import annotations

import os
from pathlib import Path

from agent.config import Conform
from agent.device.safe_open import RETRY_REFUSED_SECONDS, open_regular_file
from agent.errors import FootageGone, FootageRefused
from agent.intake.conform import damage
from agent.intake.conform.probe import InputFile, container_of, probe_file
from agent.intake.conform.process import CancelToken, is_installed
from agent.intake.fitting import MP4
from agent.intake.inspection import MAX_DURATION_SECONDS, read_mp4
from agent.intake.recording import Media
from agent.model import Footage

INSTALL = "sudo apt install ffmpeg"


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


def needs_ffmpeg(why: str) -> str:
    """The refusal of what only ffmpeg can do."""
    return f"{why}: to deliver it, the agent needs ffmpeg: {INSTALL}; looked at again in 10 minutes"
