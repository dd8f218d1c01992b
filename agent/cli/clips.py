"""Lists clips, oldest first, with their state and the reason for it."""

from __future__ import annotations

import argparse
import json
from collections import deque

from agent.cli import DONE
from agent.cli.access import ledger_of
from agent.cli.render import as_json, clip_table, console
from agent.model import State

HELP = "list clips, by state"


def arguments(parser: argparse.ArgumentParser) -> None:
    states = [state.value for state in State]
    parser.add_argument("--state", action="append", choices=states, help="only this state; may be repeated")
    parser.add_argument("--last", type=int, metavar="N", default=50, help="only the newest N; 0 for all (default: 50)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for other programs")


def run(args: argparse.Namespace) -> int:
    states = [State(name) for name in args.state or []]
    with ledger_of(args) as (_, ledger):
        records = deque(ledger.records(states), maxlen=args.last or None)
    if args.json:
        for record in records:
            print(json.dumps(as_json(record)))
    elif records:
        console().print(clip_table(records))
    else:
        print("No clips." if not states else f"No clips that are {' or '.join(args.state)}.")
    return DONE
