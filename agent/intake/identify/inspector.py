"""Which recording a file is: its name, the folders around it, its sidecar and its headers, in order of precedence."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import structlog

from agent import __version__
from agent.config import Config, Conform, FootageFolder, Limits, Vehicle
from agent.device.safe_open import RETRY_REFUSED_SECONDS
from agent.errors import FootageRefused, printable
from agent.intake.identify.filename import Naming, read_name
from agent.intake.identify.recording import Media, Recording
from agent.intake.identify.recording_time import (
    Instant,
    has_local_timestamps,
    is_ambiguous,
    start_by_date,
    start_by_file,
    to_utc,
)
from agent.intake.identify.sidecar import Sidecar, read_sidecar
from agent.model import Footage

log = structlog.get_logger()

MAX_REGISTRATION_CHARACTERS = 20
_REGISTRATION = re.compile(r"[^\W_]+(?:[ -][^\W_]+)*")
_SIDECAR = "sidecar"

_Value = TypeVar("_Value")


class Inspector:
    """Identifies the footage of one folder.

    Args:
        folder: how the files are named, and the camera's clock.
        config: vehicle and limits.

    Attributes:
        fingerprint: changes whenever a setting changes that decides what is refused; see `settings_fingerprint`.
    """

    def __init__(self, folder: FootageFolder, config: Config) -> None:
        self._folder = folder
        self._vehicle = config.vehicle
        self.fingerprint = settings_fingerprint(folder, config.vehicle, config.limits, config.conform)

    def recording(self, footage: Footage, media: Media) -> Recording:
        """Combines what the headers, the name and the sidecar say.

        Args:
            footage: a file in the folder.
            media: its headers.

        Raises:
            FootageRefused: something is missing or wrong; the reason says what to do.
        """
        path = footage.path
        relative = path.relative_to(self._folder.path).as_posix()
        sidecar = read_sidecar(path)
        naming = read_name(relative, self._folder)
        start = self._start(sidecar, naming, footage, media)
        began, doubt = start.value.utc, start.value.note
        registration = self._registration(sidecar, naming)
        camera = self._camera(sidecar, naming)
        event = _first_of(_Found(sidecar.event, _SIDECAR), _named(naming, "event", naming.event))
        for note in filter(None, (doubt, sidecar.note)):
            log.info("footage_note", footage=str(path), note=note)
        sources = {
            "registration": registration.source,
            "camera": camera.source,
            "start": f"{start.source}; {doubt}" if doubt else start.source,
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
