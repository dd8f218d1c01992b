"""Asks for the settings that differ from vehicle to vehicle, saves and checks them, and starts the service.

Settings given as options are not asked for: with all required ones given, it runs without questions, to provision many
devices. Run again, it offers the previous answers. It writes config.d/setup.toml beside the configuration file, which
stays unchanged, and the password into a file that only root may read.
"""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import cli
from agent.config.environment import SERVICE_USER
from agent.config.loading import SYSTEM_FILE, read_document
from agent.config.password import CREDENTIAL, VARIABLE
from agent.config.settings import BASE_URLS, Schema, schema
from agent.config.values import WrongValueError
from agent.daemon import read_config
from agent.device.durable import replace_file
from agent.errors import ConfigError, VisionIngestError
from agent.intake.identify.presets import AUTO, PRESETS

HELP = "ask for the settings, write the configuration, start the service"

UNIT = "vision-ingest.service"
_SYSTEMD_RUNS = Path("/run/systemd/system")  # sd_booted(3)
ANSWERS = "setup.toml"
EXPLAINED = "# The answers of `vision-ingest setup` are in config.d; vision-ingest.toml(5) explains every key.\n"
HEADER = "# Written by `vision-ingest setup`, which replaces this file each time it runs.\n"


@dataclass(frozen=True, slots=True)
class Question:
    """One setting to ask for.

    Args:
        option: name of the command line option.
        section, key: of the answer in the configuration.
        words: the question.
        required: an empty answer is not accepted.
        fallback: offered if there is no previous answer.
        asked: ask at a terminal; otherwise only the option sets it.
    """

    option: str
    section: str
    key: str
    words: str
    required: bool = False
    fallback: str = ""
    asked: bool = True


def _zone_of_this_device() -> str:
    target = os.path.realpath("/etc/localtime")
    zone = target.partition("/zoneinfo/")[2]
    return zone or "UTC"


QUESTIONS = (
    Question("region", "api", "region", f"Country of the account ({' '.join(BASE_URLS)})", required=True),
    Question("username", "api", "username", "Username of the account", required=True),
    Question("registration", "vehicle", "registration", "Registration of the vehicle, as in the account"),
    Question("camera", "vehicle", "camera", "Channel of the camera, if file names do not contain it", fallback="1"),
    Question("footage", "footage", "path", "Folder that the camera writes to", required=True),
    Question("preset", "footage", "preset", "Kind of camera", fallback=AUTO),
    Question("timezone", "footage", "timezone", "Time zone of the camera's clock", fallback=_zone_of_this_device()),
    Question("vehicles", "upload", "vehicles", "How many vehicles share the account, if over 1000", asked=False),
)
NUMBERS = ("camera", "vehicles")


def arguments(parser: argparse.ArgumentParser) -> None:
    for question in QUESTIONS:
        parser.add_argument(f"--{question.option}", metavar=question.option.upper(), help=question.words)
    parser.add_argument("--base-url", metavar="URL", help="URL of the API, instead of the region")
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help=f"file that contains the password, - for standard input (default: ${VARIABLE})",
    )
    parser.add_argument("--no-restart", action="store_true", help="do not start or restart the service")


def run(args: argparse.Namespace) -> int:
    folder = args.config.absolute().parent
    answers_file = args.config.with_suffix(".d") / ANSWERS
    keys = schema((AUTO, *PRESETS))
    answers = _answers(args, keys, _earlier(answers_file))
    password_file = folder / CREDENTIAL
    password = _password(args, password_file)
    if password is not None and not password.strip():
        raise VisionIngestError("the password is empty: the previous one was kept")
    try:
        if password is not None:
            replace_file(password_file, password + "\n", 0o600)
        if password is not None or password_file.exists():
            answers["api"]["password_file"] = str(password_file)
        replace_file(answers_file, HEADER + _toml(answers), 0o644)
        if not args.config.exists():
            replace_file(args.config, EXPLAINED, 0o644)
    except OSError as exc:
        raise VisionIngestError(f"{exc.filename}: {exc.strerror}; run this with sudo") from exc
    print(f"Written: {answers_file}", flush=True)
    for words in _grant_group_access(Path(answers["footage"]["path"])):
        print(words, flush=True)
    checked = _in_child(lambda: cli.main(["check", "--config", str(args.config)]))
    if not args.no_restart and not _is_usable(args.config):
        print("The service was not restarted: fix the problems above, then run setup again.")
    elif not args.no_restart:
        for words in _restart(args.config):
            print(words, flush=True)
    return checked


def _is_usable(file: Path) -> bool:
    try:
        read_config(file)
    except ConfigError:
        return False
    return True


def _earlier(file: Path) -> Mapping[str, Any]:
    try:
        document = read_document(file)
    except ConfigError:
        return {}
    footage = document.get("footage")
    first = footage[0] if isinstance(footage, list) and footage else {}
    return {**document, "footage": first}


