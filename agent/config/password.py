"""Where the password comes from, and what else no log may show."""

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

_ALLOWED = "allowed is the password in one line and nothing else"


def read_password(file: Path | None, environ: Mapping[str, str]) -> Secret:
    """The password: the service manager's credential, else `file`, else the environment.

    Args:
        file: what `api.password_file` names; None if it names nothing.
        environ: where CREDENTIALS_DIRECTORY (LoadCredential= in systemd.exec(5)) and the password itself may stand.

    Raises:
        WrongValueError: there is none, or the first place that has one cannot be used; says which command repairs it.
    """
    if "CREDENTIALS_DIRECTORY" in environ:
        credential = Path(environ["CREDENTIALS_DIRECTORY"], CREDENTIAL)
        # The package makes an empty file, so that the service manager always has one to hand over.
        if os.access(credential, os.F_OK) and credential.stat().st_size:
            return _password(_read(credential), str(credential))
    if file is not None:
        _check_only_the_owner_may_read(file)
        return _password(_read(file), str(file))
    if VARIABLE in environ:
        return _password(environ[VARIABLE], f"${VARIABLE}")
    raise WrongValueError(
        "no password is given",
        f"write it into a file and name that file here: {_create(Path('/etc/vision-ingest/api-password'))}",
    )


def secrets_of(config: Config) -> tuple[Secret, ...]:
    """Everything that must not appear in a log: the passwords, and the headers that are made of them."""
    hidden = _credentials(config.api.username, config.api.password.reveal())
    if config.api.proxy is not None:
        proxy = urlsplit(config.api.proxy)
        hidden |= _credentials(unquote(proxy.username or ""), unquote(proxy.password or ""))
    return tuple(Secret(value) for value in sorted(hidden))


def _credentials(username: str, password: str) -> set[str]:
    """The password, and what HTTP Basic makes of it (RFC 7617 leaves the encoding open: UTF-8 or Latin-1)."""
    if not password:
        return set()
    pair = f"{username}:{password}"
    encoded = {pair.encode("utf-8"), pair.encode("latin-1", errors="replace")}
    return {password, *(base64.b64encode(value).decode() for value in encoded)}


def _check_only_the_owner_may_read(file: Path) -> None:
    quoted = shlex.quote(str(file))
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise WrongValueError(f"{file} does not exist", f"create it: {_create(file)}") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise WrongValueError(f"{file} is a directory", "name the file in it that holds the password")
    if not stat.S_ISREG(status.st_mode):
        raise WrongValueError(f"{file} is not a regular file", "name a file that holds the password")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise WrongValueError(f"{file} is open to other users (mode {mode:o})", f"close it: sudo chmod 600 {quoted}")


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
            f"{file} may not be read by the user {current_user()}",
            f"run this command with sudo, or give the file to the service: sudo chown {SERVICE_USER} "
            f"{shlex.quote(str(file))}",
        )
    return WrongValueError(f"{file} cannot be read: {error.strerror}", "check the path and the disk")


def _password(written: str, place: str) -> Secret:
    value = written.removesuffix("\n").removesuffix("\r")
    if not value:
        raise WrongValueError(f"{place} is empty", _ALLOWED)
    if "\n" in value or "\r" in value or "\0" in value:
        raise WrongValueError(f"{place} holds more than one line", _ALLOWED)
    return Secret(value)


def _create(file: Path) -> str:
    command = f"sudo install -D -m 600 -o {SERVICE_USER} /dev/stdin {shlex.quote(str(file))}"
    return f"{command} (then type the password, Enter and Ctrl-D)"
