"""How commands get at the spool: reading beside the daemon, changing it through the daemon, or alone without one."""

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


@contextmanager
def ledger_of(args: argparse.Namespace) -> Iterator[tuple[Config, Ledger]]:
    """The configuration (without the password, which an ordinary user may not read) and the spool's rows."""
    config = read_config(args.config, with_password=False)
    act_as_owner(config.spool.directory)
    with open_ledger(config.spool.directory) as ledger:
        yield config, ledger


def act_as_owner(directory: Path) -> None:
    """Root becomes the spool's owner, so that no file is left there that the daemon could not open."""
    if os.geteuid() != 0 or not directory.exists():
        return
    owner = directory.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


def find_clip(ledger: Ledger, words: str) -> Record:
    """The clip that the user means: its number, or its footage's path or name, the newest if there are several.

    Raises:
        VisionIngestError: there is none.
    """
    if words.isdigit():
        record = ledger.record(int(words))
        if record is not None:
            return record
    wanted = os.path.abspath(words)  # noqa: PTH100  # resolve() would follow links, and the ledger never does
    found = [r for r in ledger.records() if words == r.footage.path.name or wanted == str(r.footage.path)]
    if not found:
        raise VisionIngestError(
            f"no clip «{sanitize(words)}» is known. `vision-ingest clips` lists all; footage that was just written "
            "appears there when it has stood still for settle_seconds."
        )
    return found[-1]
