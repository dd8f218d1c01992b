"""What is known of one camera family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.intake.marks import EventTag


@dataclass(frozen=True, slots=True)
class Created:
    """What the date inside a family's files (mvhd.creation_time) means.

    Args:
        clock: the standard says UTC; many cameras write their local time all the same.
        moment: when the camera notes it: as the recording starts, or as it closes the file.
    """

    clock: Literal["local", "utc"]
    moment: Literal["start", "close"]


@dataclass(frozen=True, slots=True)
class Preset:
    """One way of naming files.

    Args:
        name: as in `footage.preset`.
        family: the cameras, for people.
        pattern: searched in the path relative to the watched folder, `/` between its parts. Its named groups are
            those of a user's `pattern`: registration, camera, start, Y or y, m, d, H, M, S, event; and camera2, event2
            where the name may say it in another place.
        examples: paths that this pattern reads, and no other preset's, to what is read from them: "camera 2,
            2026-07-28 14:14:41, locked"; "?" stands for a camera that the configuration must name.
        cameras: the family's words for its channels, in lower case, of names and folders; "" is the channel where
            neither says one. The folder's own `cameras` goes before it.
        clock: what the time in the name means: the camera's local time, UTC, or that there is none.
        created: what the date in the file means, for names without a time, and to check the zone by; None if that is
            not known.
        event_tags: words of the group `event`, in lower case, to the tag of the recording; "" where it says nothing.
            None: any word marks an event.
        proxies: whole names of smaller copies of a recording, and of what else lies beside it: passed over in silence.
        refused: why such files can never be used, and what to change on the camera.
    """

    name: str
    family: str
    pattern: re.Pattern[str]
    examples: Mapping[str, str]
    cameras: Mapping[str, int] = field(default_factory=dict)
    clock: Literal["local", "utc", "none"] = "local"
    created: Created | None = None
    event_tags: Mapping[str, EventTag] | None = field(default_factory=dict)
    proxies: re.Pattern[str] | None = None
    refused: str = ""
