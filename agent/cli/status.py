"""Shows what the daemon is doing, how many clips are in each state, and what needs attention.

A clip is `waiting`, `sending`, `accepted` (by the API, not confirmed yet), `delivered`, `refused` (cannot be delivered
as it is), `held` (a person must fix something) or `lost`.
"""

from __future__ import annotations

import argparse
import json
import shutil

from agent.cli import DONE, FAILED
from agent.cli.access import ledger_of
from agent.cli.render import COLOURS, console, size
from agent.device.control import NoDaemon, ask
from agent.device.logs import sanitize
from agent.model import State
from agent.spool import STORED_STATES
from agent.spool.rebuild import set_aside

HELP = "show the daemon's activity and the clips by state"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")


def run(args: argparse.Namespace) -> int:
    with ledger_of(args) as (config, ledger):
        counts = ledger.counts()
        try:
            daemon = ask(config.spool.directory, {"ask": "status"})
        except NoDaemon:
            daemon = None
        held_bytes = sum(counts[state].size_bytes for state in STORED_STATES)
        free_bytes = shutil.disk_usage(config.spool.directory).free
        damaged = [path.name for path in set_aside(config.spool.directory)]
    if args.json:
        states = {state.value: {"clips": t.clips, "bytes": t.size_bytes} for state, t in counts.items()}
        space = {
            "held_bytes": held_bytes,
            "max_bytes": config.spool.max_bytes,
            "free_bytes": free_bytes,
            "min_free_bytes": config.spool.min_free_bytes,
        }
        print(json.dumps({"daemon": daemon, "clips": states, "space": space, "set_aside": damaged}, indent=2))
        return DONE if daemon else FAILED
    screen = console()
    if daemon is None:
        screen.print("[red]The daemon is not running.[/] Start it: sudo systemctl start vision-ingest")
        screen.print("If systemd shows it running, it is waiting for a valid configuration: sudo vision-ingest check")
    else:
        screen.print(f"[green]Running[/] (process {daemon['pid']}, version {daemon['version']})")
        screen.print(sanitize(daemon["sentence"]), markup=False)
    screen.print()
    for state, count in counts.items():
        if count.clips or state in (State.WAITING, State.DELIVERED):
            screen.print(f"[{COLOURS[state]}]{state.value:>10}[/]  {count.clips:>7,}  {size(count.size_bytes):>10}")
    screen.print(
        f"\nThe spool holds {size(held_bytes)} of at most {size(config.spool.max_bytes)}; its disk has "
        f"{size(free_bytes)} free, of which {size(config.spool.min_free_bytes)} must stay free."
    )
    if free_bytes < config.spool.min_free_bytes:
        screen.print("[red]Free space is below that minimum:[/] waiting clips are given up to make room.")
    for name in damaged:
        screen.print(
            f"[yellow]The queue was damaged and was rebuilt.[/] The damaged one is kept as {name}; delete it if nobody "
            f"needs to examine it."
        )
    if counts[State.REFUSED].clips or counts[State.HELD].clips or counts[State.LOST].clips:
        screen.print("\nTo see why: vision-ingest clips --state refused --state held --state lost")
    return DONE if daemon else FAILED
