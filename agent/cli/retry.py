"""Sends refused or held clips again, with the full number of attempts.

Footage that was refused before it became a clip is inspected again. Takes effect at once if the daemon is running, else
when it starts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from agent.cli import DONE, FAILED
from agent.cli.access import act_as_owner, find_clip
from agent.config import SpoolSettings
from agent.daemon import read_config
from agent.device.control import NoDaemon, ask
from agent.errors import SpoolError
from agent.model import State
from agent.spool import Spool
from agent.spool.queries import open_ledger

HELP = "send refused or held clips again"


def arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("clips", nargs="*", default=[], metavar="CLIP", help="number, or path or name of the footage")
    which.add_argument("--all-refused", action="store_true", help="all refused clips")


def run(args: argparse.Namespace) -> int:
    config = read_config(args.config, with_password=False)
    directory = config.spool.directory
    act_as_owner(directory)
    with open_ledger(directory) as ledger:
        if args.all_refused:
            ids = [record.id for record in ledger.records([State.REFUSED])]
        else:
            ids = [find_clip(ledger, words).id for words in args.clips]
    try:
        changed = ask(directory, {"ask": "retry", "clips": ids})["changed"]
    except NoDaemon:
        changed = _without_daemon(config.spool, ids)
    print(f"{len(changed)} of {len(ids)} will be tried again.")
    unchanged = sorted(set(ids) - set(changed))
    if unchanged:
        print(f"Not changed, since they are neither refused, held nor waiting: {', '.join(map(str, unchanged))}")
    return DONE if changed or not ids else FAILED


def _without_daemon(settings: SpoolSettings, ids: Sequence[int]) -> list[int]:
    try:
        spool = Spool(settings, time.time)
    except SpoolError as exc:
        raise SpoolError(f"the daemon does not respond, and the spool cannot be changed without it: {exc}") from exc
    try:
        return [record.id for record in spool.retry(ids)]
    finally:
        spool.close()
