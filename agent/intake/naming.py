"""What a file's name and the folders around it say: registration, camera, start, event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from agent.config import FootageFolder
from agent.config.values import HIGHEST_CAMERA
from agent.intake.presets import AUTO, PRESETS, Preset
from agent.intake.times import parse_iso

# A regular expression cannot be stopped once it runs. On names of this length one that is merely cubic stays quick; one
# that is exponential is slow on twenty characters already: `agent.config.patterns` refuses those that it finds.
MAX_CHARACTERS = 255

_CAMERA_FOLDER = re.compile(r"(?:channel|camera|cam|ch)[-_ ]?(\d{1,3})", re.IGNORECASE | re.ASCII)
_NO_PRESET = Preset("no preset", re.compile(""), examples=())
_TIME_GROUPS = ("start", "Y", "y", "m", "d", "H", "M", "S")


@dataclass(frozen=True, slots=True)
class Naming:
    """What a name says; None where it says nothing.

    Args:
        registration: as written.
        camera: the channel's number, 0 to 255.
        start: naive, by the camera's clock, or aware.
        event: the name's word for the event that it marks.
        sources: value to where it was, or would have been, read: {"camera": "folder name", …}.
        faults: value to what is wrong with it, as a sentence: such a value is None, and nothing should be guessed
            in its place.
    """

    registration: str | None = None
    camera: int | None = None
    start: datetime | None = None
    event: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


def read_name(relative: str, folder: FootageFolder) -> Naming:
    """Read a name by the folder's pattern or preset, and the camera else from the folders' names.

    Args:
        relative: the file's path below the watched folder, `/` between its parts; undecodable bytes as surrogates.
        folder: says how files are named in it.
    """
    if len(relative) > MAX_CHARACTERS:
        return Naming(faults={"start": f"the path is longer than {MAX_CHARACTERS} characters and was not read"})
    preset, groups = _match(relative, folder)
    words = {word.casefold(): number for word, number in (*preset.cameras.items(), *folder.cameras.items())}
    start: datetime | None = None
    camera: int | None = None
    faults: dict[str, str] = {}
    try:
        start = _start(groups, preset)
    except (ValueError, OverflowError) as error:
        said = " ".join(f"{group}={groups[group]}" for group in _TIME_GROUPS if group in groups)
        faults["start"] = printable(f"the name {relative} says an impossible time ({said}): {error}")
    if "camera" not in groups:
        camera = _camera_of_folders(relative, folder, words)
    else:
        camera = _camera(groups["camera"], words)
        if camera is None:
            faults["camera"] = _unknown_camera(groups["camera"], folder)
    by_name = f"file name ({preset.name})"
    return Naming(
        registration=groups.get("registration"),
        camera=camera,
        start=start,
        event=_event(groups, preset),
        sources={
            "registration": by_name,
            "camera": by_name if "camera" in groups else "folder name",
            "start": by_name,
            "event": by_name,
        },
        faults=faults,
    )


def printable(text: str) -> str:
    """The text with undecodable bytes and control characters escaped, fit for a terminal, a log and UTF-8."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _match(relative: str, folder: FootageFolder) -> tuple[Preset, Mapping[str, str]]:
    """The first preset that reads the name, and what its groups caught; groups that caught nothing are left out."""
    for preset in _presets(folder):
        if match := preset.pattern.search(relative):
            caught = {group: (text or "").strip() for group, text in match.groupdict().items()}
            return preset, {group: text for group, text in caught.items() if text}
    return _NO_PRESET, {}


def _presets(folder: FootageFolder) -> Iterable[Preset]:
    if folder.pattern is not None:
        return (Preset("pattern", folder.pattern, examples=()),)
    if folder.preset == AUTO:
        return PRESETS.values()
    return (PRESETS[folder.preset],)


def _start(groups: Mapping[str, str], preset: Preset) -> datetime | None:
    """Raises ValueError or OverflowError: no calendar has such a time."""
    start: datetime | None = None
    if "start" in groups:
        start = parse_iso(groups["start"])
    elif groups.keys() >= {"m", "d", "H", "M"} and groups.keys() & {"Y", "y"}:
        year = int(groups["Y"]) if "Y" in groups else 2000 + int(groups["y"])
        month, day, hour, minute, second = (int(groups.get(group, "0")) for group in "mdHMS")
        start = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - by the camera's clock
    if start and start.tzinfo is None and preset.clock == "utc":
        start = start.replace(tzinfo=timezone.utc)
    return start


def _event(groups: Mapping[str, str], preset: Preset) -> str | None:
    word = groups.get("event")
    if word is None or (preset.events is not None and word.casefold() not in preset.events):
        return None
    return word


def _camera(word: str, words: Mapping[str, int]) -> int | None:
    number = words.get(word.casefold())
    if number is None and word.isdecimal():
        number = int(word)
    return number if number is not None and number <= HIGHEST_CAMERA else None


def _camera_of_folders(relative: str, folder: FootageFolder, words: Mapping[str, int]) -> int | None:
    """The channel that the nearest folder is named after, up to the watched folder itself."""
    for name in reversed((folder.path.name, *relative.split("/")[:-1])):
        if name.casefold() in words:
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
