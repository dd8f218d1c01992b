"""The account's videos and requests for footage: list them, ask a vehicle for footage, wait until it is there."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from agent.cli.tables import console
from agent.host.logs import harmless
from agent.vision.client import VideoRequest, VisionClient
from agent.vision.readings import COMPLETE, FINAL_FAILURES, STATUSES

HELP = "list, create or wait for requests for footage"
# The API asks not to be polled faster.
POLL_SECONDS = 30.0


def arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Each action takes the common options too: users put them last."""
    actions = parser.add_subparsers(dest="action", metavar="list|create|wait", required=True)
    listing = actions.add_parser("list", parents=[common], help="the newest entries of the account's list")
    listing.add_argument("--registration", metavar="REGISTRATION", help="only this vehicle")
    listing.add_argument("--camera", type=int, metavar="N", help="only this channel")
    listing.add_argument("--status", type=int, choices=STATUSES, help="only this status, by number")
    listing.add_argument("--page", type=int, default=1, metavar="N", help="page of the list (default: 1)")
    listing.add_argument("--json", action="store_true", help="as JSON, for other programs")
    create = actions.add_parser("create", parents=[common], help="ask a vehicle's camera for footage")
    create.add_argument("registration", metavar="REGISTRATION", help="the vehicle, as the account knows it")
    create.add_argument("start", type=_instant, metavar="START", help="e.g. 2026-07-28T14:14:41 (UTC) or …+02:00")
    create.add_argument("seconds", type=int, metavar="SECONDS", help="how much footage")
    create.add_argument(
        "--camera", type=int, action="append", metavar="N", help="channel; may be given several times (default: 1)"
    )
    create.add_argument("--comments", default="", metavar="TEXT", help="free text that goes with it")
    wait = actions.add_parser("wait", parents=[common], help="wait until requests are complete or have failed")
    wait.add_argument("ids", nargs="+", metavar="ID", help="number of the request")


def run(args: argparse.Namespace) -> int:
    from agent.app import read_config

    with closing(VisionClient(read_config(args.config).api)) as client:
        match args.action:
            case "list":
                return _list(client, args)
            case "create":
                return _create(client, args)
        return wait_for(client, args.ids, time.sleep)


def wait_for(client: VisionClient, ids: Sequence[str], pause: Callable[[float], Any]) -> int:
    """Polls until every request is in a final state.

    Args:
        pause: waits so many seconds; called between two polls.

    Returns:
        The exit code: 0 if all are complete.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from agent.cli import DONE, FAILED

    seen: dict[str, VideoRequest] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console()) as progress:
        bar = progress.add_task("asking", total=None)
        while True:
            page = client.requests(request_ids=ids)
            seen |= {item.request_id: item for item in page.items if item.request_id is not None}
            open_ones = [id for id in ids if id not in seen or not _is_final(seen[id])]
            words = ", ".join(f"{id} {_status(seen.get(id))}" for id in ids)
            progress.update(bar, description=words)
            if not open_ones:
                break
            pause(POLL_SECONDS)
    for id in ids:
        print(f"{id}: {_status(seen[id])}" + (f" {harmless(seen[id].url or '')}" if seen[id].url else ""))
    return DONE if all(seen[id].status_id == COMPLETE for id in ids) else FAILED


def _list(client: VisionClient, args: argparse.Namespace) -> int:
    from agent.cli import DONE

    page = client.requests(
        registration=args.registration, camera=args.camera, status_id=args.status, page=args.page, limit=15
    )
    if args.json:
        print(json.dumps([asdict(item) for item in page.items], default=str, indent=2))
        return DONE
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("number", "vehicle", "cam", "start (UTC)", "status", "link", box=box.SIMPLE_HEAD)
    for item in page.items:
        start = f"{item.start:%Y-%m-%d %H:%M:%S}" if item.start else "–"
        cells = (item.request_id, item.registration, str(item.camera or "–"), start, _status(item), item.url)
        table.add_row(*(Text(harmless(cell or "–")) for cell in cells))
    console().print(table)
    print(f"Page {page.current_page} of {page.last_page}, {page.total} in all.")
    return DONE


def _create(client: VisionClient, args: argparse.Namespace) -> int:
    from agent.cli import DONE

    ids = client.create_request(args.registration, args.start, args.seconds, args.camera or [1], args.comments)
    print("\n".join(ids))
    if ids:
        print(f"Wait for it with: vision-ingest requests wait {' '.join(ids)}", file=sys.stderr)
    else:
        print("Asked; the answer names no number: see vision-ingest requests list", file=sys.stderr)
    return DONE


def _is_final(item: VideoRequest) -> bool:
    return item.status_id == COMPLETE or item.status_id in FINAL_FAILURES


def _status(item: VideoRequest | None) -> str:
    if item is None:
        return "not listed yet"
    return STATUSES.get(item.status_id or 0, f"status {item.status_id}")


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"«{text}» is no time such as 2026-07-28T14:14:41") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
