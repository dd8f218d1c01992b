"""Checks the configuration against this device: folders, permissions and certificates."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

from agent.config.sections import ErrorCollector
from agent.config.settings import Config, FootageFolder
from agent.config.values import WrongValueError
from agent.errors import Problem

SERVICE_USER = "vision-ingest"


def current_user() -> str:
    """The name of the effective user of this process, or its number if it has no name."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def check(config: Config) -> list[Problem]:
    """What is missing on this device now, for the current user.

    None of it makes the configuration invalid: a card may be mounted later, and a permission corrected while the
    service runs.
    """
    errors = ErrorCollector(config.file)
    for index, folder in enumerate(config.footage):
        with errors.collect(f"footage[{index}].path"):
            _check_footage(folder)
    with errors.collect("spool.directory"):
        _check_spool(config.spool.directory)
    if config.api.ca_file is not None:
        with errors.collect("api.ca_file"):
            _check_certificates(config.api.ca_file)
    return errors.problems


def _check_footage(folder: FootageFolder) -> None:
    path = folder.path
    status = _status(path, "mount the card, or correct the path")
    if not stat.S_ISDIR(status.st_mode):
        raise WrongValueError(f"{path} is not a directory", "name the folder that the camera writes to")
    if not _has_access(path, os.R_OK | os.X_OK):
        raise WrongValueError(
            f"{path} cannot be read by the user {current_user()}", _command_that_allows(path, status, "rx")
        )
    if folder.after_delivery == "delete" and not _has_access(path, os.W_OK):
        raise WrongValueError(
            f'{path} cannot be changed by the user {current_user()}, which after_delivery = "delete" needs',
            _command_that_allows(path, status, "rwx"),
        )


def _check_spool(directory: Path) -> None:
    """The directory need not exist if the service can create it."""
    user, quoted = current_user(), shlex.quote(str(directory))
    exists = _has_access(directory, os.F_OK)
    place = directory if exists else directory.parent
    create = f"create it: sudo install -d -m 750 -o {user} {quoted}"
    status = _status(place, create)
    if not stat.S_ISDIR(status.st_mode):
        raise WrongValueError(f"{place} is not a directory", "name a directory that only the service uses")
    if not _has_access(place, os.R_OK | os.W_OK | os.X_OK):
        repair = f"make that user its owner: sudo chown -R {user} {quoted}" if exists else create
        raise WrongValueError(f"{place} cannot be written by the user {user}", repair)


def _check_certificates(file: Path) -> None:
    status = _status(file, "correct the path, or remove the line to use the certificates of the system")
    if not stat.S_ISREG(status.st_mode):
        raise WrongValueError(f"{file} is not a regular file", "name a file with certificates in PEM format")
    if not _has_access(file, os.R_OK):
        raise WrongValueError(
            f"{file} cannot be read by the user {current_user()}", f"allow it: sudo chmod a+r {shlex.quote(str(file))}"
        )


def _status(path: Path, repair: str) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise WrongValueError(f"{path} does not exist", repair) from error
    except PermissionError as error:
        raise WrongValueError(
            f"{path} cannot be reached by the user {current_user()}",
            "allow it with sudo chmod a+x on each folder above it",
        ) from error
    except OSError as error:
        raise WrongValueError(f"{path} cannot be accessed: {error.strerror}", "check the card and the path") from error


def _has_access(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _command_that_allows(path: Path, status: os.stat_result, permissions: str) -> str:
    """The command that gives this user access: joining the folder's group if the group has access already."""
    needed = sum({"r": stat.S_IRGRP, "w": stat.S_IWGRP, "x": stat.S_IXGRP}[letter] for letter in permissions)
    if status.st_mode & needed == needed:
        return f"join its group and restart the service: sudo usermod -aG {_group(status.st_gid)} {current_user()}"
    return (
        f"allow it: sudo chmod a+{permissions} {shlex.quote(str(path))}, "
        f"or for a FAT card mount it with the option uid={current_user()}"
    )


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
