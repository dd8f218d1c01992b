"""Watches the footage folders and delivers clips until it is stopped. This is what the service runs.

SIGTERM stops it within five seconds; what was being sent goes back to the queue. SIGHUP reads the configuration anew.
"""

from __future__ import annotations

import argparse
import sys

import structlog

HELP = "watch and deliver until stopped (what the service runs)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """`run` has no options of its own."""


def run(args: argparse.Namespace) -> int:
    from agent.app import Daemon, read_config
    from agent.config import secrets_of
    from agent.host import logs

    config = read_config(args.config)
    logs.configure(config.log, secrets=secrets_of(config))
    # A traceback goes through the log too: there it cannot show the password or forge a line.
    log = structlog.get_logger()
    sys.excepthook = lambda _kind, error, _trace: log.critical("crashed", exc_info=error)
    return Daemon(args.config, config).run()
