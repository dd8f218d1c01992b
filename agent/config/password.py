"""Finds the password, and lists what no log may show."""

from __future__ import annotations

import base64
import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.config.environment import SERVICE_USER, current_user
from agent.config.settings import Config, Secret
from agent.config.values import WrongValueError

CREDENTIAL = "api-password"
VARIABLE = "VISION_INGEST_PASSWORD"

_ALLOWED = "allowed: the password in one line and nothing else"


def read_password(file: Path | None, environ: Mapping[str, str]) -> Secret:
    """The password: systemd's credential, else `file`, else the environment.

    Args:
        file: the file that `api.password_file` names, if any.
        environ: may contain CREDENTIALS_DIRECTORY (LoadCredential= in systemd.exec(5)) and the password itself.

    Raises:
        WrongValueError: there is no password, or the first place that has one cannot be used; says what to do.
    """
    if "CREDENTIALS_DIRECTORY" in environ:
        credential = Path(environ["CREDENTIALS_DIRECTORY"], CREDENTIAL)
        # The package creates an empty file, so that systemd always has one to load.
        if os.access(credential, os.F_OK) and credential.stat().st_size:
            return _password(_read(credential), str(credential))
    if file is not None:
        _check_file_is_private(file)
        return _password(_read(file), str(file))
    if VARIABLE in environ:
        return _password(environ[VARIABLE], f"${VARIABLE}")
    raise WrongValueError(
        "there is no password",
        f"write it into a file and name that file here: {_create(Path('/etc/vision-ingest/api-password'))}",
    )


def secrets_of(config: Config) -> tuple[Secret, ...]:
    """Everything that must not appear in a log: the passwords, and the HTTP headers made of them."""
    hidden = _credentials(config.api.username, config.api.password.reveal())
    if config.api.proxy is not None:
        proxy = urlsplit(config.api.proxy)
        hidden |= _credentials(unquote(proxy.username or ""), unquote(proxy.password or ""))
    return tuple(Secret(value) for value in sorted(hidden))


def _credentials(username: str, password: str) -> set[str]:
    """The password, and its HTTP Basic credentials (RFC 7617 leaves the encoding open: UTF-8 or Latin-1)."""
    if not password:
        return set()
    pair = f"{username}:{password}"
    encoded = {pair.encode("utf-8"), pair.encode("latin-1", errors="replace")}
    return {password, *(base64.b64encode(value).decode() for value in encoded)}


def _check_file_is_private(file: Path) -> None:
    quoted = shlex.quote(str(file))
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise WrongValueError(f"{file} does not exist", f"create it: {_create(file)}") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise WrongValueError(f"{file} is a directory", "name the file in it that contains the password")
    if not stat.S_ISREG(status.st_mode):
        raise WrongValueError(f"{file} is not a regular file", "name a file that contains the password")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise WrongValueError(f"other users can access {file} (mode {mode:o})", f"restrict it: sudo chmod 600 {quoted}")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WrongValueError(f"{file} is not UTF-8 text", _ALLOWED) from error
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> WrongValueError:
    if isinstance(error, PermissionError):
        return WrongValueError(
            f"{file} cannot be read by the user {current_user()}",
            f"run this command with sudo, or make the service its owner: sudo chown {SERVICE_USER} "
            f"{shlex.quote(str(file))}",
        )
    return WrongValueError(f"{file} cannot be read: {error.strerror}", "check the path and the disk")


def _password(written: str, place: str) -> Secret:
    value = written.removesuffix("\n").removesuffix("\r")
    if not value:
        raise WrongValueError(f"{place} is empty", _ALLOWED)
    if "\n" in value or "\r" in value or "\0" in value:
        raise WrongValueError(f"{place} has more than one line", _ALLOWED)
    return Secret(value)


def _create(file: Path) -> str:
    command = f"sudo install -D -m 600 -o {SERVICE_USER} /dev/stdin {shlex.quote(str(file))}"
    return f"{command} (then type the password, Enter and Ctrl-D)"
