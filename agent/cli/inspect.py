"""Shows what the daemon would make of a file or a whole card, and changes nothing: run this first with a new camera.

For one file: preset, registration, camera and times with their sources, size, duration, codec, and the clips that it
gives, or why it is refused. For several files: a summary. Needs no account, no spool and no running daemon. Files in
the [[footage]] folders of the configuration are read with their settings.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from agent.config import (
    Api,
    Config,
    FootageFolder,
    Secret,
    default_file,
)
from agent.config.values import WrongValueError, one_of, zone
from agent.errors import VisionIngestError

if TYPE_CHECKING:
    from agent.intake.dry_run import DryRun, Finding

HELP = "what would be made of a file or a card"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a file, or a folder such as a whole card")
    parser.add_argument("--preset", type=_preset, metavar="NAME", help="read names as this preset does (default: auto)")
    parser.add_argument("--timezone", type=_zone, metavar="ZONE", help="the zone of the camera's clock (default: UTC)")
    parser.add_argument("--registration", metavar="TEXT", help="the vehicle, where the footage names none")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each file, for other programs")


def run(args: argparse.Namespace) -> int:
    import structlog

    from agent.cli import DONE, FAILED
    from agent.cli.inspect_tables import show_one, show_summary
    from agent.intake.dry_run import DryRun

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    config = _configuration(args)
    began = time.monotonic()
    findings: list[Finding] = []
    others: Counter[str] = Counter()
    folders: set[FootageFolder] = set()
    for path in args.paths:
        folder = _folder(path, config, args)
        dry_run = DryRun(folder, config)
        paths = _files(dry_run, path)
        if path.is_dir():
            others += dry_run.count_others(Path(os.path.abspath(path)))  # noqa: PTH100  # never resolve links
        folders.add(folder)
        findings += _inspect_all(dry_run, paths)
    if args.json:
        for finding in findings:
            print(json.dumps(as_json(finding)))
    elif len(findings) == 1 and not others:
        show_one(findings[0], folders.pop().timezone)
    else:
        show_summary(findings, others, folders, time.monotonic() - began)
    return DONE if any(finding.clips for finding in findings) else FAILED


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as JSON for other programs; times are UTC in ISO 8601."""
    from agent.intake.dry_run import NO_REGISTRATION

    naming, media, recording = finding.naming, finding.media, finding.recording
    return {
        "path": str(finding.path),
        "delivered": bool(finding.clips),
        "reason": finding.refusal,
        "bytes": finding.size_bytes,
        "preset": naming.preset.name if naming.preset else None,
        "container": media.container if media else None,
        "codec": media.codec if media else None,
        "seconds": media.duration_seconds if media else None,
        "registration": recording.registration if recording and recording.registration != NO_REGISTRATION else None,
        "camera": recording.camera if recording else naming.camera,
        "start": recording.start.isoformat() if recording else None,
        "event": naming.event.word if naming.event else None,
        "priority": recording.priority if recording else None,
        "sources": dict(recording.sources) if recording else {},
        "clips": [{"start": clip.key.start.isoformat(), "end": clip.key.end.isoformat()} for clip in finding.clips],
    }


def _inspect_all(dry_run: DryRun, paths: Sequence[Path]) -> Iterator[Finding]:
    """Inspects the files, with a progress bar if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True)
    columns = (TextColumn("reading the footage"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal or len(paths) < 2) as bar:
        for path in bar.track(paths):
            finding = dry_run.inspect(path, datetime.now(tz=timezone.utc), exact=len(paths) == 1)
            if finding is not None:
                yield finding


def _files(dry_run: DryRun, path: Path) -> list[Path]:
    place = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links, and the daemon never does
    if not place.is_dir():
        if not place.exists():
            raise VisionIngestError(f"{path} is not there")
        return [place]
    try:
        return dry_run.files(place)
    except OSError as exc:
        raise VisionIngestError(f"{path} cannot be read: {exc.strerror}") from exc


def _folder(path: Path, config: Config, args: argparse.Namespace) -> FootageFolder:
    """The settings for a path: those of the configured folder that contains it, else the defaults; options override."""
    from agent.intake.dry_run import footage_folder

    place = Path(os.path.abspath(path))  # noqa: PTH100  # as in _files
    # A single file is read with the names of all its parent folders, which may contain its camera or its date.
    folder = footage_folder(path, config) or FootageFolder(place if place.is_dir() else Path("/"))
    if args.preset is not None:
        folder = replace(folder, preset=args.preset, pattern=None)
    if args.timezone is not None:
        folder = replace(folder, timezone=args.timezone)
    if args.registration is not None:
        folder = replace(folder, registration=args.registration)
    return folder


def _configuration(args: argparse.Namespace) -> Config:
    """The configuration, or the defaults if there is no file at the default path."""
    from agent.daemon import read_config

    if args.config == default_file(os.environ) and not args.config.exists():
        return Config(file=args.config, api=Api("", "", Secret("")), footage=())
    return read_config(args.config, with_password=False)


def _preset(name: str) -> str:
    from agent.intake.identify.presets import AUTO, PRESETS

    try:
        return str(one_of((AUTO, *PRESETS))(name))
    except WrongValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _zone(name: str) -> ZoneInfo:
    try:
        return zone(name)
    except WrongValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
