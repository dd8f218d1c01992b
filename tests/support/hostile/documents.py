"""JSON and TOML that are almost valid, or not at all."""

from __future__ import annotations

import json
import random

from tests.support.hostile.texts import text

KEYS = [
    *("data", "errors", "error", "videos", "message", "registration", "camera", "start_timestamp"),
    *("end_timestamp", "request_id", "status_id", "url", "duration", "comments", "meta", "current_page"),
    *("last_page", "total", "start", "event", "data.3.video_file", "ask", "retry", "clips", "status"),
]
VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    255,
    256,
    2**63,
    10**400,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "1",
    "ABC1234X",
    "2026-07-28 14:00:00",
    "2026-07-28 14:01:00",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "The file is not of MP4 video format.",
    "data.3.video_file is too large",
    "https://example.com/video",
    "status",
    "retry",
)
BROKEN = (
    b"}",
    b"]",
    b"{",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"\xff\xfe",
    b"\0",
    b'"',
    b"\\ud800",
    b'"errors":',
)


def document(rng: random.Random, depth: int = 5) -> object:
    kind = rng.random()
    if depth == 0 or kind < 0.35:
        return rng.choice(VALUES) if rng.random() < 0.8 else text(rng)
    if kind < 0.7:
        return {
            (rng.choice(KEYS) if rng.random() < 0.9 else text(rng)): document(rng, depth - 1)
            for _ in range(rng.randrange(6))
        }
    if kind < 0.75:  # an answer that is right but for one thing
        record = {"registration": "ABC1234X", "camera": 1, "start_timestamp": VALUES[17], "end_timestamp": VALUES[18]}
        return record | {rng.choice(KEYS): document(rng, depth - 1), rng.choice(("errors", "request_id")): 7}
    return [document(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 5, 30) if depth < 3 else (1, 2)))]


def json_bytes(rng: random.Random) -> bytes:
    written = json.dumps(document(rng), ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        begin = rng.randrange(len(written) + 1)
        written = written[:begin] + rng.choice(BROKEN) + written[begin + rng.randrange(3) :]
    if rng.random() < 0.01:
        depth = rng.randrange(100, 1100)  # up to what the reader of JSON just bears
        name = rng.choice(KEYS).encode()
        written = (
            b'{"%s":' % name
            + rng.choice((b"[" * depth + b"]" * depth, b'{"data":' * depth + b"1" + b"}" * depth))
            + b"}"
        )
    return written


TOML_VALUES = (
    "1",
    "-1",
    "0x" + "f" * 5000,
    "9" * 5000,
    "1e400",
    "nan",
    "inf",
    "true",
    '""',
    '"50 MB"',
    f'"{"9" * 5000} GB"',
    '"1.5 TiB"',
    '"Africa/Johannesburg"',
    '"../../etc/passwd"',
    f'"{"A/" * 3000}"',
    '"zone.tab"',
    '"\\u0000\\u001B"',
    '"\\uD800"',
    '"~"',
    '"/media/card"',
    '"/media"',
    '"."',
    "[]",
    "[1, [2, {a = 1}]]",
    f"{'[' * 300}{']' * 300}",
    f"[{{{'a.' * 1500}a = 1}}]",
    "{ F = 1, ß = 999 }",
    "2026-07-28T14:00:00Z",
    '"https://[::1"',
    '"https://user:pw@host:99999/"',
    '"http://127.0.0.1:1/rest"',
    '"za"',
    "'(?P<camera>\\d+)+'",
    "'(?P<camera>(a|a)*)x'",
    "'(?P<Y>\\d{4})(?P<m>..)(?P<d>..)(?P<H>..)(?P<M>..)'",
    "'((((((((((('",
    f"'{'(' * 400}a{')' * 400}(?P<camera>.)'",
    "'(?P<camera>a{99999999999999})'",
    "'(?P<camera>[[:digit:]])'",
)
SECTIONS = (
    "[api]",
    "[vehicle]",
    "[[footage]]",
    "[limits]",
    "[conform]",
    "[spool]",
    "[upload]",
    "[log]",
    "[footage]",
    "[x.y]",
    "[api",
)
TOML_KEYS = [
    *("region", "base_url", "username", "password", "password_file", "ca_file", "proxy", "timezone"),
    *("connect_timeout_seconds", "registration", "camera", "path", "recursive", "preset", "pattern"),
    *("cameras", "include", "exclude", "settle_seconds", "rescan_seconds", "after_delivery"),
    *("max_bytes", "max_seconds", "enabled", "directory", "min_free_bytes", "remember_days", "mode"),
    *("encoding", "batch_clips", "batch_bytes", "linger_seconds", "attempts", "webhook_url", "confirm"),
    *("level", "format", "a.b.c", '"\\u0007"', "passwrd"),
]


def toml(rng: random.Random) -> bytes:
    lines = (
        ['[api]\nregion = "za"\nusername = "bench"\n\n[[footage]]\npath = "/media/card"'] if rng.random() < 0.5 else []
    )
    for _ in range(rng.randrange(1, 6)):
        lines.append(rng.choice(SECTIONS))
        lines += [f"{rng.choice(TOML_KEYS)} = {rng.choice(TOML_VALUES)}" for _ in range(rng.randrange(4))]
    if rng.random() < 0.5:  # so that most get beyond the parser: a key once in each section
        lines = list(dict.fromkeys(lines))
    written = "\n".join(lines).encode()
    if rng.random() < 0.1:
        begin = rng.randrange(len(written) + 1)
        written = written[:begin] + rng.choice((b"\xff", b"\0", b"=", b"[[", b'"', b"\r")) + written[begin + 1 :]
    return written
