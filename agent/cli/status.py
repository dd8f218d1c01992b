"""Shows what the daemon does now, how many clips are in each state, and what a person must do, if anything.

A clip is `waiting`, `sending`, `accepted` (taken by the API, not confirmed yet), `delivered`, `refused` (it cannot be
delivered as it is), `held` (someone must put something right) or `lost`.
"""

from __future__ import annotations

import argparse
import json
import shutil

from agent.cli.access import ledger_of
from agent.cli.render import COLOURS, console, size
from agent.device.control import NoDaemon, ask
from agent.device.logs import sanitize
from agent.model import State
from agent.spool import STORED_STATES
from agent.spool.rebuild import set_aside

HELP = "what the daemon does and how many clips are in each state"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")


def run(args: argparse.Namespace) -> int:
    from agent.cli import DONE, FAILED

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
        screen.print("If it runs, it waits to be configured: sudo vision-ingest check")
    else:
        screen.print(f"[green]Running[/] (process {daemon['pid']}, version {daemon['version']})")
        screen.print(sanitize(daemon["sentence"]), markup=False)
    screen.print()
    for state, count in counts.items():
        if count.clips or state in (State.WAITING, State.DELIVERED):
            screen.print(f"[{COLOURS[state]}]{state.value:>10}[/]  {count.clips:>7,}  {size(count.size_bytes):>10}")
    screen.print(
        f"\nThe spool holds {size(held_bytes)} of at most {size(config.spool.max_bytes)}; its disk has "
        f"{size(free_bytes)} free, and {size(config.spool.min_free_bytes)} are to be left free."
    )
    if free_bytes < config.spool.min_free_bytes:
        screen.print("[red]Less than that is free:[/] clips that wait are given up for space.")
    for name in damaged:
        screen.print(
            f"[yellow]The queue was damaged and made anew.[/] The damaged one is kept as {name}; delete it when nobody "
            f"wants to look at it."
        )
    if counts[State.REFUSED].clips or counts[State.HELD].clips or counts[State.LOST].clips:
        screen.print("\nWhy: vision-ingest clips --state refused --state held --state lost")
    return DONE if daemon else FAILED
