from __future__ import annotations

import base64
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import LogSettings, Secret
from agent.device import logs
from agent.device.logs import sanitize
from agent.model import State

PASSWORD = "hunter2 'quoted'/\"ü"
HEADER = base64.b64encode(f"fleet:{PASSWORD}".encode()).decode()
SECRETS = (Secret(PASSWORD), Secret(HEADER), Secret(""))
HOSTILE = "clip\n<0>forged event=1\r\x1b[31m\x9b31m\u202egpj\u2028.mp4\udcff"
HARMLESS = r"clip\n<0>forged event=1\r\x1b[31m\u009b31m\u202egpj\u2028.mp4\xff"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__ != logs.__name__]
    root.setLevel(level)
    structlog.reset_defaults()


class Pipe:
    """A stream whose other end the test reads, as journald does."""

    def __init__(self) -> None:
        out, into = os.pipe()
        self.stream = os.fdopen(into, "w", encoding="utf-8")
        self.reader = os.fdopen(out, encoding="utf-8")

    @property
    def identity(self) -> str:
        status = os.fstat(self.stream.fileno())
        return f"{status.st_dev}:{status.st_ino}"

    def lines(self) -> list[str]:
        """Everything written, split at everything that any program takes as a line break."""
        self.stream.close()
        return self.reader.read().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    pipe.reader.close()


def configure(pipe: Pipe, form: str = "json", level: str = "info", **environ: str) -> Any:
    settings = LogSettings(level=level, format=form)  # type: ignore[arg-type]
    logs.configure(settings, secrets=SECRETS, stream=pipe.stream, environ=environ)
    return structlog.get_logger()


def configure_journal(pipe: Pipe) -> Any:
    return configure(pipe, "auto", JOURNAL_STREAM=pipe.identity)


def one_json_line(pipe: Pipe) -> dict[str, Any]:
    [line] = pipe.lines()
    return dict(json.loads(line))


