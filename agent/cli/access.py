"""Access to the spool for commands: which user to act as, reading beside the daemon, and finding a clip."""

from __future__ import annotations

import argparse
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.config import Config
from agent.config.environment import SERVICE_USER
from agent.config.loading import SYSTEM_FILE
from agent.daemon import read_config
from agent.device.logs import sanitize
from agent.errors import VisionIngestError
from agent.spool.queries import Ledger, open_ledger
from agent.spool.records import Record


def act_as_service_user(config: Path) -> None:
    """If run as root on the service's configuration, switch to the service's user and groups, to see its permissions.

    Args:
        config: the configuration file in use.
    """
    if os.geteuid() != 0 or config != SYSTEM_FILE:
        return
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return
    os.initgroups(SERVICE_USER, user.pw_gid)
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)


@contextmanager
def ledger_of(args: argparse.Namespace) -> Iterator[tuple[Config, Ledger]]:
    """Open the ledger for reading; yields the configuration (without the password, which needs root) and the ledger."""
    config = read_config(args.config, with_password=False)
    act_as_owner(config.spool.directory)
    with open_ledger(config.spool.directory) as ledger:
        yield config, ledger


def act_as_owner(directory: Path) -> None:
    """If run as root, switch to the owner of the spool, so that no file is created that the daemon cannot open."""
    if os.geteuid() != 0 or not directory.exists():
        return
    owner = directory.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


def find_clip(ledger: Ledger, words: str) -> Record:
    """Find a clip by its number, or by the path or name of its footage; the newest if several match.

    Raises:
        VisionIngestError: no clip matches.
    """
    if words.isdigit():
        record = ledger.record(int(words))
        if record is not None:
            return record
    wanted = os.path.abspath(words)  # noqa: PTH100  # resolve() would follow links, and the ledger never does
    found = [r for r in ledger.records() if words == r.footage.path.name or wanted == str(r.footage.path)]
    if not found:
        raise VisionIngestError(
            f'no clip matches "{sanitize(words)}". `vision-ingest clips` lists all clips; new footage appears there '
            "once it has not changed for settle_seconds."
        )
    return found[-1]
