"""The configuration as the tables that TOML says it is: the file, and the drop-ins that stand beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli

from agent.config.access import current_user
from agent.errors import ConfigError, Problem

EXAMPLE = Path("/usr/share/doc/vision-ingest/examples/vision-ingest.toml")

# A long one has a few kilobytes; what is larger is some other file, such as a recording or a device.
MAX_BYTES = 256 * 1024

_PLACE = re.compile(r"(?P<wrong>.*) \(at (?P<place>[^()]*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """What the files say together.

    Args:
        tables: the sections; a key of a later file goes before that of an earlier one, and each [[footage]] of any
            file is one more folder.
        origins: which file a section or key comes from, such as "api.username" or "footage[1]".
    """

    tables: dict[str, Any] = field(default_factory=dict)
    origins: Mapping[str, Path] = field(default_factory=dict)


def drop_ins(file: Path) -> list[Path]:
    """The further files of a configuration, in their order: for config.toml, those of config.d/ that end in .toml.

    The package's file stays as it was installed, and an upgrade has nothing to ask; what a fleet has in common and
    what is one vehicle's own can come from different hands.
    """
    return sorted(file.with_suffix(".d").glob("[!.]*.toml"))


def read_documents(file: Path) -> Document:
    """Read and parse the file and its drop-ins.

    Raises:
        ConfigError: as for `read_document`, for the first file that cannot be read.
    """
    tables: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for part in (file, *drop_ins(file)):
        for name, value in read_document(part).items():
            before = tables.get(name)
            if isinstance(value, dict) and isinstance(before, dict):
                tables[name] = before | value
            elif isinstance(value, list) and isinstance(before, list):
                origins |= {f"{name}[{len(before) + index}]": part for index in range(len(value))}
                tables[name] = before + value
            else:
                tables[name] = value
            if isinstance(value, dict):
                origins |= {f"{name}.{key}": part for key in value}
            origins.setdefault(name, part)
    return Document(tables, origins)


def read_document(file: Path) -> dict[str, Any]:
    """Read and parse one file.

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
