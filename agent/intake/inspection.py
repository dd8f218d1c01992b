"""Footage becomes clips: what a file and its surroundings say, checked against what the API takes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import structlog

from agent import __version__, mp4
from agent.clip import EVENT_PRIORITY, NORMAL_PRIORITY, Clip, Footage, Video
from agent.config import Config, Conform, FootageFolder, Limits, Vehicle
from agent.errors import FootageGone, FootageIncomplete, FootageRefused
from agent.intake.naming import Naming, printable, read_name
from agent.intake.opening import LOOK_AGAIN_SECONDS, opened
from agent.intake.sidecar import Sidecar, read_sidecar
from agent.intake.times import Instant, check_recording_time, to_utc

log = structlog.get_logger()

MAX_REGISTRATION_CHARACTERS = 20
_REGISTRATION = re.compile(r"[^\W_]+(?:[ -][^\W_]+)*")
_CODEC_NAMES = {
    "av01": "AV1",
    "encv": "encrypted video",
    "jpeg": "Motion JPEG",
    "mjpa": "Motion JPEG",
    "mjpb": "Motion JPEG",
    "mp4v": "MPEG-4 Part 2",
    "s263": "H.263",
    "vp09": "VP9",
}
_HEVC_CODECS = frozenset(("hvc1", "hev1", "dvh1", "dvhe"))
_QUICKTIME_BRAND = "qt  "
_SIDECAR = "sidecar"

_Value = TypeVar("_Value")


class Inspector:
    """Turns the footage of one folder into clips.

    Args:
        folder: how the files are named, and the camera's clock.
        config: vehicle and limits.

    Attributes:
        rules: changes whenever a setting changes that decides what is refused; see `rules_digest`.
    """

    def __init__(self, folder: FootageFolder, config: Config) -> None:
        self._folder = folder
        self._vehicle = config.vehicle
        self._limits = config.limits
        self.rules = rules_digest(folder, config.vehicle, config.limits, config.conform)

    def inspect(self, path: Path, now: datetime | None = None) -> tuple[Clip, ...]:
        """Read a file's headers, its name and its sidecar, and decide which clips it gives.

        Args:
            path: a file in the folder.
            now: this device's clock, aware; None leaves the judgement of the times to `dating`.

        Raises:
            FootageIncomplete: it is no whole MP4, but may become one.
            FootageRefused: it cannot be delivered; the reason says why and what to do.
            FootageGone: it vanished, or changed while it was read.
        """
        footage, movie = _read(path)
        _check_format(movie)
        seconds = _whole_seconds(movie.duration_seconds)
        self._check_limits(footage, seconds)
        sidecar = read_sidecar(path)
        naming = read_name(path.relative_to(self._folder.path).as_posix(), self._folder)
        start = self._start(sidecar, naming, _probable_start(footage, seconds))
        began, doubt = start.value.utc, start.value.note
        ended = began + timedelta(seconds=seconds)
        if now is not None:
            check_recording_time(began, ended, now)
        registration = self._registration(sidecar, naming)
        camera = self._camera(sidecar, naming)
        event = _first(_Found(sidecar.event, _SIDECAR), _named(naming, "event", naming.event))
        for note in filter(None, (doubt, sidecar.note)):
            log.info("footage_note", footage=str(path), note=note)
        sources = {
            "registration": registration.source,
            "camera": camera.source,
            "start": f"{start.source}; {doubt}" if doubt else start.source,
            "end": "start and the duration in the file's headers",
        }
        return (
            Clip(
                footage,
                Video(registration.value, camera.value, began, ended),
                priority=EVENT_PRIORITY if event else NORMAL_PRIORITY,
                comments=sidecar.comments,
                sources=sources | ({"event": event.source} if event else {}),
            ),
        )

    def _check_limits(self, footage: Footage, seconds: int) -> None:
        if footage.size_bytes > self._limits.max_bytes:
            raise FootageRefused(
                f"it has {footage.size_bytes:,} bytes and the limit is {self._limits.max_bytes:,} (limits.max_bytes): "
                "set a shorter loop or a lower bitrate in the camera"
            )
        if seconds > self._limits.max_seconds:
            raise FootageRefused(
                f"it lasts {seconds:,} s and the limit is {self._limits.max_seconds:,} s (limits.max_seconds): "
                "set a shorter loop in the camera"
            )

    def _start(self, sidecar: Sidecar, naming: Naming, probable: datetime | None) -> _Found[Instant]:
        found = _first(_Found(sidecar.start, _SIDECAR), _named(naming, "start", naming.start))
        if found is None:
            read_by = "the folder's pattern" if self._folder.pattern else f"preset {self._folder.preset}"
            raise FootageRefused(
                f"no recording time: {read_by} reads none from the name. Give the folder a pattern that does, or put a "
                "sidecar (same name, ending in .json) with start beside the file",
                look_again_seconds=LOOK_AGAIN_SECONDS,
            )
        return _Found(to_utc(found.value, self._folder.timezone, probable), found.source)

    def _registration(self, sidecar: Sidecar, naming: Naming) -> _Found[str]:
        found = _first(
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
                look_again_seconds=LOOK_AGAIN_SECONDS,
            )
        return _Found(_normal_registration(found), found.source)

    def _camera(self, sidecar: Sidecar, naming: Naming) -> _Found[int]:
        found = _first(
            _Found(sidecar.camera, _SIDECAR),
            _named(naming, "camera", naming.camera),
            _Found(self._vehicle.camera, "vehicle.camera"),
        )
        if found is None:
            raise FootageRefused(
                "no camera number: set camera in [vehicle], give the folder a pattern that reads it from the name, "
                "name the folder after it (ch1, cam2), or put a sidecar (same name, ending in .json) with camera "
                "beside the file",
                look_again_seconds=LOOK_AGAIN_SECONDS,
            )
        return found


@dataclass(frozen=True, slots=True)
class _Found(Generic[_Value]):
    """A value with its source; or a fault in that source, which forbids guessing the value from the next."""

    value: _Value
    source: str
    fault: str | None = None


def _named(naming: Naming, key: str, value: _Value) -> _Found[_Value]:
    return _Found(value, naming.sources.get(key, ""), naming.faults.get(key))


def _first(*candidates: _Found[_Value | None]) -> _Found[_Value] | None:
    """The first that has a value.

    Raises:
        FootageRefused: one with a fault came before it.
    """
    for candidate in candidates:
        if candidate.fault:
            raise FootageRefused(candidate.fault, look_again_seconds=LOOK_AGAIN_SECONDS)
        if candidate.value is not None:
            return _Found(candidate.value, candidate.source)
    return None


def rules_digest(folder: FootageFolder, vehicle: Vehicle, limits: Limits, conform: Conform) -> str:
    """16 hexadecimal digits that stay the same over restarts for as long as these settings decide alike.

    Refused footage is inspected again when they change: a technician mends the configuration, and what it refused
    comes in. A new version of this program may decide differently too.
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


