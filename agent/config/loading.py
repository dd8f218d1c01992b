"""The configuration file becomes the frozen Config, or one error that names every mistake in it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import tomli

from agent.config.environment import current_user
from agent.config.password import read_password
from agent.config.regions import BASE_URLS
from agent.config.schema import Schema, schema
from agent.config.sections import ErrorCollector, check_sections, read_section, section, sections
from agent.config.settings import (
    Api,
    ClockSettings,
    Config,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    Secret,
    SpoolSettings,
    UploadSettings,
    Vehicle,
)
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


SYSTEM_FILE = Path("/etc/vision-ingest/config.toml")
MOST_FOLDERS = 100  # each is compared with each


def default_file(environ: Mapping[str, str] = os.environ, *, system_file: Path = SYSTEM_FILE) -> Path:
    """The configuration file when none is named: the one in /etc, else $VISION_INGEST_CONFIG, else the one in /etc."""
    if not os.access(system_file, os.F_OK) and environ.get("VISION_INGEST_CONFIG"):
        return Path(environ["VISION_INGEST_CONFIG"])
    return system_file


def load(
    file: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    with_password: bool = True,
    presets: Collection[str] = ("auto",),
) -> Config:
    """Read the configuration.

    Args:
        file: the TOML file; its drop-ins (see `drop_ins`) are read too, and relative paths start at its folder.
        environ: where the password is looked up, beside the file that the configuration names.
        with_password: False leaves the password empty: for commands of users who may not read it.
        presets: the names that `footage.preset` may have.

    Raises:
        ConfigError: with every mistake that was found. Footage folders need not exist: a card may be mounted later.
    """
    file = file.absolute()
    read = read_documents(file)
    document = read.tables
    keys = schema(file.parent, presets)
    errors = ErrorCollector(file, read.origins)
    check_sections(document, keys, errors)

    def values(name: str) -> dict[str, Any]:
        return read_section(section(document, name, errors), name, keys, errors)

    api = _read_api(document, keys, errors, environ if with_password else None)
    vehicle = Vehicle(**values("vehicle"))
    limits = Limits(**values("limits"))
    conform = Conform(**values("conform"))
    spool = SpoolSettings(**values("spool"))
    upload = UploadSettings(**values("upload"))
    clock = ClockSettings(**values("clock"))
    log = LogSettings(**values("log"))
    footage = _read_footage(document, keys, errors)
    check_sizes(limits, spool, upload, errors)
    check_folders(footage, spool, errors)
    errors.raise_any()
    return Config(
        file=file,
        api=Api(**api),
        vehicle=vehicle,
        footage=tuple(footage.values()),
        limits=limits,
        conform=conform,
        spool=spool,
        upload=upload,
        log=log,
        clock=clock,
    )


def _read_api(
    document: dict[str, Any], keys: Schema, errors: ErrorCollector, environ: Mapping[str, str] | None
) -> dict[str, Any]:
    """The fields of Api, as far as they are good; without `environ` the password stays empty."""
    written = section(document, "api", errors)
    values = read_section(written, "api", keys, errors)
    refused = written.keys() - values.keys()
    if "username" not in written:
        errors.add("api.username", "is missing", "give the username of the Fleet API account")
    if "region" not in written and "base_url" not in written:
        errors.add("api.region", "is missing", f"give the country of the account: {', '.join(BASE_URLS)}")
    if "region" in written and "base_url" in written:
        errors.add("api.base_url", "stands beside region, which means an address too", "remove one of the two")
    if "region" in values:
        values["base_url"] = BASE_URLS[values.pop("region")]
    values["password"] = Secret("")
    password_file = values.pop("password_file", None)
    if environ is not None and not refused & {"password", "password_file"}:
        with errors.collect("api.password_file"):
            values["password"] = read_password(password_file, environ)
    return values


def _read_footage(document: dict[str, Any], keys: Schema, errors: ErrorCollector) -> dict[int, FootageFolder]:
    """The folders by their place in the file; one without a usable path is reported and left out."""
    if not document.get("footage", []):
        errors.add("footage", "is missing", 'add [[footage]] and below it path = "..." with the folder to watch')
    folders = {}
    listed = sections(document, "footage", errors)
    if len(listed) > MOST_FOLDERS:
        errors.add("footage", f"stands there {len(listed):,} times", f"allowed are {MOST_FOLDERS} folders")
    for index, written in enumerate(listed[:MOST_FOLDERS]):
        label = f"footage[{index}]"
        values = read_section(written, "footage", keys, errors, label=label)
        if "path" not in written:
            errors.add(f"{label}.path", "is missing", "give the folder that the camera writes into")
        if "preset" in written and "pattern" in written:
            errors.add(f"{label}.pattern", "stands beside preset, which is a pattern too", "remove one of the two")
        if "path" in values:
            folders[index] = FootageFolder(**values)
    return folders


def check_sizes(limits: Limits, spool: SpoolSettings, upload: UploadSettings, errors: ErrorCollector) -> None:
    """The largest clip must fit into a batch and into the spool: otherwise it would wait forever."""
    for key, max_bytes in (("upload.batch_bytes", upload.batch_bytes), ("spool.max_bytes", spool.max_bytes)):
        if max_bytes < limits.max_bytes:
            errors.add(
                key,
                f"{max_bytes} is less than one clip may have",
                f"allowed is at least limits.max_bytes, {limits.max_bytes}",
            )


def check_folders(folders: Mapping[int, FootageFolder], spool: SpoolSettings, errors: ErrorCollector) -> None:
    """No file may be taken twice, and no clip may be taken from the spool again.

    Args:
        folders: the footage folders by their place in the file.
    """
    for (first, outer), (second, inner) in combinations(folders.items(), 2):
        if _real(outer.path) == _real(inner.path):
            errors.add(
                f"footage[{second}].path", f"is the same folder as that of footage[{first}]", "remove one of the two"
            )
        elif _takes(outer, inner.path):
            _report_nested(second, first, outer, errors)
        elif _takes(inner, outer.path):
            _report_nested(first, second, inner, errors)
    for index, folder in folders.items():
        if _takes(folder, spool.directory):
            errors.add(
                "spool.directory",
                f"{spool.directory} lies inside footage[{index}] ({folder.path}): its clips would be taken again "
                "without end",
                "choose a directory outside of all footage",
            )
        elif _real(spool.directory) in _real(folder.path).parents:
            errors.add(
                f"footage[{index}].path",
                f"{folder.path} lies inside the spool ({spool.directory}), which the service keeps for itself",
                "choose a folder outside of the spool",
            )


def _report_nested(inner: int, outer: int, folder: FootageFolder, errors: ErrorCollector) -> None:
    errors.add(
        f"footage[{inner}].path",
        f"lies inside footage[{outer}] ({folder.path}): its files would be taken twice",
        f"remove one of the two, or set recursive = false in footage[{outer}]",
    )


def _takes(folder: FootageFolder, path: Path) -> bool:
    outer, inner = _real(folder.path), _real(path)
    return outer == inner or (folder.recursive and outer in inner.parents)


def _real(path: Path) -> Path:
    """The path without symbolic links, as far as it exists (Path.resolve raises on a loop of links, this does not)."""
    return Path(os.path.realpath(path))
