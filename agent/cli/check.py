"""Checks everything that delivery needs, and tells for each problem how to fix it.

On this device: configuration, permissions, disk, ffmpeg and clock. Then the API: reachable, credentials accepted,
Vision API option active. Sends no footage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from agent.cli import DONE, FAILED, USAGE
from agent.cli.access import act_as_service_user
from agent.cli.render import console
from agent.config import Config, environment
from agent.daemon import read_config
from agent.device.clock import NOT_TRUSTED, Clock
from agent.errors import ConfigError, DeliveryError
from agent.media.ffmpeg import is_installed
from agent.vision.client import VisionClient

HELP = "find problems, and how to fix them"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="skip the checks that need the network")
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    what: str
    ok: bool
    words: str


def run(args: argparse.Namespace) -> int:
    try:
        config = read_config(args.config)
    except ConfigError as exc:
        _show([CheckResult("configuration", False, str(problem)) for problem in exc.problems], as_json=args.json)
        return USAGE
    act_as_service_user(args.config)
    device = list(_device(config))
    api = [] if args.offline else [_api(config)]
    _show([CheckResult("configuration", True, f"{args.config} is valid"), *device, *api], as_json=args.json)
    if not all(result.ok for result in device):
        return USAGE
    return DONE if all(result.ok for result in api) else FAILED


def _device(config: Config) -> Iterator[CheckResult]:
    problems = environment.check(config)
    for problem in problems:
        yield CheckResult("device", False, str(problem))
    if not problems:
        folders = ", ".join(str(folder.path) for folder in config.footage)
        yield CheckResult("device", True, f"footage in {folders}; spool in {config.spool.directory}")
    yield _disk(config)
    yield _tools(config)
    clock = Clock(config.clock.trust).latest
    says = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock.wall))
    yield CheckResult("clock", clock.trusted, says if clock.trusted else f"{says}, not trusted: {NOT_TRUSTED}")


def _disk(config: Config) -> CheckResult:
    place = config.spool.directory
    while not os.path.exists(place):  # noqa: PTH110  # Path.exists raises where a folder above may not be entered
        place = place.parent
    free = shutil.disk_usage(place).free
    floor = config.spool.min_free_bytes
    if free < floor:
        words = f"{free:,} bytes free at {place}, but spool.min_free_bytes is {floor:,}: free space, or lower it"
        return CheckResult("disk", False, words)
    return CheckResult("disk", True, f"{free:,} bytes free at {place}")


def _tools(config: Config) -> CheckResult:
    """A missing ffmpeg is no problem: footage within the limits does not need it."""
    if not config.conform.enabled:
        return CheckResult("ffmpeg", True, "not used: conform.enabled is false")
    if is_installed():
        return CheckResult("ffmpeg", True, "installed: footage that exceeds the limits is cut or repacked")
    return CheckResult(
        "ffmpeg", True, "not installed: footage over the limits, or not MP4, is refused (sudo apt install ffmpeg)"
    )


def _api(config: Config) -> CheckResult:
    client = VisionClient(config.api)
    try:
        client.videos_status()
    except DeliveryError as exc:
        return CheckResult("API", False, str(exc))
    finally:
        client.close()
    return CheckResult("API", True, f"{config.api.base_url}: credentials accepted, Vision API option active")


def _show(results: list[CheckResult], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    from rich.markup import escape

    screen = console()
    for result in results:
        mark = "[green]ok[/]  " if result.ok else "[red]FIX[/] "
        screen.print(f"{mark}[bold]{result.what}[/]: {escape(result.words)}", soft_wrap=True)
