"""Parses names: registration, camera, start and event from a file's name and the folders around it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from agent.config import FootageFolder
from agent.config.values import HIGHEST_CAMERA
from agent.errors import printable
from agent.intake.identify.presets import (
    ANY_PROXIES,
    AUTO,
    EVENT,
    PRESETS,
    UNSUPPORTED,
    EventTag,
    Preset,
    tag_for_folder,
)
from agent.intake.identify.recording_time import parse_iso

# A regular expression cannot be interrupted. On names of this length a cubic one is still fast; an exponential one is
# slow on twenty characters already: `agent.config.patterns` refuses those that it detects.
MAX_CHARACTERS = 255

_CAMERA_FOLDER = re.compile(r"(?:channel|camera|cam|ch)[-_ ]?(\d{1,3})", re.IGNORECASE | re.ASCII)
_VALUES = ("registration", "camera", "start", "event")
_TIME_GROUPS = ("start", "Y", "y", "m", "d", "H", "M", "S")


@dataclass(frozen=True, slots=True)
class Naming:
    """The values in a name; None where it has none.

    Args:
        preset: the one that matched; None if none did, or several did and disagree.
        registration: as written.
        camera: the channel's number, 0 to 255.
        default_camera: the channel of this family's recordings whose names have none, if nothing else tells it.
        start: naive, by the camera's clock, or aware.
        event: the tag of the recording.
        sources: value to where it was, or would have been, read: {"camera": "folder name", …}.
        faults: value to what is wrong with it, as a sentence. Such a value is None, and must not be taken from the next
            source.
    """

    preset: Preset | None = None
    registration: str | None = None
    camera: int | None = None
    default_camera: int | None = None
    start: datetime | None = None
    event: EventTag | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def read_name(relative: str, folder: FootageFolder) -> Naming:
    """Parses a name by the folder's pattern or presets; what it does not say is taken from the names of the folders.

    Args:
        relative: the file's path below the watched folder, `/` between its parts; undecodable bytes as surrogates.
        folder: how files are named in it.
    """
    if len(relative) > MAX_CHARACTERS:
        return Naming(faults={"start": f"the path is longer than {MAX_CHARACTERS} characters and was not read"})
    readings = [_read(preset, match, relative, folder) for preset, match in _matches(relative, folder)]
    if not readings:
        return _read(None, None, relative, folder)
    return readings[0] if len(readings) == 1 else _merge_matches(readings)


def proxies_in(folder: FootageFolder) -> re.Pattern[str] | None:
    """The names of proxy files (smaller copies of recordings, and what belongs to them) in this folder's presets."""
    if folder.pattern is not None:
        return None
    return ANY_PROXIES if folder.preset == AUTO else PRESETS[folder.preset].proxies


def is_proxy(name: str, folder: FootageFolder) -> bool:
    """Whether a file of this name is a proxy: a smaller copy of a recording, or a file that belongs to one."""
    proxies = proxies_in(folder)
    return proxies is not None and proxies.fullmatch(name) is not None


def unsupported_reason(relative: str) -> str | None:
    """Why a file of this name can never be used, whatever it holds, and what to change; None if it may be used."""
    return next((preset.refused for preset in UNSUPPORTED if preset.pattern.search(relative)), None)


def _matches(relative: str, folder: FootageFolder) -> Iterator[tuple[Preset, re.Match[str]]]:
    for preset in _presets(folder):
        if match := preset.pattern.search(relative):
            yield preset, match


def _read(preset: Preset | None, match: re.Match[str] | None, relative: str, folder: FootageFolder) -> Naming:
    groups = _captured(match)
    own = preset.cameras if preset else {}
    chosen = {word.casefold(): number for word, number in folder.cameras.items()}
    words = {**own, **chosen}
    start: datetime | None = None
    camera: int | None = None
    faults: dict[str, str] = {}
    try:
        start = _start(groups, preset)
    except (ValueError, OverflowError) as error:
        shown = " ".join(f"{group}={groups[group]}" for group in _TIME_GROUPS if group in groups)
        faults["start"] = printable(f"the name {relative} says an impossible time ({shown}): {error}")
    word = groups.get("camera") or groups.get("camera2")
    if word is None:
        # A single letter is the family's word in its file names; as a folder's name it may mean anything.
        full_words = {word: number for word, number in own.items() if len(word) > 1}
        camera = _camera_of_folders(relative, folder, {**full_words, **chosen})
    else:
        camera = _camera(word, words)
        if camera is None:
            faults["camera"] = _unknown_camera(word, folder)
    event, tagged_by = _event_tag(groups, preset, relative)
    by_name = f"file name ({preset.name if preset else 'no preset'})"
    return Naming(
        preset=preset,
        registration=groups.get("registration"),
        camera=camera,
        default_camera=words.get(""),
        start=start,
        event=event,
        sources={
            "registration": by_name,
            "camera": by_name if word else "folder name",
            "start": by_name,
            "event": tagged_by or by_name,
        },
        faults=faults,
    )


