"""What an open file of footage holds and what recording it is: whole files, and what damage left of an MP4."""

from __future__ import annotations

import threading

from agent.config import Config, Conform, FootageFolder
from agent.device.safe_open import RETRY_REFUSED_SECONDS, OpenFootage, translated_errors
from agent.errors import FootageIncomplete, FootageRefused
from agent.intake.identify.filename import unsupported_reason
from agent.intake.identify.inspector import Inspector
from agent.intake.identify.recording import MAX_DURATION_SECONDS, MP4, Media, Recording
from agent.media import damage, mp4
from agent.media.ffmpeg import CancelToken, InputFile, container_of, is_installed, needs_ffmpeg, probe_file

_QUICKTIME_BRAND = "qt  "


class FootageReader:
    """Identifies the footage of one folder. Called by the intake's thread only.

    Args:
        folder: how the files are named, and the camera's clock.
        config: vehicle, limits, and whether damaged footage and other containers than MP4 may be worked on.
        stop: ends ffprobe early, when set.

    Attributes:
        fingerprint: changes whenever something changes that decides what is refused: a setting, the version of this
            program, or the presence of ffmpeg.
    """

    def __init__(self, folder: FootageFolder, config: Config, stop: threading.Event) -> None:
        self._folder = folder
        self._inspector = Inspector(folder, config)
        self._conform = config.conform
        self._cancel = CancelToken(stop)
        self.fingerprint = f"{self._inspector.fingerprint}{'-with-ffmpeg' if is_installed() else ''}"

    def read(self, opened: OpenFootage, *, is_abandoned: bool) -> Recording | None:
        """Reads the file's headers, its name and its sidecar. Its times are not checked: see `resolve_against_clock`.

        Args:
            opened: a file below the folder.
            is_abandoned: nobody will complete the file any more: what is there is all there will be.

        Returns:
            None if the file is incomplete and someone may still be writing it.

        Raises:
            FootageRefused: it cannot be identified or read; the reason says why and what to do.
            FootageGone: it changed while it was read.
            Cancelled: the daemon is to stop.
        """
        path = opened.footage.path
        if reason := unsupported_reason(path.relative_to(self._folder.path).as_posix()):
            raise FootageRefused(reason)
        try:
            media = read_media(opened, self._conform, self._cancel)
        except FootageIncomplete:
            if not is_abandoned:
                return None
            media = read_damaged(opened, self._conform, self._cancel)
        return self._inspector.recording(opened.footage, media)


def read_media(opened: OpenFootage, conform: Conform, cancel: CancelToken) -> Media:
    """The headers of a whole file.

    Raises:
        FootageIncomplete: it is not a whole MP4, but may become one.
        FootageRefused: it is no video, or ffprobe is needed to read it and is not installed.
        FootageGone: it changed while it was read.
        Cancelled: the daemon is to stop.
    """
    with translated_errors(opened.footage.path):
        container = container_of(opened.file) if conform.enabled else None
        if container is not None:
            return _probe(opened, container, f"it is {container}", cancel)
        media = _read_mp4(opened)
        may_hold_zeros = conform.enabled and media.container == MP4 and damage.holds_zeros(opened.file)
    return Media(media.container, media.codec, media.duration_seconds, media.created, may_hold_zeros=may_hold_zeros)


def read_damaged(opened: OpenFootage, conform: Conform, cancel: CancelToken) -> Media:
    """The headers of an MP4 that is not whole, and that nobody will complete.

    Raises:
        FootageRefused: nothing of it can be saved; the reason is the likely cause.
        FootageGone, Cancelled: as `read_media`.
    """
    with translated_errors(opened.footage.path):
        if not damage.has_index(opened.file):
            raise FootageRefused(damage.diagnose(opened.file))
    if not conform.enabled:
        raise FootageRefused(damage.SALVAGE_DISABLED)
    return _probe(opened, MP4, damage.CUT, cancel, is_whole=False)


def _read_mp4(opened: OpenFootage) -> Media:
    try:
        movie = mp4.read(opened.file)
    except mp4.Mp4Error as error:
        opened.check_unchanged()
        refusal = FootageIncomplete if isinstance(error, mp4.Mp4Incomplete) else FootageRefused
        raise refusal(str(error)) from error
    opened.check_unchanged()
    container = "MOV" if movie.brand == _QUICKTIME_BRAND else MP4
    codec = movie.video.codec if movie.video else None
    return Media(container, codec, _plausible(movie.duration_seconds), movie.created)


def _probe(opened: OpenFootage, container: str, why: str, cancel: CancelToken, *, is_whole: bool = True) -> Media:
    if not is_installed():
        raise FootageRefused(needs_ffmpeg(why), RETRY_REFUSED_SECONDS)
    probed = probe_file(InputFile(opened.file.fileno(), container), cancel)
    opened.check_unchanged()
    return Media(container, probed.code, _plausible(probed.duration_seconds), is_whole=is_whole)


def _plausible(duration_seconds: float) -> float:
    if duration_seconds > MAX_DURATION_SECONDS:
        raise FootageRefused(f"it lasts {duration_seconds:,.0f} s by its headers: the file is damaged")
    return duration_seconds
