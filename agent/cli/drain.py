"""Delivers the clips that wait in the spool, shows progress, then exits: for example before a device is removed.

Takes in no new footage. If the daemon is running, it does the delivery, and this command shows its progress.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from contextlib import closing

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.cli import DONE, FAILED
from agent.cli.access import act_as_owner
from agent.cli.render import console
from agent.config import Config, secrets_of
from agent.daemon import SHUTDOWN_TIMEOUT_SECONDS, Worker, read_config
from agent.delivery.dispatcher import Dispatcher
from agent.delivery.progress import Activity
from agent.device import logs
from agent.device.control import NoDaemon, ask
from agent.errors import SpoolLocked
from agent.model import State
from agent.spool import Spool
from agent.spool.queries import Ledger, open_ledger
from agent.vision.client import VisionClient

HELP = "deliver all waiting clips, then exit"
OPEN = (State.WAITING, State.SENDING, State.ACCEPTED)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", default=0.0, help="give up after this time (default: never)"
    )


def run(args: argparse.Namespace) -> int:
    config = read_config(args.config)
    act_as_owner(config.spool.directory)
    deadline = time.monotonic() + args.timeout if args.timeout else float("inf")
    try:
        spool = Spool(config.spool, time.time)
    except SpoolLocked:
        return _follow_daemon(config, deadline)
    with closing(spool):
        logs.configure(config.log, secrets=secrets_of(config))
        spool.recover()
        return _deliver(config, spool, deadline)


def _deliver(config: Config, spool: Spool, deadline: float) -> int:
    stop = threading.Event()
    client = VisionClient(config.api, stopping=stop.is_set)
    dispatcher = Dispatcher(spool, client, config.upload, stop)
    worker = Worker("delivery", dispatcher.run, stop.set)
    worker.thread.start()
    try:
        return _watch(spool.ledger, lambda: dispatcher.activity, stop.is_set, deadline)
    finally:
        stop.set()
        dispatcher.wake()
        client.abort()
        worker.thread.join(SHUTDOWN_TIMEOUT_SECONDS)
        if worker.failure is not None:
            raise worker.failure


def _follow_daemon(config: Config, deadline: float) -> int:
    directory = config.spool.directory
    console().print("The daemon is running and delivers the clips. Ctrl-C ends this display, not the daemon.")

    def activity() -> Activity:
        try:
            return Activity(**ask(directory, {"ask": "status"})["delivery"])
        except NoDaemon:
            return Activity(doing="the daemon has stopped")

    with open_ledger(directory) as ledger:
        return _watch(ledger, activity, lambda: False, deadline)


def _watch(ledger: Ledger, activity: Callable[[], Activity], stopped: Callable[[], bool], deadline: float) -> int:
    """Show progress until nothing is left to deliver, delivery is blocked, or the deadline has passed."""
    with _progress() as progress:
        total, now = _left(ledger), activity()
        bar = progress.add_task("delivering", total=total)
        while (left := _left(ledger)) > 0 and not stopped():
            now = activity()
            total = max(total, left)
            doing = now.reason or now.doing
            progress.update(bar, total=total, completed=total - left, description=doing[:60])
            if now.doing == "held" or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        progress.update(bar, completed=total - left, description="done" if left == 0 else "not done")
    if left == 0:
        print("No clip is waiting any more.")
        return DONE
    print(f"Clips still waiting: {left} ({now.reason or now.doing})")
    return FAILED


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(),
    )


def _left(ledger: Ledger) -> int:
    counts = ledger.counts()
    return sum(counts[state].clips for state in OPEN)
