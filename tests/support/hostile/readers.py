"""Each parser of external data, fed with one hostile input: allowed results and errors."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import structlog

from agent.config import FootageFolder, LogSettings, load
from agent.config.patterns import pattern
from agent.device import logs
from agent.device.control import NAME, ControlServer
from agent.errors import ConfigError, FootageRefused, VisionIngestError
from agent.intake.identify.filename import read_name
from agent.intake.identify.sidecar import read_sidecar
from agent.media import mp4
from agent.model import ClipKey, State, Upload
from agent.spool import files
from agent.spool.records import RowUnreadable, from_json
from agent.vision import error_mapping
from agent.vision.client import _json
from agent.vision.error_mapping import classify
from agent.vision.responses import (
    item_errors,
    match_results,
    messages,
    objects,
    parse_page,
    parse_results,
    single_result,
    urls,
)
from agent.vision.transport import HttpResponse
from tests.support.hostile.documents import document, json_bytes, toml
from tests.support.hostile.movies import movies, mutated
from tests.support.hostile.texts import NAMES, damaged_text, text

UTC = ZoneInfo("UTC")
START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)

Feed: TypeAlias = Callable[[random.Random], str]
"""Makes one input, gives it to a reader, checks what it said, and names the outcome."""

PATTERNS = (
    r"(?P<registration>.*)_(?P<camera>.*)_(?P<start>.*)\.mp4",
    r"(?P<camera>\d+)?.*(?P<Y>\d+)(?P<m>\d\d)(?P<d>\d\d).(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)?",
    r"(?P<y>.+)(?P<m>.+)(?P<d>.+)(?P<H>.)(?P<M>.)",
    r"(?P<event>\w+)",
)


def feed_boxes(rng: random.Random) -> str:
    content = mutated(rng.choice(movies()), rng)
    try:
        movie = mp4.read(io.BytesIO(content))
    except mp4.Mp4Error as error:
        return _said(error, str(error), 500)
    assert 0 <= movie.duration_seconds < 2**128
    return "read"


def _said(error: Exception, reason: str, longest: int) -> str:
    assert 10 < len(reason) < longest
    assert reason.isprintable()
    return type(error).__name__


@cache
def folders() -> tuple[FootageFolder, ...]:
    path = Path("/media/card/ch3")
    patterns = [FootageFolder(path, pattern=pattern(written)) for written in PATTERNS]
    return FootageFolder(path), FootageFolder(path, cameras={"F": 1, "ß": 2}), *patterns


def feed_name(rng: random.Random) -> str:
    name = text(rng, 60) if rng.random() < 0.2 else damaged_text(rng.choice(NAMES), rng)
    found = read_name(name, rng.choice(folders()))
    assert found.camera is None or 0 <= found.camera <= 255
    assert all(fault.isprintable() for fault in found.faults.values())
    return "with a fault" if found.faults else "a start" if found.start else "nothing"


def feed_stored_name(rng: random.Random) -> str:
    identity = f"{rng.getrandbits(128):032x}"
    name = f"20260728T140000Z_20260728T140100Z_ABC%201234_1_p10_{identity}-0.mp4"
    found = files.read_name(damaged_text(name, rng) if rng.random() < 0.8 else text(rng, 60))
    if found is None:
        return "no clip"
    assert found.key.start.tzinfo is not None
    assert len(str(found.key.camera)) < 10
    return "a clip"


UPLOADS = tuple(
    Upload(number, ClipKey("ABC1234X", number, START, START + timedelta(minutes=1)), "", Path("clip"), 1, 1)
    for number in range(3)
)
HEADERS = ("X-RateLimit-Retry-After-Seconds", "X-RateLimit-Retry-At", "Retry-After", "Date", "Location", "Content-Type")
HEADER_VALUES = (
    "5",
    "-1",
    "1e400",
    "nan",
    "9" * 5000,
    "Mon, 01 Jan 2026 00:00:00 GMT",
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Mon, 01 Jan 2026 00:00:00 +99999999999999",
    "01 Jan",
    "http://login.example/\x1b[2J",
)


def feed_answer(rng: random.Random) -> str:
    """Everything that the client does with a response."""
    headers = {
        name: rng.choice(HEADER_VALUES) if rng.random() < 0.8 else text(rng) for name in HEADERS if rng.random() < 0.3
    }
    reply = HttpResponse(
        rng.choice((200, 204, 301, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 999)), headers, json_bytes(rng)
    )
    payload = _json(reply)
    results = parse_results(payload, UTC)
    match_results(results, UPLOADS, UTC)
    for said in (*messages(payload), *item_errors(payload).values(), *(error for r in results for error in r.errors)):
        assert said.isprintable()
        classify(said)
    errors = single_result(payload, UPLOADS[0]).errors
    assert len(errors) <= 20
    urls(payload)
    for record in objects(payload):
        parse_page(record, UTC, 1)
    decision = error_mapping.error_for(reply, payload, START.timestamp())
    wait = error_mapping.retry_after(reply, START.timestamp())
    assert wait is None or 0 <= wait <= error_mapping.MAX_RETRY_SECONDS
    return type(decision).__name__


def feed_row(rng: random.Random) -> str:
    row: Any = {
        "path": "/media/card/a.mp4",
        "size": 1,
        "modified_ns": 1,
        "reason": "",
        "history": [["2026-07-28T14:00:00Z", "waiting", ""]],
        "video": ["ABC1234X", 1, "2026-07-28T14:00:00Z", "2026-07-28T14:01:00Z"],
        "stored": ["clip.mp4", 1, 1, "00"],
    }
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(row))
        if isinstance(row[name], list) and rng.random() < 0.7 and row[name]:
            row[name] = [*row[name]]
            row[name][rng.randrange(len(row[name]))] = text(rng) if rng.random() < 0.5 else document(rng, 2)
        else:
            row[name] = document(rng, 3)
    try:
        record = from_json(1, State.WAITING, 0.0, 0, row)
    except RowUnreadable:
        return "unreadable"
    if record.stored is not None:
        place = Path("/var/lib/vision-ingest/clips")
        assert (place / record.stored.name).parent == place
        assert record.stored.name not in ("", ".", "..")
    return "read"


@contextmanager
def configurations(place: Path) -> Iterator[Feed]:
    file = place / "config.toml"

    def feed(rng: random.Random) -> str:
        file.write_bytes(toml(rng))
        try:
            load(file, environ={"VISION_INGEST_PASSWORD": "hunter2"})
        except ConfigError as error:
            return {_said(error, str(problem), 100_000) for problem in error.problems}.pop()
        return "read"

    yield feed


@contextmanager
def sidecars(place: Path) -> Iterator[Feed]:
    file = place / "clip.json"

    def feed(rng: random.Random) -> str:
        file.write_bytes(json_bytes(rng))
        try:
            sidecar = read_sidecar(place / "clip.mp4")
        except FootageRefused as refusal:
            return _said(refusal, refusal.reason, 500)
        assert sidecar.camera is None or 0 <= sidecar.camera <= 255
        sidecar.comments.encode()
        return "passed over" if sidecar.note else "read"

    yield feed


@contextmanager
def log_lines(place: Path) -> Iterator[Feed]:
    """Each event is one line in each format, whatever its fields contain."""
    with (place / "log").open("w+", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        forms: tuple[LogSettings, ...] = (LogSettings(format="json"), LogSettings(format="console"), LogSettings())

        def feed(rng: random.Random) -> str:
            form = rng.choice(forms)
            stream.seek(0)
            stream.truncate()
            logs.configure(form, secrets=(), stream=stream, environ=journal)
            fields = {rng.choice(("footage", "reason", "clip")): text(rng) if rng.random() < 0.6 else document(rng)}
            structlog.get_logger().warning("footage_refused", **fields)
            stream.seek(0)
            written = stream.read()
            assert written.count("\n") == 1
            assert written.endswith("\n")
            assert written[:-1].isprintable()
            assert form.format != "json" or json.loads(written)["event"] == "footage_refused"
            assert form.format != "auto" or written.startswith("<4>footage_refused ")
            return form.format

        with logging_restored():
            yield feed


@contextmanager
def control_requests(_: Path) -> Iterator[Feed]:
    """Requests to a real socket, one after the other: whatever one was, the next is answered."""

    def feed(rng: random.Random) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(f"{place}/{NAME}")
            connection.sendall(json_bytes(rng).replace(b"\n", b" ") + b"\n")
            connection.shutdown(socket.SHUT_WR)
            answered = b"".join(iter(lambda: connection.recv(65536), b""))
        return "answered" if answered and isinstance(json.loads(answered), dict) else "not answered"

    with logging_restored(), tempfile.TemporaryDirectory() as place:  # an address has 107 bytes at most
        logs.configure(LogSettings(format="json"), secrets=(), stream=io.StringIO())
        with closing(ControlServer(Path(place), _answer)):
            yield feed


@contextmanager
def logging_restored() -> Iterator[None]:
    """Restore the logging configuration at the end."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def _answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    match request:
        case {"ask": "retry", "clips": [*clips]}:
            return {"changed": [int(clip) for clip in clips]}
        case {"ask": "status"}:
            return {"sentence": "idle"}
    raise VisionIngestError(f"unknown request {request}")


READERS: Mapping[str, Callable[[Path], AbstractContextManager[Feed]]] = {
    "box reader": lambda _: nullcontext(feed_boxes),
    "names": lambda _: nullcontext(feed_name),
    "stored names": lambda _: nullcontext(feed_stored_name),
    "answers": lambda _: nullcontext(feed_answer),
    "rows of the queue": lambda _: nullcontext(feed_row),
    "sidecars": sidecars,
    "configurations": configurations,
    "log lines": log_lines,
    "control requests": control_requests,
}
"""What is fed, given a directory to work in."""