def terminal_output(action: Callable[[TextIO], None]) -> str:
    """What a terminal receives when `action` writes to it."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen, "w", encoding="utf-8") as stream:
        action(stream)
        shown = os.read(keyboard, 100_000).decode()
    os.close(keyboard)
    return shown


# --- formats -----------------------------------------------------------------------------------------------------


def test_a_file_gets_json_with_the_time_in_utc(pipe: Pipe) -> None:
    configure(pipe, "auto").info("clip_delivered", clip=12, seconds=1.5, first=True, file=None)
    event = one_json_line(pipe)
    assert list(event) == ["timestamp", "level", "event", "clip", "seconds", "first", "file"]
    written = datetime.fromisoformat(event.pop("timestamp").replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - written).total_seconds()) < 60
    assert event == {
        "level": "info",
        "event": "clip_delivered",
        "clip": 12,
        "seconds": 1.5,
        "first": True,
        "file": None,
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_the_journal_gets_one_line_with_a_priority_and_no_time(pipe: Pipe, level: str, priority: int) -> None:
    log = configure(pipe, "auto", "debug", JOURNAL_STREAM=pipe.identity)
    getattr(log, level)("clip_deferred", clip=12, reason="no route", cameras=["F", "R"], empty="", none=None)
    assert pipe.lines() == [
        f'<{priority}>clip_deferred clip=12 reason="no route" cameras=["F", "R"] empty="" none=null'
    ]


def test_json_is_used_if_journald_does_not_read_this_stream(pipe: Pipe) -> None:
    configure(pipe, "auto", JOURNAL_STREAM="8:12345").info("started")
    assert one_json_line(pipe)["event"] == "started"


def test_a_stream_without_a_file_gets_json() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(), secrets=(), stream=stream, environ={"JOURNAL_STREAM": "8:12345"})
    structlog.get_logger().info("started")
    assert json.loads(stream.getvalue())["event"] == "started"


def test_a_terminal_gets_readable_lines_in_colour() -> None:
    def act(stream: TextIO) -> None:
        logs.configure(LogSettings(), secrets=(), stream=stream, environ={"TERM": "xterm"})
        structlog.get_logger().warning("clip_deferred", clip=12)

    shown = terminal_output(act)
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).rstrip()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[warning  \] clip_deferred +clip=12", plain)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(environ: dict[str, str]) -> None:
    def act(stream: TextIO) -> None:
        logs.configure(LogSettings(), secrets=(), stream=stream, environ=environ)
        structlog.get_logger().error("clip_refused", clip=12)

    assert "\x1b" not in terminal_output(act)


def test_the_console_format_in_a_file_has_no_colours(pipe: Pipe) -> None:
    configure(pipe, "console").info("clip_delivered", clip=12)
    [line] = pipe.lines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info     \] clip_delivered +clip=12", line)


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), secrets=())
    structlog.get_logger().info("started")
    assert json.loads(capsys.readouterr().err)["event"] == "started"


def test_events_below_the_level_are_not_written(pipe: Pipe) -> None:
    log = configure(pipe, level="warning")
    log.debug("one")
    log.info("two")
    log.warning("three")
    assert one_json_line(pipe)["event"] == "three"


def test_reconfiguring_applies_to_existing_loggers(pipe: Pipe) -> None:
    log = configure(pipe, level="error")
    log.info("before")
    configure(pipe, level="info")
    log.info("after")
    logging.getLogger("urllib3").warning("once")
    assert [json.loads(line)["event"] for line in pipe.lines()] == ["after", "library_message"]


# --- untrusted text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "console", "journal"])
def test_a_file_name_cannot_forge_a_line_or_colour_a_terminal(pipe: Pipe, form: str) -> None:
    log = configure_journal(pipe) if form == "journal" else configure(pipe, form)
    log.info(HOSTILE, file=HOSTILE, path=Path(HOSTILE), nested={HOSTILE: [HOSTILE, (HOSTILE,)]}, **{HOSTILE: 1})
    [line] = pipe.lines()
    assert line.isprintable()
    assert "forged" in line


def test_an_escaped_name_is_still_complete(pipe: Pipe) -> None:
    configure(pipe).info("clip_refused", file=HOSTILE, nested={"names": {HOSTILE}}, error=OSError(HOSTILE))
    event = one_json_line(pipe)
    assert event["file"] == HARMLESS
    assert event["nested"] == {"names": [HARMLESS]}
    assert event["error"] == f"OSError: {HARMLESS}"


def test_a_value_cannot_forge_another_field_in_the_journal(pipe: Pipe) -> None:
    configure_journal(pipe).info("clip_refused", file='a" state=delivered b="', other="\\")
    assert pipe.lines() == [r'<6>clip_refused file="a\" state=delivered b=\"" other=\\']


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026 clip é 視頻.mp4", "2026 clip é 視頻.mp4"),
        ("tab\there", r"tab\there"),
        ("C:\\n", r"C:\\n"),
        ("\udc80\ud800", r"\x80\ud800"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_sanitize_escapes_the_unprintable_and_keeps_the_rest(text: str, written: str) -> None:
    assert sanitize(text) == written


@example("\x80", "\udc80")
@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_sanitized_text_is_printable_and_distinct_texts_stay_distinct(one: str, other: str) -> None:
    assert sanitize(one).isprintable()
    assert (sanitize(one) == sanitize(other)) == (one == other)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_outside_the_streams_encoding_are_escaped(encoding: str) -> None:
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, encoding=encoding)
    logs.configure(LogSettings(format="console"), secrets=(), stream=stream, environ={})
    structlog.get_logger().info("clip_refused", file="視頻.mp4")
    assert out.getvalue().endswith(rb"file=\u8996\u983b.mp4" + b"\n")


def test_very_long_values_are_truncated(pipe: Pipe) -> None:
    nested: dict[str, Any] = {}
    nested["itself"] = nested
    configure(pipe).info("answer", body="x" * 1_000_000, many=list(range(10_000)), nested=nested)
    [line] = pipe.lines()
    event = json.loads(line)
    assert event["body"] == f"{'x' * 2000}… (1000000 characters)"
    assert event["many"] == list(range(50))
    assert len(line) < 10_000


def test_values_of_other_types_are_written_as_text(pipe: Pipe) -> None:
    start = datetime(2026, 3, 1, 8, 15, tzinfo=timezone.utc)
    configure(pipe).info("clip", state=State.WAITING, start=start, raw=b"\x1b", secret=SECRETS[0])
    event = one_json_line(pipe)
    assert (event["state"], event["start"], event["raw"], event["secret"]) == (
        "waiting",
        "2026-03-01T08:15:00+00:00",
        r"b'\\x1b'",
        "Secret(…)",
    )


# --- the password ------------------------------------------------------------------------------------------------


def fail_with(message: str, cause: Exception | None = None) -> None:
    local_variable = message  # a traceback that showed locals would show this
    raise ValueError(local_variable) from cause


@pytest.mark.parametrize("form", ["json", "console", "journal"])
def test_the_password_appears_nowhere(pipe: Pipe, form: str) -> None:
    log = configure_journal(pipe) if form == "journal" else configure(pipe, form)
    headers = {"Authorization": f"Basic {HEADER}", PASSWORD: [PASSWORD, {"deep": (PASSWORD,)}]}
    log.info(f"event {PASSWORD}", field=f"x{PASSWORD}x", headers=headers, error=ValueError(PASSWORD))
    log.info("more", shown=[repr(PASSWORD), json.dumps(PASSWORD), {"a": {"b": {"c": {"d": {"e": PASSWORD}}}}}])
    log.info(
        "url", url="http://fleet:hunter2%20%27quoted%27%2F%22%C3%BC@10.0.0.1", form="hunter2+%27quoted%27%2F%22%C3%BC"
    )
    logging.getLogger("urllib3").error("library %s", PASSWORD)
    try:
        fail_with(f"rejected {PASSWORD} {HEADER}")
    except ValueError as error:
        try:
            fail_with(repr(PASSWORD), cause=error)
        except ValueError:
            log.exception("boom")
            logging.getLogger("watchdog").exception("boom")
    written = "\n".join(pipe.lines())
    assert "hunter2" not in written
    assert HEADER not in written
    assert "rejected …" in written.replace("\\u2026", "…")


@pytest.mark.parametrize("form", ["json", "console", "auto"])
@pytest.mark.parametrize("password", ["level", "event", "info", "timestamp", "exception", "1", " "])
def test_a_weak_password_garbles_the_log_but_breaks_nothing(pipe: Pipe, form: str, password: str) -> None:
    environ = {"JOURNAL_STREAM": pipe.identity}
    settings = LogSettings(format=form)  # type: ignore[arg-type]
    logs.configure(settings, secrets=[Secret(password)], stream=pipe.stream, environ=environ)
    structlog.get_logger().info("started", clip=12, note=f"it is {password}")
    [line] = pipe.lines()
    assert "started" in line


def test_a_password_that_begins_like_another_is_fully_redacted(pipe: Pipe) -> None:
    logs.configure(LogSettings(format="json"), secrets=[Secret("abc"), Secret("abcdef")], stream=pipe.stream)
    structlog.get_logger().info("x", value="abcdef abc")
    assert one_json_line(pipe)["value"] == "… …"


# --- exceptions --------------------------------------------------------------------------------------------------


def log_an_exception(log: Any, message: str = "bad box") -> None:
    try:
        fail_with(message)
    except ValueError:
        log.exception("footage_refused", clip=12)


def test_an_exception_is_text_in_json(pipe: Pipe) -> None:
    log_an_exception(configure(pipe))
    event = one_json_line(pipe)
    assert event["level"] == "error"
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert event["exception"].endswith("ValueError: bad box")


def test_a_traceback_on_the_console_cannot_forge_an_event(
    pipe: Pipe,
) -> None:
    log_an_exception(configure(pipe, "console"), message="bad\n12:00:00 [info     ] forged\x1b[31m")
    event, *traceback = pipe.lines()
    assert "footage_refused" in event
    assert traceback[0] == "    Traceback (most recent call last):"
    assert traceback[-2:] == ["    ValueError: bad", r"    12:00:00 [info     ] forged\x1b[31m"]
    assert all(line.startswith("    ") for line in traceback)


def test_an_exception_is_one_line_in_the_journal(pipe: Pipe) -> None:
    log_an_exception(configure_journal(pipe))
    [line] = pipe.lines()
    assert line.startswith(r'<3>footage_refused clip=12 exception="Traceback (most recent call last):\n  File \"')
    assert line.endswith(r'\nValueError: bad box"')


def test_a_very_long_traceback_keeps_its_end(pipe: Pipe) -> None:
    log_an_exception(configure(pipe), message="x" * 50_000 + " the cause")
    exception = one_json_line(pipe)["exception"]
    assert exception.startswith("…\n")
    assert exception.endswith(" the cause")
    assert len(exception) < 20_000


# --- libraries ---------------------------------------------------------------------------------------------------


def test_warnings_of_libraries_take_the_same_format(pipe: Pipe) -> None:
    configure(pipe, level="debug")
    library = logging.getLogger("urllib3.connectionpool")
    library.info("Starting new connection")
    library.warning("Connection pool is full: %s", "a\nb")
    event = one_json_line(pipe)
    assert (event["level"], event["event"]) == ("warning", "library_message")
    assert (event["library"], event["message"]) == ("urllib3.connectionpool", r"Connection pool is full: a\nb")


@pytest.mark.parametrize(
    ("level", "name"), [(logging.ERROR, "error"), (35, "warning"), (logging.CRITICAL, "critical"), (99, "critical")]
)
def test_a_custom_level_of_a_library_is_rounded_down(pipe: Pipe, level: int, name: str) -> None:
    configure(pipe)
    logging.getLogger("watchdog").log(level, "overflow")
    assert one_json_line(pipe)["level"] == name


def test_a_library_message_with_wrong_arguments_is_written_without_them(pipe: Pipe) -> None:
    configure(pipe)
    record = logging.LogRecord("persistqueue", logging.WARNING, __file__, 1, "%d rows of %d", ("many",), None)
    logging.getLogger().handlers[-1].handle(record)
    assert one_json_line(pipe)["message"] == "%d rows of %d"


# --- robustness --------------------------------------------------------------------------------------------------


def test_threads_never_mix_their_lines(pipe: Pipe) -> None:
    log = configure(pipe)
    lines: list[str] = []
    collector = threading.Thread(target=lambda: lines.extend(pipe.reader))
    collector.start()

    def write(number: int) -> None:
        for count in range(200):
            log.info("event", thread=number, count=count, padding="x" * 500)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    pipe.stream.close()
    collector.join()
    events = [json.loads(line) for line in lines]
    for number in range(4):
        assert [event["count"] for event in events if event["thread"] == number] == list(range(200))


def test_a_reader_that_is_gone_does_not_stop_the_program() -> None:
    program = """
import os, structlog
from agent.config import LogSettings
from agent.device import logs
logs.configure(LogSettings(), secrets=())
for number in range(3):
    structlog.get_logger().info("event")
os.write(1, b"still here")
os._exit(0)
"""
    out, into = os.pipe()
    os.close(out)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=into, check=False)
    os.close(into)
    assert done.stdout == b"still here"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed"), RuntimeError("busy")])
def test_a_stream_that_cannot_be_written_does_not_stop_the_program(error: Exception) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    stream = Full()
    logs.configure(LogSettings(), secrets=(), stream=stream, environ={})
    structlog.get_logger().info("event")
    assert stream.getvalue() == ""


def test_a_value_without_a_text_form_does_not_lose_its_event(pipe: Pipe) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    configure(pipe).warning("question_failed", deep=[deep], long={1: {2: {3: {4: [16**5000]}}}})
    line = one_json_line(pipe)
    assert line["event"] == "question_failed"
    assert "cannot be shown (RecursionError)" in json.dumps(line)
    assert "cannot be shown (ValueError)" in json.dumps(line)
