"""How commands get at the spool: reading beside the daemon, changing it through the daemon, or alone without one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.config import Config
from agent.daemon import read_config
from agent.device.logs import sanitize
from agent.errors import VisionIngestError
from agent.model import State
from agent.spool.queries import Ledger, open_ledger
from agent.spool.records import Record


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


HELD_FOR_THE_CLOCK = "To deliver it with the time as it stands: vision-ingest retry CLIP"
ADVICE = {
    State.WAITING: "Nothing to do: it is sent as soon as the link allows.",
    State.SENDING: "Nothing to do: it is being sent.",
    State.ACCEPTED: "Nothing to do: the API took it, and is asked every 30 to 60 s whether it is complete.",
    State.DELIVERED: "Nothing to do: the API has it.",
    State.REFUSED: "Put right what the reason says, then: vision-ingest retry CLIP",
    State.HELD: "A person must put right what the reason says; it is looked at again every hour by itself.",
    State.LOST: "Nothing can be done for this clip; the reason says what to change so that it does not happen again.",
}
