"""Loads the configuration: TOML files to one frozen Config, or one error that lists every mistake in them."""

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
from agent.config.sections import ErrorCollector, SectionReader
from agent.config.settings import (
    BASE_URLS,
    SECTIONS,
    Api,
    Config,
    FootageFolder,
    Limits,
    Secret,
    SpoolSettings,
    UploadSettings,
    schema,
)
from agent.config.values import WrongValueError
from agent.errors import ConfigError, Problem

SYSTEM_FILE = Path("/etc/vision-ingest/config.toml")
EXAMPLE = Path("/usr/share/doc/vision-ingest/examples/vision-ingest.toml")
MAX_FOLDERS = 100  # each is compared with each

# A configuration has a few kilobytes; a larger file is something else, such as a recording or a device.
MAX_BYTES = 256 * 1024

_PLACE = re.compile(r"(?P<wrong>.*) \(at (?P<place>[^()]*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """The configuration file and its drop-ins, merged.

    Args:
        tables: the sections; a key in a later file overrides an earlier one, and the [[footage]] of all files are kept.
        origins: the file of each section and key, such as "api.username" or "footage[1]".
    """

    tables: dict[str, Any] = field(default_factory=dict)
    origins: Mapping[str, Path] = field(default_factory=dict)


def default_file(environ: Mapping[str, str] = os.environ, *, system_file: Path = SYSTEM_FILE) -> Path:
    """The configuration file if none is given: $VISION_INGEST_CONFIG if there is none in /etc, else the one in /etc."""
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
    """Load the configuration.

    Args:
        file: the TOML file. Its drop-ins are read too (see `drop_ins`); relative paths start at its folder.
        environ: the environment that may contain the password, or name systemd's credentials.
        with_password: False leaves the password empty, for commands of users who must not read it.
        presets: the allowed values of `footage.preset`.

    Raises:
        ConfigError: with every mistake. A footage folder that does not exist is none: a card may be mounted later.
    """
    file = file.absolute()
    document = read_documents(file)
    errors = ErrorCollector(file, document.origins)
    reader = SectionReader(document.tables, schema(presets), file.parent, errors)
    reader.check_names()
    api = _read_api(reader, errors, environ if with_password else None)
    plain: dict[str, Any] = {
        name: section(**reader.values(reader.section(name), name))
        for name, section in SECTIONS.items()
        if name not in ("api", "footage")
    }
    if not document.tables.get("footage", []):
        errors.add("footage", "is missing", 'add [[footage]] and below it path = "..." with the folder to watch')
    footage = _read_footage(reader, errors)
    _check_sizes(plain["limits"], plain["spool"], plain["upload"], errors)
    _check_folders(footage, plain["spool"], errors)
    errors.raise_any()
    return Config(file=file, api=Api(**api), footage=tuple(footage.values()), **plain)


def drop_ins(file: Path) -> list[Path]:
    """The further files of a configuration, in the order in which they are read: for config.toml, config.d/*.toml.

    They leave the packaged file unchanged, so that an upgrade need not ask about it, and keep the settings of a fleet
    apart from those of one vehicle.
    """
    return sorted(file.with_suffix(".d").glob("[!.]*.toml"))


def read_documents(file: Path) -> Document:
    """Read, parse and merge the file and its drop-ins.

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
        ConfigError: the file is missing, unreadable or not TOML; says what to do, or which line to correct.
    """
    place = "the file"
    try:
        return tomli.loads(_read_text(file))
    except WrongValueError as error:
        problem = Problem(str(file), place, error.wrong, error.allowed)
    except tomli.TOMLDecodeError as error:
        found = _PLACE.fullmatch(str(error))
        wrong, place = (found["wrong"], found["place"]) if found else (str(error), place)
        problem = Problem(
            str(file), place, wrong, "correct it there: text needs quotes, the name of a section needs brackets"
        )
    except (ValueError, RecursionError) as error:
        problem = Problem(str(file), place, str(error), "write it simpler")
    raise ConfigError([problem])


def _read_text(file: Path) -> str:
    quoted = shlex.quote(str(file))
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise WrongValueError(f"is larger than {MAX_BYTES:,} bytes", "name the configuration file itself")
        return content.decode("utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError as error:
        create = f"sudo install -D -m 644 {EXAMPLE} {quoted}"
        raise WrongValueError("does not exist", f"create it from the example and edit it: {create}") from error
    except PermissionError as error:
        raise WrongValueError(
            f"cannot be read by the user {current_user()}", f"allow it: sudo chmod a+r {quoted}"
        ) from error
    except IsADirectoryError as error:
        raise WrongValueError("is a directory", "name the file in it: --config FILE") from error
    except UnicodeDecodeError as error:
        raise WrongValueError(f"is not UTF-8 text (byte {error.start + 1})", "save it as UTF-8") from error
    except OSError as error:
        raise WrongValueError(f"cannot be read: {error.strerror}", "check the path and the disk") from error


def _read_api(reader: SectionReader, errors: ErrorCollector, environ: Mapping[str, str] | None) -> dict[str, Any]:
    """The valid fields of Api; without `environ` the password is empty."""
    written = reader.section("api")
    values = reader.values(written, "api")
    if "username" not in written:
        errors.add("api.username", "is missing", "set it to the username of the Fleet API account")
    if "region" not in written and "base_url" not in written:
        errors.add("api.region", "is missing", f"set it to the country of the account: {', '.join(BASE_URLS)}")
    if "region" in written and "base_url" in written:
        errors.add("api.base_url", "cannot be combined with region, which sets the URL too", "remove one of the two")
    if "region" in values:
        values["base_url"] = BASE_URLS[values["region"]]
    values["password"] = Secret("")
    refused = written.keys() - values.keys()
    if environ is not None and "password" not in written and "password_file" not in refused:
        with errors.collect("api.password_file"):
            values["password"] = read_password(values.get("password_file"), environ)
    return values


def _read_footage(reader: SectionReader, errors: ErrorCollector) -> dict[int, FootageFolder]:
    """The folders by their index in the files; one without a valid path is reported and left out."""
    written = reader.sections("footage")
    if len(written) > MAX_FOLDERS:
        errors.add("footage", f"appears {len(written):,} times", f"allowed: at most {MAX_FOLDERS} folders")
    folders: dict[int, FootageFolder] = {}
    for index, section in enumerate(written[:MAX_FOLDERS]):
        label = f"footage[{index}]"
        values = reader.values(section, "footage", label)
        if "path" not in section:
            errors.add(f"{label}.path", "is missing", "set it to the folder that the camera writes to")
        if "preset" in section and "pattern" in section:
            errors.add(f"{label}.pattern", "cannot be combined with preset", "remove one of the two")
        if "path" in values:
            folders[index] = FootageFolder(**values)
    return folders


def _check_sizes(limits: Limits, spool: SpoolSettings, upload: UploadSettings, errors: ErrorCollector) -> None:
    """The largest clip must fit into a batch and into the spool: otherwise it would wait forever."""
    for key, max_bytes in (("upload.batch_bytes", upload.batch_bytes), ("spool.max_bytes", spool.max_bytes)):
        if max_bytes < limits.max_bytes:
            errors.add(
                key,
                f"{max_bytes} is less than the largest clip",
                f"allowed: at least limits.max_bytes, {limits.max_bytes}",
            )


def _check_folders(folders: Mapping[int, FootageFolder], spool: SpoolSettings, errors: ErrorCollector) -> None:
    """No file may be taken twice, and the spool's clips may not be taken as footage.

    Args:
        folders: the footage folders by their index in the files.
    """
    for (first, outer), (second, inner) in combinations(folders.items(), 2):
        if _real(outer.path) == _real(inner.path):
            errors.add(f"footage[{second}].path", f"is the same folder as footage[{first}]", "remove one of the two")
        elif _contains(outer, inner.path):
            _report_nested(second, first, outer, errors)
        elif _contains(inner, outer.path):
            _report_nested(first, second, inner, errors)
    for index, folder in folders.items():
        if _contains(folder, spool.directory):
            errors.add(
                "spool.directory",
                f"{spool.directory} is inside footage[{index}] ({folder.path}): its clips would be taken again",
                "choose a directory outside of all footage folders",
            )
        elif _real(spool.directory) in _real(folder.path).parents:
            errors.add(
                f"footage[{index}].path",
                f"{folder.path} is inside the spool ({spool.directory}), which is only for the service itself",
                "choose a folder outside of the spool",
            )


def _report_nested(inner: int, outer: int, folder: FootageFolder, errors: ErrorCollector) -> None:
    errors.add(
        f"footage[{inner}].path",
        f"is inside footage[{outer}] ({folder.path}): its files would be taken twice",
        f"remove one of the two, or set recursive = false in footage[{outer}]",
    )


def _contains(folder: FootageFolder, path: Path) -> bool:
    outer, inner = _real(folder.path), _real(path)
    return outer == inner or (folder.recursive and outer in inner.parents)


def _real(path: Path) -> Path:
    """The path without symbolic links, as far as it exists; unlike Path.resolve it accepts a loop of links."""
    return Path(os.path.realpath(path))