def _read(path: Path) -> tuple[Footage, mp4.Movie]:
    """Raises FootageGone, FootageRefused, FootageIncomplete."""
    with opened(path) as file:
        footage = Footage.from_stat(path, os.fstat(file.fileno()))
        try:
            movie = mp4.read(file)
        except mp4.Mp4Error as error:
            _check_unchanged(footage, file)
            refusal = FootageIncomplete if isinstance(error, mp4.Mp4Incomplete) else FootageRefused
            raise refusal(str(error)) from error
        _check_unchanged(footage, file)
    return footage, movie


def _check_unchanged(footage: Footage, file: BinaryIO) -> None:
    """What was read of a file that changed meanwhile is worth nothing, be it a movie or an error."""
    if Footage.from_stat(footage.path, os.fstat(file.fileno())) != footage:
        raise FootageGone("it changed while it was read")


def _check_format(movie: mp4.Movie) -> None:
    if movie.brand == _QUICKTIME_BRAND:
        raise FootageRefused("its container is QuickTime (MOV), not MP4: switch the camera from MOV to MP4")
    if movie.video is None:
        raise FootageRefused("it has no video track")
    if movie.video.codec in _HEVC_CODECS:
        raise FootageRefused("its video is H.265/HEVC, which is not taken: switch the camera from H.265/HEVC to H.264")
    if not movie.video.is_h264:
        codec = _CODEC_NAMES.get(movie.video.codec, printable(movie.video.codec) or "of an unknown kind")
        raise FootageRefused(f"its video is {codec}, which is not taken: switch the camera to H.264")


def _whole_seconds(duration_seconds: float) -> int:
    """At least 1: the API's timestamps have whole seconds, and a clip must end after it starts."""
    if duration_seconds <= 0:
        raise FootageRefused("its headers give it no duration: nothing was recorded, or the file is damaged")
    return max(1, round(duration_seconds))


def _probable_start(footage: Footage, seconds: int) -> datetime | None:
    """When recording began if the file was written to its end then; None if its date is beyond any calendar."""
    try:
        return datetime.fromtimestamp(footage.modified_ns // 10**9 - seconds, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def _normal_registration(found: _Found[str]) -> str:
    """Upper case, as accounts write it; letters, digits and single spaces or hyphens between them."""
    registration = found.value.strip().upper()
    if len(registration) > MAX_REGISTRATION_CHARACTERS or not _REGISTRATION.fullmatch(registration):
        raise FootageRefused(
            f"registration {printable(found.value)!r} ({found.source}) cannot be right: allowed are 1 to "
            f"{MAX_REGISTRATION_CHARACTERS} letters and digits, with single spaces or hyphens between them",
            look_again_seconds=LOOK_AGAIN_SECONDS,
        )
    return registration
