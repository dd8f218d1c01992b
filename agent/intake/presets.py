"""How camera families name their files: data only, read by `agent.intake.naming`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Preset:
    """One way of naming files.

    Args:
        name: as in `footage.preset`.
        pattern: searched in the path relative to the watched folder, `/` between its parts. Its named groups are
            those of a user's `pattern`: registration, camera, start, Y or y, m, d, H, M, S, event.
        examples: paths that this pattern reads and no other preset's does.
        cameras: the family's words for its channels, in lower case; the folder's own `cameras` goes before it.
        clock: what the time in the name means: the camera's local time, or UTC.
        events: what the group `event` says, in lower case, when the recording is an event; None: anything at all.
    """

    name: str
    pattern: re.Pattern[str]
    examples: tuple[str, ...]
    cameras: Mapping[str, int] = field(default_factory=dict)
    clock: Literal["local", "utc"] = "local"
    events: frozenset[str] | None = None


_ALL = (
    Preset(
        "plain",
        re.compile(
            r"(?:^|/)(?P<registration>[^/_]{1,40})"
            r"_(?:(?:channel|camera|cam|ch)[- ]?)?(?P<camera>\d{1,3}|[a-z][a-z-]{0,19})"
            r"_(?P<Y>\d{4})(?P<ymd>-?)(?P<m>\d\d)(?P=ymd)(?P<d>\d\d)"
            r"[T_-]?(?P<H>\d\d)(?P<hms>[-.]?)(?P<M>\d\d)(?P=hms)(?P<S>\d\d)"
            r"(?:_(?P<event>event|alarm|panic|sos))?\.mp4$",
            re.IGNORECASE | re.ASCII,
        ),
        examples=(
            "ABC1234X_1_20260728_141441.mp4",
            "ABC1234X_1_20260728_141441_event.mp4",
            "ABC1234X_2_20260728141441.MP4",
            "ABC 1234_ch2_20260728-141441_SOS.mp4",
            "ABC-1234_CAM03_20260728T141441.mp4",
            "ABC1234X_camera-4_2026-07-28_14-41-41.mp4",
            "trip 7/ABC1234X_F_2026-07-28T14.41.41_alarm.mp4",
        ),
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}
