"""What commands do about the installed service: act as its user, let it read the footage, start it anew."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.config.environment import SERVICE_USER
from agent.config.loading import SYSTEM_FILE

UNIT = "vision-ingest.service"
_SYSTEMD_RUNS = Path("/run/systemd/system")  # sd_booted(3)


def act_as_service_user(config: Path) -> None:
    """Root that looks at the service's configuration sees with the eyes of the service's user, groups included."""
    if os.geteuid() != 0 or config != SYSTEM_FILE:
        return
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return
    os.initgroups(SERVICE_USER, user.pw_gid)
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)


def grant_group_access(folder: Path) -> Iterator[str]:
    """Adds the service's user to the group that may read a footage folder, where that is all that it takes.

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
    # After `su` without a dash /usr/sbin is not on the path.
    usermod = shutil.which("usermod") or "/usr/sbin/usermod"
    if subprocess.run([usermod, "-aG", group.gr_name, SERVICE_USER], check=False).returncode == 0:
        yield f"Added the user {SERVICE_USER} to the group {group.gr_name}, which may read {folder}"


def restart(config: Path) -> Iterator[str]:
    """Starts the service anew if it is the one that uses this configuration.

    Yields:
        What was done, or what to do.
    """
    if config != SYSTEM_FILE or not _SYSTEMD_RUNS.is_dir() or shutil.which("systemctl") is None:
        yield f"Start it: vision-ingest run --config {config}"
        return
    for command in (["systemctl", "enable", "--quiet", UNIT], ["systemctl", "restart", UNIT]):
        if subprocess.run(command, check=False).returncode != 0:
            yield f"The service did not start: sudo {' '.join(command)}"
            return
    yield "The service runs. What it does: vision-ingest status"


def in_child(work: Callable[[], int]) -> int:
    """Runs something in a process of its own, which may give up being root.

    Returns:
        Its exit code.
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


def holds_something(file: Path) -> bool:
    """Whether a file is there and not empty."""
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
