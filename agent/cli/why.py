"""Shows the history of one clip: what it is, where each value came from, what happened, and what to do now.

CLIP is its number (`vision-ingest clips` shows it), or the path or name of its footage.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone

from agent.cli import DONE
from agent.cli.access import find_clip, ledger_of
from agent.cli.render import COLOURS, as_json, console, size
from agent.device.logs import sanitize
from agent.model import State

HELP = "show the history of one clip, and what to do"

HELD_FOR_THE_CLOCK = "To deliver it with its current times: vision-ingest retry CLIP"
ADVICE = {
    State.WAITING: "Nothing to do: it is sent as soon as the link allows.",
    State.SENDING: "Nothing to do: it is being sent.",
    State.ACCEPTED: "Nothing to do: the API took it, and is polled every 30 to 60 s until it confirms the clip.",
    State.DELIVERED: "Nothing to do: the API has it.",
    State.REFUSED: "Fix the cause given as the reason, then: vision-ingest retry CLIP",
    State.HELD: "Fix the cause given as the reason; the clip is then tried again by itself within an hour.",
    State.LOST: "Nothing can be done for this clip; the reason tells how to prevent this for others.",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", metavar="CLIP", help="number, or path or name of the footage")
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")


def run(args: argparse.Namespace) -> int:
    from rich.markup import escape

    with ledger_of(args) as (_, ledger):
        record = find_clip(ledger, args.clip)
    if args.json:
        print(json.dumps(as_json(record), indent=2))
        return DONE
    screen = console()

    def line(label: str, text: str) -> None:
        screen.print(f"[dim]{label:>12}[/]  {escape(sanitize(text))}")

    screen.print(f"Clip {record.id} is [{COLOURS[record.state]}]{record.state.value}[/]")
    if record.reason:
        line("because", record.reason)
    if record.due and record.state in (State.WAITING, State.HELD):
        line("next try", f"{datetime.fromtimestamp(record.due, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC")
    line("footage", f"{record.footage.path} ({size(record.footage.size_bytes)})")
    if record.key is not None:
        line("vehicle", record.key.registration)
        line("camera", str(record.key.camera))
        line("start", f"{record.key.start:%Y-%m-%d %H:%M:%S} UTC")
        line("end", f"{record.key.end:%Y-%m-%d %H:%M:%S} UTC ({record.key.duration_seconds} s)")
    if record.clock is not None:
        booted = datetime.fromtimestamp(record.clock.boot_time, tz=timezone.utc)
        line(
            "clock",
            f"not trusted at the time of recording; it says the device booted at {booted:%Y-%m-%d %H:%M:%S} UTC",
        )
    for value, source in record.sources.items():
        line(f"{value} from", source)
    if record.request_id:
        line("API number", record.request_id)
    for change in record.history:
        line(f"{change.at:%m-%d %H:%M:%S}", f"{change.state.value}" + (f": {change.reason}" if change.reason else ""))
    advice = (HELD_FOR_THE_CLOCK if record.clock is not None else ADVICE[record.state]).replace("CLIP", str(record.id))
    screen.print(f"\n{advice}")
    return DONE