def _answers(args: argparse.Namespace, keys: Schema, earlier: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All answers by section and key, in the order of the questions.

    Raises:
        VisionIngestError: an option is invalid, or a required answer is missing and there is no terminal to ask at.
    """
    answers: dict[str, dict[str, Any]] = {"api": {}, "vehicle": {}, "upload": {}, "footage": {}}
    earlier_url = earlier.get("api", {}).get("base_url")
    base_url = args.base_url or (None if args.region else earlier_url)
    if base_url:
        answers["api"]["base_url"] = _valid(base_url, keys, "api", "base_url")
    for question in QUESTIONS:
        if question.option == "region" and base_url:
            continue
        given = getattr(args, question.option)
        before = earlier.get(question.section, {}).get(question.key)
        if given is not None:
            value = _valid(given, keys, question.section, question.key)
        elif question.asked and sys.stdin.isatty():
            value = _ask(question, keys, str(before) if before is not None else question.fallback)
        elif before is not None:
            value = _valid(str(before), keys, question.section, question.key)
        elif question.required:
            raise VisionIngestError(f"--{question.option} is missing, and there is no terminal to ask at")
        else:
            value = None
        if value is not None:
            answers[question.section][question.key] = value
    return answers


def _ask(question: Question, keys: Schema, offered: str) -> Any:
    while True:
        said = input(f"{question.words}{f' [{offered}]' if offered else ''}: ").strip() or offered
        if not said and not question.required:
            return None
        try:
            return _valid(said, keys, question.section, question.key)
        except VisionIngestError as exc:
            print(f"  {exc}")


def _valid(said: str, keys: Schema, section: str, key: str) -> Any:
    """Convert an answer to the value of its configuration key.

    Raises:
        VisionIngestError: it is not valid; the message tells what is allowed.
    """
    value: Any = os.path.abspath(said) if (section, key) == ("footage", "path") and said else said  # noqa: PTH100
    if key in NUMBERS and said.isdecimal():
        value = int(said)
    try:
        keys[section][key](value)
    except WrongValueError as exc:
        raise VisionIngestError(str(exc)) from exc
    return value


def _password(args: argparse.Namespace, kept: Path) -> str | None:
    """The password to write; None to keep the previous one.

    Raises:
        VisionIngestError: none is given, there is no previous one, and there is no terminal to ask at.
    """
    if args.password_file == "-":  # noqa: S105  # standard input, not a password
        return sys.stdin.readline().rstrip("\r\n")
    if args.password_file is not None:
        try:
            return Path(args.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise VisionIngestError(f"the password cannot be read: {exc}") from exc
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    has_one = _holds_something(kept)
    if sys.stdin.isatty():
        import getpass

        said = getpass.getpass(f"Password of the account{' [unchanged]' if has_one else ''}: ")
        if said or has_one:
            return said or None
        raise VisionIngestError("no password was given")
    if has_one:
        return None
    raise VisionIngestError(f"--password-file is missing (or ${VARIABLE}), and there is no terminal to ask at")


def _toml(answers: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(_sections(answers))


def _sections(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for section, values in answers.items():
        if values:
            yield f"\n[[{section}]]" if section == "footage" else f"\n[{section}]"
            # TOML and JSON strings differ only in control characters, which no value may contain.
            yield from (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    yield ""


def _grant_group_access(folder: Path) -> Iterator[str]:
    """Add the service's user to the group of a footage folder, if that makes the folder readable.

    Yields:
        What was done, for the technician.
    """
    if os.geteuid() != 0:
        return
    try:
        found = folder.stat()
        group = grp.getgrgid(found.st_gid)
        user = pwd.getpwnam(SERVICE_USER)
    except (OSError, KeyError):
        return
    needed = stat.S_IRGRP | stat.S_IXGRP
    others = stat.S_IROTH | stat.S_IXOTH
    is_in = group.gr_gid == user.pw_gid or SERVICE_USER in group.gr_mem
    if group.gr_gid == 0 or is_in or found.st_mode & others == others or found.st_mode & needed != needed:
        return
    # After `su` without "-", /usr/sbin is not in PATH.
    usermod = shutil.which("usermod") or "/usr/sbin/usermod"
    if subprocess.run([usermod, "-aG", group.gr_name, SERVICE_USER], check=False).returncode == 0:
        yield f"Added the user {SERVICE_USER} to the group {group.gr_name}, which may read {folder}"


def _restart(config: Path) -> Iterator[str]:
    """Restart the service if it uses this configuration.

    Yields:
        What was done, or what to do.
    """
    if config != SYSTEM_FILE or not _SYSTEMD_RUNS.is_dir() or shutil.which("systemctl") is None:
        yield f"Start it: vision-ingest run --config {config}"
        return
    for command in (["systemctl", "enable", "--quiet", UNIT], ["systemctl", "restart", UNIT]):
        if subprocess.run(command, check=False).returncode != 0:
            yield f"The service did not start. This failed: {' '.join(command)}"
            return
    yield "The service is running. To see its state: vision-ingest status"


def _in_child(work: Callable[[], int]) -> int:
    """Run a function in a child process, which may drop root privileges.

    Returns:
        The exit code of the child.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _holds_something(file: Path) -> bool:
    """Whether a file exists and is not empty."""
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
