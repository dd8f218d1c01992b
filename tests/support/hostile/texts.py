"""Names that no recorder writes, and names that are almost valid."""

from __future__ import annotations

import random

ODD = (
    *"\n\r\t\0\x1b\x7f\x85\u2028\u202e\u200b\ufeff\ud800\udc80\udcff\U0001f697٣²ß",
    *"\\\"'%_/-. :;,[]{}()*+?|^$#",
    "\x1b[2J",
    '{"event": "started"}',
    "..",
    "../../etc/passwd",
    "9" * 30,
    "\u0e01" * 20,
)
PLAIN = [
    "ABC1234X",
    "20260728",
    "144141",
    "1",
    "2",
    "99",
    "F",
    "ch1",
    "cam",
    "event",
    ".mp4",
    "_",
    "-",
    "T",
    "Z",
    "00",
    "61",
    "9999",
    "null",
]
NAMES = (
    "ABC1234X_1_20260728_144141_event.mp4",
    "ABC-1234_CAM03_20260728T144141.mp4",
    "trip/ch2/A_F_2026-07-28T14.41.41.mp4",
)


def text(rng: random.Random, longest: int = 12) -> str:
    return "".join(rng.choice(ODD if rng.random() < 0.3 else PLAIN) for _ in range(rng.randrange(longest)))


def damaged_text(source: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 2, 4))):
        begin = rng.randrange(len(source) + 1)
        inserted = text(rng, 3)
        source = source[:begin] + inserted + source[begin + rng.choice((0, 0, 1, 4)) :]
    return source
