"""Structured logging: events with fields, sanitized, without passwords, in the format that suits the output stream.

Log lines quote untrusted text: names of files on a memory card, responses of a captive portal. No such text can forge a
log line, send escape sequences to a terminal, or hide other text.
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

MAX_TEXT_CHARS = 2_000
MAX_TRACEBACK_CHARS = 16_000
MAX_ITEMS = 50
MAX_DEPTH = 4

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_OWN_FIELDS = ("timestamp", "level")  # never redacted, even if the password is "info": the renderers rely on them
_LOCK = threading.RLock()  # reentrant: a signal handler may log while its own thread is writing


def configure(
    settings: LogSettings,
    *,
    secrets: Iterable[Secret],
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Configure structlog, and route the standard library's logging (from WARNING) through it. May be called again.

    Args:
        settings: level and format; "auto" means console on a terminal, journal lines if journald reads the stream,
            else JSON.
        secrets: replaced by "…" wherever they would appear.
        stream: the output; None means standard error.
        environ: holds JOURNAL_STREAM (systemd.exec(5)), NO_COLOR and TERM.
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
    """Escape everything that is not printable: control characters, line ends, ESC, bidirectional overrides.

    A byte of a file name that is not UTF-8 (a surrogate, PEP 383) becomes \\xNN. Backslashes are doubled, so that
    different texts stay different.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
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
    """A processor that sanitizes every text of an event, redacts the secrets, and truncates long values."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        forms = {form for secret in secrets for form in _forms(secret.reveal())}
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        clean = {key: event.pop(key) for key in _OWN_FIELDS if key in event}
        clean["event"] = self._text(str(event.pop("event")))
        traceback = event.pop("exception", None)
        clean.update((self._text(str(key)), self._value(value, MAX_DEPTH)) for key, value in event.items())
        if traceback is not None:
            clean["exception"] = self._traceback(str(traceback))
        return clean

    def _value(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth and isinstance(value, Mapping):
            items = list(value.items())[:MAX_ITEMS]
            return {self._text(str(key)): self._value(item, depth - 1) for key, item in items}
        if depth and isinstance(value, (list, tuple, set, frozenset)):
            return [self._value(item, depth - 1) for item in list(value)[:MAX_ITEMS]]
        return self._text(_as_text(value))

    def _text(self, text: str) -> str:
        shown = self._without_secrets(text)
        if len(shown) > MAX_TEXT_CHARS:
            return f"{sanitize(shown[:MAX_TEXT_CHARS])}… ({len(shown)} characters)"
        return sanitize(shown)

    def _traceback(self, text: str) -> str:
        """Line breaks are kept; a very long traceback is truncated at the start, since the error is at the end."""
        shown = self._without_secrets(text)
        if len(shown) > MAX_TRACEBACK_CHARS:
            shown = f"…\n{shown[-MAX_TRACEBACK_CHARS:]}"
        return "\n".join(sanitize(line) for line in shown.split("\n"))

    def _without_secrets(self, text: str) -> str:
        return text if self._secrets is None else self._secrets.sub("…", text)


def _as_text(value: object) -> str:
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
    """How a secret may appear: verbatim, in a repr, in JSON, in a URL."""
    if not secret:
        return set()
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)}


def _rendering(form: str, stream: TextIO, environ: Mapping[str, str], clean: Processor) -> list[Processor]:
    """The processors that render an event in this format."""
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
    """Whether journald reads this very stream: a child process with redirected output inherits the variable too."""
    with contextlib.suppress(OSError, ValueError):
        status = os.fstat(stream.fileno())
        return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def _indent_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Indent all lines of a traceback, so that a line break in an exception's message cannot forge an event."""
    if "exception" in event:
        event["exception"] = textwrap.indent(event["exception"], "    ", lambda _line: True)
    return event


def _journal_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """`<4>event key=value …`, with the priority prefix of sd-daemon(3); the journal adds the time."""
    priority = _PRIORITIES[event.pop("level")]
    name = event.pop("event")
    return " ".join([f"<{priority}>{name}", *(f"{key}={_field(value)}" for key, value in event.items())])


def _field(value: object) -> str:
    """A value with an unambiguous end: quoted if it contains a space, a quote, an equals sign or a line break."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value and not set(value) & set(' ="\n'):
        return value
    escaped = value.replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class _Lines:
    """Writes whole lines, under the log's lock. A stream that cannot be written loses the line, not the daemon.

    RuntimeError is what a buffered stream raises if a signal handler writes during a write.
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
    """Passes log records of libraries to structlog, for the same format and redaction."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)  # the library's arguments do not match its format
        level = min(logging.CRITICAL, record.levelno // 10 * 10)
        structlog.get_logger().log(
            level, "library_message", library=record.name, message=message, exc_info=record.exc_info
        )
