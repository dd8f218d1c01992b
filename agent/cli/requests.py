"""Requests for footage: list those of the account, request footage from a vehicle, wait until it is available."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from agent.cli import DONE, FAILED
from agent.cli.render import console
from agent.daemon import read_config
from agent.device.logs import sanitize
from agent.errors import LinkDown, RateLimited
from agent.vision.assumptions import STATUSES
from agent.vision.client import VideoRequest, VisionClient

HELP = "list, create or await requests for footage"

# The API's documentation asks for no faster polling.
POLL_SECONDS = 30.0

# A new request may take a moment to be listed; a mistyped number never is.
MAX_POLLS_UNLISTED = 3

UTC = ZoneInfo("UTC")


def arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Every action accepts the common options too, since users put them last."""
    actions = parser.add_subparsers(dest="action", metavar="list|create|wait", required=True)
    listing = actions.add_parser("list", parents=[common], help="list the newest requests of the account")
    listing.add_argument("--registration", metavar="REGISTRATION", help="only this vehicle")
    listing.add_argument("--camera", type=int, metavar="N", help="only this channel")
    statuses = ", ".join(f"{number} {words}" for number, words in STATUSES.items())
    listing.add_argument(
        "--status", type=int, choices=STATUSES, metavar="N", help=f"only this status, by number: {statuses}"
    )
    listing.add_argument(
        "--from", dest="start_from", type=_time, metavar="TIME", help="only starting at this time or later"
    )
    listing.add_argument(
        "--to", dest="start_to", type=_time, metavar="TIME", help="only starting at this time or earlier"
    )
    listing.add_argument("--page", type=_positive, default=1, metavar="N", help="page of the list (default: 1)")
    listing.add_argument("--json", action="store_true", help="as JSON, for other programs")
    create = actions.add_parser("create", parents=[common], help="request footage from a vehicle's camera")
    create.add_argument("registration", metavar="REGISTRATION", help="of the vehicle, as in the account")
    create.add_argument("start", type=_time, metavar="START", help="e.g. 2026-07-28T14:14:41, or …+02:00")
    create.add_argument("seconds", type=_positive, metavar="SECONDS", help="duration of the footage")
    create.add_argument(
        "--camera", type=int, action="append", metavar="N", help="channel; may be repeated (default: 1)"
    )
    create.add_argument(
        "--timezone",
        type=_zone,
        default=UTC,
        metavar="ZONE",
        help="of START, if it has no offset, e.g. Africa/Johannesburg (default: UTC)",
    )
    create.add_argument("--comments", default="", metavar="TEXT", help="free text stored with the request")
    wait = actions.add_parser("wait", parents=[common], help="wait until requests are complete or have failed")
    wait.add_argument("ids", nargs="+", metavar="ID", help="number of the request")


def run(args: argparse.Namespace) -> int:
    with closing(VisionClient(read_config(args.config).api)) as client:
        match args.action:
            case "list":
                return _list(client, args)
            case "create":
                return _create(client, args)
        return wait_for(client, args.ids, time.sleep)


def wait_for(client: VisionClient, ids: Sequence[str], pause: Callable[[float], Any]) -> int:
    """Poll until every request is in a final state; while the link is down, keep trying.

    Args:
        ids: numbers of the requests.
        pause: waits this many seconds; called between two polls.

    Returns:
        The exit code: 0 if all are complete.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    seen: dict[str, VideoRequest] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("polling", total=None)
        polls = 0
        while True:
            seconds = POLL_SECONDS
            try:
                seen |= _listed(client, ids)
                polls += 1
                words = ", ".join(f"{id} {_status(seen.get(id))}" for id in ids)
            except LinkDown as exc:
                words = str(exc)
            except RateLimited as exc:
                words = str(exc)
                seconds = max(seconds, exc.retry_after_seconds or 0.0)
            progress.update(bar, description=sanitize(words))
            if all(_is_decided(seen.get(id), polls) for id in ids):
                break
            pause(seconds)
    for id in ids:
        print(_outcome(id, seen.get(id)))
    return DONE if all(id in seen and seen[id].is_complete for id in ids) else FAILED


def _listed(client: VisionClient, ids: Sequence[str]) -> Mapping[str, VideoRequest]:
    return {item.request_id: item for item in client.all_requests(request_ids=ids) if item.request_id is not None}


def _is_decided(item: VideoRequest | None, polls: int) -> bool:
    return polls >= MAX_POLLS_UNLISTED if item is None else item.is_final


def _outcome(id: str, item: VideoRequest | None) -> str:
    link = f" {sanitize(item.url)}" if item is not None and item.url else ""
    return f"{id}: {_status(item)}{link}"


def _list(client: VisionClient, args: argparse.Namespace) -> int:
    page = client.requests(
        registration=args.registration,
        camera=args.camera,
        status_id=args.status,
        start_from=_instant(args.start_from, UTC) if args.start_from else None,
        start_to=_instant(args.start_to, UTC) if args.start_to else None,
        page=args.page,
        limit=15,
    )
    if args.json:
        print(json.dumps([asdict(item) for item in page.items], default=str, indent=2))
        return DONE
    _show(page.items)
    print(f"Page {page.current_page} of {page.last_page}, {page.total} in all.")
    return DONE


def _show(items: Iterable[VideoRequest]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("number", "vehicle", "cam", "start (UTC)", "s", "status", "link", box=box.SIMPLE_HEAD)
    for item in items:
        start = f"{item.start:%Y-%m-%d %H:%M:%S}" if item.start else None
        cells = (item.request_id, item.registration, item.camera, start, item.duration_seconds, item.status, item.url)
        table.add_row(*(Text("–" if cell is None else sanitize(str(cell)), overflow="fold") for cell in cells))
    console().print(table)


def _create(client: VisionClient, args: argparse.Namespace) -> int:
    start = _instant(args.start, args.timezone)
    ids = client.create_request(args.registration, start, args.seconds, args.camera or [1], args.comments)
    for id in ids:
        print(id)
    if ids:
        print(f"To wait for it: vision-ingest requests wait {' '.join(ids)}", file=sys.stderr)
    else:
        print("Requested, but the response contains no number: see vision-ingest requests list", file=sys.stderr)
    return DONE


def _status(item: VideoRequest | None) -> str:
    return "not listed" if item is None else item.status


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f'"{text}" is not a time such as 2026-07-28T14:14:41') from exc


def _instant(time: datetime, zone: ZoneInfo) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=zone)


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (KeyError, OSError, ValueError) as exc:
        raise argparse.ArgumentTypeError(f'"{text}" is not a time zone such as Africa/Johannesburg') from exc


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number of at least 1')
    return int(text)
