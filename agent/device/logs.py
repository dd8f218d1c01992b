"""The log: events with fields, harmless to read, without passwords, in the form that the reader of the stream needs.

A log line quotes names that a stranger may have chosen: the names of files on a memory card, the answers of a captive
portal. Whatever they hold, they cannot forge a line, colour a terminal or hide text.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import textwrap
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent.config.settings import LogSettings, Secret

LONGEST_TEXT = 2_000
LONGEST_TRACEBACK = 16_000
MOST_ITEMS = 50
DEEPEST = 4

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_OWN_FIELDS = ("timestamp", "level")  # stay as they are, whatever the password: the renderers rely on them
_LOCK = threading.RLock()  # reentrant: a signal handler may log while its own thread is writing


def configure(
    settings: LogSettings,
    *,
    secrets: Iterable[Secret],
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Set up structlog, and route the standard library's logging (from WARNING) through it. May be called again.

    Args:
        settings: the level and the format; "auto" is the console on a terminal, lines for the journal where the
            service manager reads the stream, else JSON.
        secrets: what is shown as "…" wherever it would appear.
        stream: where lines go; None means standard error.
        environ: where JOURNAL_STREAM (systemd.exec(5)), NO_COLOR and TERM are looked up.
    """
    stream = sys.stderr if stream is None else stream
    lines = _Lines(stream)
    level = getattr(logging, settings.level.upper())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            *_rendering(settings.format, stream, environ, _Sanitizer(secrets)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge(logging.WARNING))
    root.setLevel(logging.WARNING)


def sanitize(text: str) -> str:
    """The text with everything invisible written out: control characters, line ends, ESC, bidirectional overrides.

    A byte of a file name that is no UTF-8 (a surrogate, PEP 383) reads as \\xNN. A backslash is doubled, so that two
    texts never look alike.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_written_out(character) for character in text)


def _written_out(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    elif code > 0x7F:
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return f"\\x{code:02x}"


class _Sanitizer:
    """A processor that makes every text of an event harmless, hides the secrets, and cuts what is very long."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        forms = {form for secret in secrets for form in _forms(secret.reveal())}
        longest_first = sorted(forms, key=len, reverse=True)
        self._hidden = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        clean = {key: event.pop(key) for key in _OWN_FIELDS if key in event}
        clean["event"] = self._text(str(event.pop("event")))
        traceback = event.pop("exception", None)
        clean.update((self._text(str(key)), self._value(value, DEEPEST)) for key, value in event.items())
        if traceback is not None:
            clean["exception"] = self._traceback(str(traceback))
        return clean

    def _value(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth and isinstance(value, Mapping):
            items = list(value.items())[:MOST_ITEMS]
            return {self._text(str(key)): self._value(item, depth - 1) for key, item in items}
        if depth and isinstance(value, (list, tuple, set, frozenset)):
            return [self._value(item, depth - 1) for item in list(value)[:MOST_ITEMS]]
        return self._text(_in_words(value))

    def _text(self, text: str) -> str:
        shown = self._without_secrets(text)
        if len(shown) > LONGEST_TEXT:
            return f"{sanitize(shown[:LONGEST_TEXT])}… ({len(shown)} characters)"
        return sanitize(shown)

    def _traceback(self, text: str) -> str:
        """Lines stay lines; of a very long traceback the end is kept, which tells what happened."""
        shown = self._without_secrets(text)
        if len(shown) > LONGEST_TRACEBACK:
            shown = f"…\n{shown[-LONGEST_TRACEBACK:]}"
        return "\n".join(sanitize(line) for line in shown.split("\n"))

    def _without_secrets(self, text: str) -> str:
        return text if self._hidden is None else self._hidden.sub("…", text)


def _in_words(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        return str(value) if isinstance(value, (str, os.PathLike)) else repr(value)
    except (ValueError, RecursionError) as exc:  # numbers of thousands of digits, lists a thousand deep
        return f"a value that cannot be shown ({type(exc).__name__})"


def _forms(secret: str) -> set[str]:
    """How a secret may be written: as it is, in a repr, in JSON, in a URL."""
    if not secret:
        return set()
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)}


def _rendering(form: str, stream: TextIO, environ: Mapping[str, str], clean: Processor) -> list[Processor]:
    """The processors that make one line of an event, a cleaned one, in this form."""
    if form == "console" or (form == "auto" and stream.isatty()):
        colours = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        console = structlog.dev.ConsoleRenderer(
            colors=colours, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
        )
        return [structlog.processors.TimeStamper("%H:%M:%S", utc=False), clean, _indent_traceback, console]
    if form == "auto" and _is_journal(stream, environ):
        return [clean, _journal_line]
    return [structlog.processors.TimeStamper("iso", utc=True), clean, structlog.processors.JSONRenderer()]


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the service manager reads this very stream: a child that writes elsewhere inherits the variable too."""
    with contextlib.suppress(OSError, ValueError):
        status = os.fstat(stream.fileno())
        return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def _indent_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """No line of a traceback starts where an event starts: the message of an exception may hold line ends."""
    if "exception" in event:
        event["exception"] = textwrap.indent(event["exception"], "    ", lambda _line: True)
    return event


def _journal_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """`<4>event key=value …`: the priority as sd-daemon(3) has it; the journal adds the time itself."""
    priority = _PRIORITIES[event.pop("level")]
    name = event.pop("event")
    return " ".join([f"<{priority}>{name}", *(f"{key}={_field(value)}" for key, value in event.items())])


def _field(value: object) -> str:
    """A value that ends where it seems to end: text in quotes if it holds a space, a quote or an equals sign."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value and not set(value) & set(' ="\n'):
        return value
    escaped = value.replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class _Lines:
    """Writes one line at a time. A stream that takes no more must not stop the deliveries: the line is lost.

    RuntimeError is what a buffered stream raises when a signal handler writes in the middle of a write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"

    def write(self, line: str) -> None:
        encodable = line.encode(self._encoding, "backslashreplace").decode(self._encoding)
        with _LOCK, contextlib.suppress(OSError, ValueError, RuntimeError):
            self._stream.write(f"{encodable}\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


class _Bridge(logging.Handler):
    """Hands what libraries log to structlog, so that it takes the same form and loses the same secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)  # its arguments do not fit; the library's mistake must not become an error here
        level = min(logging.CRITICAL, record.levelno // 10 * 10)
        structlog.get_logger().log(
            level, "library_message", library=record.name, message=message, exc_info=record.exc_info
        )