def _captured(match: re.Match[str] | None) -> Mapping[str, str]:
    """The captured groups, without those that are empty or blank."""
    caught = {group: (text or "").strip() for group, text in match.groupdict().items()} if match else {}
    return {group: text for group, text in caught.items() if text}


def _merge_matches(readings: Sequence[Naming]) -> Naming:
    """The reading of a name that several presets match. Values on which they differ become faults, not guesses."""
    names = [reading.preset.name for reading in readings if reading.preset]
    differing = [value for value in _VALUES if len({_comparison_key(reading, value) for reading in readings}) > 1]
    fault = (
        f"the name fits several cameras, {' and '.join(names)}, which read its {' and '.join(differing)} differently: "
        f'set preset = "{names[0]}", or whichever it is, for this folder ([[footage]])'
    )
    if not differing:
        return readings[0]
    unread: dict[str, Any] = dict.fromkeys((*differing, "preset", "default_camera"))
    return replace(readings[0], faults=readings[0].faults | dict.fromkeys(differing, fault), **unread)


def _comparison_key(reading: Naming, value: str) -> tuple[object, ...]:
    """A value of a reading in comparable form; for a start without a time, how it would be found."""
    if value == "start" and reading.start is None and reading.preset:
        return reading.preset.clock, reading.preset.created, value in reading.faults
    return getattr(reading, value), value in reading.faults


def _presets(folder: FootageFolder) -> Iterable[Preset]:
    if folder.pattern is not None:
        return (Preset("pattern", "the folder's own pattern", folder.pattern, examples={}, event_tags=None),)
    if folder.preset == AUTO:
        return PRESETS.values()
    return (PRESETS[folder.preset],)


def _start(groups: Mapping[str, str], preset: Preset | None) -> datetime | None:
    """Raises ValueError or OverflowError: it is not a valid date."""
    start: datetime | None = None
    if "start" in groups:
        start = parse_iso(groups["start"])
    elif groups.keys() >= {"m", "d", "H", "M"} and groups.keys() & {"Y", "y"}:
        year = int(groups["Y"]) if "Y" in groups else 2000 + int(groups["y"])
        month, day, hour, minute, second = (int(groups.get(group, "0")) for group in "mdHMS")
        start = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - by the camera's clock
    if start and start.tzinfo is None and preset and preset.clock == "utc":
        start = start.replace(tzinfo=timezone.utc)
    return start


def _event_tag(groups: Mapping[str, str], preset: Preset | None, relative: str) -> tuple[EventTag | None, str | None]:
    """The tag of the recording, with the folder that it comes from, if any. A tag of high priority wins."""
    by_name = _event_tag_for_name(groups, preset) if preset else None
    if by_name and by_name.high_priority:
        return by_name, None
    by_folder = [
        (tag, f"folder {printable(name)}") for name in relative.split("/")[:-1] if (tag := tag_for_folder(name))
    ]
    preferred = [(tag, source) for tag, source in by_folder if tag.high_priority]
    if preferred:
        return preferred[-1]
    return (by_name, None) if by_name or not by_folder else by_folder[-1]


def _event_tag_for_name(groups: Mapping[str, str], preset: Preset) -> EventTag | None:
    words = [groups[group] for group in ("event", "event2") if group in groups]
    if preset.event_tags is None:
        return EVENT if words else None
    return next(
        (preset.event_tags[word.casefold()] for word in (*words, "") if word.casefold() in preset.event_tags), None
    )


def _camera(word: str, words: Mapping[str, int]) -> int | None:
    number = words.get(word.casefold())
    if number is None:
        numbered = _CAMERA_FOLDER.fullmatch(word)
        digits = numbered[1] if numbered else word
        number = int(digits) if digits.isdecimal() else None
    return number if number is not None and number <= HIGHEST_CAMERA else None


def _camera_of_folders(relative: str, folder: FootageFolder, words: Mapping[str, int]) -> int | None:
    """The channel by the name of the nearest folder, up to the watched folder itself."""
    for name in reversed((folder.path.name, *relative.split("/")[:-1])):
        if name and name.casefold() in words:
            return words[name.casefold()]
        match = _CAMERA_FOLDER.fullmatch(name)
        if match and (camera := _camera(match[1], words)) is not None:
            return camera
    return None


def _unknown_camera(word: str, folder: FootageFolder) -> str:
    shown = printable(word)
    if word.isdecimal():
        return f"camera {shown} in the name is no channel: allowed are 0 to {HIGHEST_CAMERA}"
    free = max(folder.cameras.values(), default=0) + 1
    entry = shown if re.fullmatch(r"[A-Za-z0-9_-]+", shown) else f'"{shown}"'
    return (
        f"the name calls its camera {shown}, and nothing says which channel that is: add it to the cameras of this "
        f"folder, for example cameras = {{ {entry} = {free} }}"
    )
