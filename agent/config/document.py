"""The configuration file as the table that TOML says it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import tomli

from agent.config.access import current_user
from agent.errors import ConfigError, Problem

EXAMPLE = Path("/usr/share/doc/vision-ingest/examples/vision-ingest.toml")

# A long one has a few kilobytes; what is larger is some other file, such as a recording or a device.
MAX_BYTES = 256 * 1024

_PLACE = re.compile(r"(?P<wrong>.*) \(at (?P<place>[^()]*)\)", re.DOTALL)


def read_document(file: Path) -> dict[str, Any]:
    """Read and parse the file.

    Raises:
        ConfigError: the file is missing, may not be read, or is not TOML; says which command or place repairs it.
    """
    text = _text(file)
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        found = _PLACE.fullmatch(str(error))
        wrong, place = (found["wrong"], found["place"]) if found else (str(error), "the file")
        raise _problem(file, place, wrong, "correct it there: text stands in quotes, a section in brackets") from error
    except (ValueError, RecursionError) as error:
        raise _problem(file, "the file", str(error), "write it simpler") from error


def _text(file: Path) -> str:
    quoted = shlex.quote(str(file))
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _problem(file, "the file", f"is larger than {MAX_BYTES:,} bytes", "name the configuration's own file")
        return content.decode("utf-8-sig")  # a byte order mark is what some editors leave
    except FileNotFoundError as error:
        create = f"sudo install -D -m 644 {EXAMPLE} {quoted}"
        raise _problem(
            file, "the file", "does not exist", f"create it from the example and edit it: {create}"
        ) from error
    except PermissionError as error:
        raise _problem(
            file, "the file", f"may not be read by the user {current_user()}", f"allow it: sudo chmod a+r {quoted}"
        ) from error
    except IsADirectoryError as error:
        raise _problem(file, "the file", "is a directory", "name the file in it: --config FILE") from error
    except UnicodeDecodeError as error:
        raise _problem(
            file, "the file", f"is not UTF-8 text (byte {error.start + 1})", "save it as UTF-8 in the editor"
        ) from error
    except OSError as error:
        raise _problem(file, "the file", f"cannot be read: {error.strerror}", "check the path and the disk") from error


def _problem(file: Path, place: str, wrong: str, allowed: str) -> ConfigError:
    return ConfigError([Problem(str(file), place, wrong, allowed)])
