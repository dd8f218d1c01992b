"""Which recording a file is, by its sidecar, its name, the folders around it and its headers, in this order."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import structlog

from agent import __version__
from agent.config import Config, Conform, FootageFolder, Limits, Vehicle
from agent.device.safe_open import RETRY_REFUSED_SECONDS, OpenFootage, translated_errors
from agent.errors import FootageIncomplete, FootageRefused, printable
from agent.intake.identify.filename import Naming, read_name, unsupported_reason
from agent.intake.identify.recording import MAX_DURATION_SECONDS, MP4, Media, Recording
from agent.intake.identify.recording_time import (
    Instant,
    has_local_timestamps,
    is_ambiguous,
    start_by_date,
    start_by_file,
    to_utc,
)
from agent.intake.identify.sidecar import Sidecar, read_sidecar
from agent.media import damage, mp4
from agent.media.ffmpeg import CancelToken, InputFile, container_of, is_installed, needs_ffmpeg, probe_file
from agent.model import Footage

log = structlog.get_logger()

MAX_REGISTRATION_CHARACTERS = 20
_REGISTRATION = re.compile(r"[^\W_]+(?:[ -][^\W_]+)*")
_SIDECAR = "sidecar"

_QUICKTIME_BRAND = "qt  "

_Value = TypeVar("_Value")


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
        self._vehicle = config.vehicle
        self._conform = config.conform
        self._cancel = CancelToken(stop)
        settings = settings_fingerprint(folder, config.vehicle, config.limits, config.conform)
        self.fingerprint = f"{settings}{'-with-ffmpeg' if is_installed() else ''}"

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
        return self._identify(opened.footage, media)

    def _identify(self, footage: Footage, media: Media) -> Recording:
        """Combines what the headers, the name and the sidecar say.

        Raises:
            FootageRefused: something is missing or wrong; the reason says what to do.
        """
        path = footage.path
        relative = path.relative_to(self._folder.path).as_posix()
        sidecar = read_sidecar(path)
        naming = read_name(relative, self._folder)
        start = self._start(sidecar, naming, footage, media)
        began, note = start.value.utc, start.value.note
        registration = self._registration(sidecar, naming)
        camera = self._camera(sidecar, naming)
        event = _first_of(_Found(sidecar.event, _SIDECAR), _named(naming, "event", naming.event))
        for text in filter(None, (note, sidecar.note)):
            log.info("footage_note", footage=str(path), note=text)
        sources = {
            "registration": registration.source,
            "camera": camera.source,
            "start": f"{start.source}; {note}" if note else start.source,
        }
        if event:
            sources["event"] = f"{event.source}: {event.value.word}"
        return Recording(
            footage,
            media,
            registration.value,
            camera.value,
            began,
            preset=naming.preset.name if naming.preset else "",
            event=event.value if event else None,
            comments=sidecar.comments or (event.value.word if event else ""),
            sources=sources,
        )

    def _start(self, sidecar: Sidecar, naming: Naming, footage: Footage, media: Media) -> _Found[Instant]:
        zone = self._folder.timezone
        found = _first_of(_Found(sidecar.start, _SIDECAR), _named(naming, "start", naming.start))
        if found is not None:
            probable = None
            if is_ambiguous(found.value, zone) and not has_local_timestamps(footage.path):
                probable = start_by_date(footage, media.duration_seconds)
            return _Found(to_utc(found.value, zone, probable), found.source)
        if naming.preset is not None and naming.preset.clock == "none":
            return _Found(*start_by_file(footage, media, naming.preset.created, zone))
        read_by = "the folder's pattern" if self._folder.pattern else f"preset {self._folder.preset}"
        raise FootageRefused(
            f"no recording time: {read_by} reads none from the name. Give the folder a pattern that does, or put a "
            "sidecar (same name, ending in .json) with start beside the file",
            retry_after_seconds=RETRY_REFUSED_SECONDS,
        )

    def _registration(self, sidecar: Sidecar, naming: Naming) -> _Found[str]:
        found = _first_of(
            _Found(sidecar.registration, _SIDECAR),
            _named(naming, "registration", naming.registration),
            _Found(self._folder.registration, "footage.registration"),
            _Found(self._vehicle.registration, "vehicle.registration"),
        )
        if found is None:
            raise FootageRefused(
                "no registration: set registration in [vehicle] or for this folder, give the folder a pattern that "
                "reads one from the name, or put a sidecar (same name, ending in .json) with registration beside "
                "the file",
                retry_after_seconds=RETRY_REFUSED_SECONDS,
            )
        return _Found(_normal_registration(found), found.source)

    def _camera(self, sidecar: Sidecar, naming: Naming) -> _Found[int]:
        found = _first_of(
            _Found(sidecar.camera, _SIDECAR),
            _named(naming, "camera", naming.camera),
            _Found(self._vehicle.camera, "vehicle.camera"),
            _Found(naming.default_camera, f"the usual channel of {naming.preset.name if naming.preset else ''}"),
        )
        if found is None:
            raise FootageRefused(
                "no camera number: set camera in [vehicle], give the folder a pattern that reads it from the name, "
                "name the folder after it (ch1, cam2), or put a sidecar (same name, ending in .json) with camera "
                "beside the file",
                retry_after_seconds=RETRY_REFUSED_SECONDS,
            )
        return found


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


@dataclass(frozen=True, slots=True)
class _Found(Generic[_Value]):
    """A value with its source; or a fault in that source, which forbids taking the value from the next."""

    value: _Value
    source: str
    fault: str | None = None


def _named(naming: Naming, key: str, value: _Value) -> _Found[_Value]:
    return _Found(value, naming.sources.get(key, ""), naming.faults.get(key))


def _first_of(*candidates: _Found[_Value | None]) -> _Found[_Value] | None:
    """The first candidate that has a value; None if none has.

    Raises:
        FootageRefused: a candidate with a fault comes before it.
    """
    for candidate in candidates:
        if candidate.fault:
            raise FootageRefused(candidate.fault, retry_after_seconds=RETRY_REFUSED_SECONDS)
        if candidate.value is not None:
            return _Found(candidate.value, candidate.source)
    return None


def settings_fingerprint(folder: FootageFolder, vehicle: Vehicle, limits: Limits, conform: Conform) -> str:
    """16 hexadecimal digits that change with any setting that decides what is refused; stable over restarts.

    Refused footage is inspected again when they change, so that it is delivered once the configuration is corrected.
    The version of this program is part of them, since another version may decide differently.
    """
    settings = {
        type(part).__name__: {entry.name: getattr(part, entry.name) for entry in fields(part)}
        for part in (folder, vehicle, limits, conform)
    }
    text = json.dumps([__version__, settings], sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _normal_registration(found: _Found[str]) -> str:
    """Upper case, as accounts write it; letters, digits and single spaces or hyphens between them."""
    registration = found.value.strip().upper()
    if len(registration) > MAX_REGISTRATION_CHARACTERS or not _REGISTRATION.fullmatch(registration):
        raise FootageRefused(
            f"registration {printable(found.value)!r} ({found.source}) cannot be right: allowed are 1 to "
            f"{MAX_REGISTRATION_CHARACTERS} letters and digits, with single spaces or hyphens between them",
            retry_after_seconds=RETRY_REFUSED_SECONDS,
        )
    return registration
