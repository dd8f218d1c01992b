"""The configuration file becomes the frozen Config, or one error that names every mistake in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from agent.config.consistency import check_folders, check_sizes
from agent.config.document import read_documents
from agent.config.mistakes import ErrorCollector
from agent.config.password import read_password
from agent.config.regions import BASE_URLS
from agent.config.schema import Schema, schema
from agent.config.sections import check_sections, read_section, section, sections
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
