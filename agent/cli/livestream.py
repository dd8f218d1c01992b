"""Shows links to the live streams of a vehicle's cameras. The links expire soon: open them at once."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing

from agent.cli import DONE, FAILED
from agent.daemon import read_config
from agent.device.logs import sanitize
from agent.errors import CameraOffline
from agent.vision.client import VisionClient

HELP = "show links to a vehicle's live streams"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registration", metavar="REGISTRATION", help="of the vehicle, as in the account")
    parser.add_argument(
        "--camera", type=int, action="append", metavar="N", help="channel; may be repeated (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")


def run(args: argparse.Namespace) -> int:
    with closing(VisionClient(read_config(args.config).api)) as client:
        try:
            links = client.livestream(args.registration, args.camera or [1])
        except CameraOffline as exc:
            print(f"The camera is offline: {sanitize(args.registration)} ({exc})", file=sys.stderr)
            return FAILED
    if args.json:
        print(json.dumps(links))
    for link in () if args.json else links:
        print(sanitize(link))
    if not links:
        print(f"The API returned no link for {sanitize(args.registration)}.", file=sys.stderr)
    return DONE if links else FAILED
