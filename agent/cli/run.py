"""Watches the footage folders and delivers clips until it is stopped. This is what the service runs.

SIGTERM stops it within five seconds; what was being sent goes back to the queue. SIGHUP reads the configuration anew.
As a service with a configuration that cannot be used it says so and waits until that is changed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.errors import ConfigError

# When each file of a configuration was last changed, in nanoseconds, and its size.
State = Mapping[Path, tuple[int, int]]

HELP = "watch and deliver until stopped (what the service runs)"

# How often the files of a configuration that cannot be used are looked at; it feeds the service manager's watchdog too.
LOOK_SECONDS = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """`run` has no options of its own."""


def run(args: argparse.Namespace) -> int:
    from agent.device.memory import import_with_stubs, limit_malloc_arenas

    # Together a third of the memory: tracebacks in colours, which the log never shows; guesses at encodings and tables
    # of odd host names, which are not needed; and a way of working on many things at once that is not ours.
    limit_malloc_arenas()
    import_with_stubs(
        absent=["rich", "charset_normalizer", "chardet"],
        unused=["asyncio", "idna", "zipfile"],
        modules=["structlog", "requests", "persistqueue"],
    )

    import structlog

    from agent.config import secrets_of
    from agent.daemon import Daemon, read_config
    from agent.device import logs

    before = _state_of(args.config)
    try:
        config = read_config(args.config)
    except ConfigError as exc:
        if not os.environ.get("NOTIFY_SOCKET"):
            raise
        return wait_for_change(args.config, before, exc)
    logs.configure(config.log, secrets=secrets_of(config))
    # A traceback goes through the log too: there it cannot show the password or forge a line.
    log = structlog.get_logger()
    sys.excepthook = lambda _kind, error, _trace: log.critical("crashed", exc_info=error)
    return Daemon(args.config, config).run()


def wait_for_change(file: Path, before: State, error: ConfigError) -> int:
    """Waits quietly, as a service that runs, until the configuration is another one or a signal comes.

    A restart is what brings a new password in: the service manager hands it over when it starts the process.

    Args:
        before: its state before it was read: what changes while it is read is a change too.

    Returns:
        0: the service manager then starts the service anew, if it was not asked to stop it.
    """
    import structlog

    from agent.config import LogSettings
    from agent.device import logs
    from agent.device.service import ServiceManager

    logs.configure(LogSettings(), secrets=())
    log = structlog.get_logger()
    problems = [str(problem) for problem in error.problems]
    log.warning("not_configured", problems=problems, remedy="sudo vision-ingest setup")
    manager = ServiceManager()
    manager.ready()
    manager.status(f"waiting to be configured: sudo vision-ingest setup ({problems[0]})")
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while _state_of(file) == before:
        manager.watchdog_ping()
        if signal.sigtimedwait(signals, LOOK_SECONDS) is not None:
            break
    else:
        log.info("configuration_changed")
    manager.stopping()
    return 0


def _state_of(file: Path) -> State:
    """Which files make up the configuration, password included, and when each was changed."""
    from agent.config.loading import drop_ins
    from agent.config.password import CREDENTIAL

    return dict(_times([file, *drop_ins(file), file.parent / CREDENTIAL]))


def _times(files: Iterable[Path]) -> Iterable[tuple[Path, tuple[int, int]]]:
    for file in files:
        try:
            found = file.stat()
        except OSError:
            continue
        # Not the time of writing: a mended permission counts too.
        yield file, (found.st_ctime_ns, found.st_size)
