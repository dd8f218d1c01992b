"""Watches the footage folders and delivers clips until it is stopped. This is what the service runs.

SIGTERM stops it within five seconds; clips in flight go back to the queue. SIGHUP reloads the configuration. If the
configuration is invalid, the service reports that and waits until it is changed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from agent.errors import ConfigError

# Change time in nanoseconds and size of each file of a configuration.
FileStamps = Mapping[Path, tuple[int, int]]

HELP = "watch and deliver until stopped (what the service runs)"

# How often an invalid configuration is checked for changes, and the service manager's watchdog pinged meanwhile.
POLL_SECONDS = 5.0

# mallopt(3)
_M_ARENA_MAX = -8


def arguments(parser: argparse.ArgumentParser) -> None:
    """`run` has no options of its own."""


def run(args: argparse.Namespace) -> int:
    # rich, charset detection, IDNA tables, asyncio and zipfile make up a third of our memory and are never used.
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

    before = _file_stamps(args.config)
    try:
        config = read_config(args.config)
    except ConfigError as exc:
        if not os.environ.get("NOTIFY_SOCKET"):
            raise
        return wait_for_change(args.config, before, exc)
    logs.configure(config.log, secrets=secrets_of(config))
    # Tracebacks go through the log too, where passwords are redacted and lines cannot be forged.
    log = structlog.get_logger()
    sys.excepthook = lambda _kind, error, _trace: log.critical("crashed", exc_info=error)
    return Daemon(args.config, config).run()


def wait_for_change(file: Path, before: FileStamps, error: ConfigError) -> int:
    """Wait as a running service until the configuration changes or a signal arrives.

    The process must exit for a new password to take effect: the service manager passes it in at start.

    Args:
        file: the configuration file.
        before: the state of its files from before it was read, so that a change during the read counts.
        error: what is wrong with it.

    Returns:
        0; the service manager then restarts the service, unless it was asked to stop it.
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
    while _file_stamps(file) == before:
        manager.watchdog_ping()
        if signal.sigtimedwait(signals, POLL_SECONDS) is not None:
            break
    else:
        log.info("configuration_changed")
    manager.stopping()
    return 0


def _file_stamps(file: Path) -> FileStamps:
    """The files of the configuration, including the password, with change time and size."""
    from agent.config.loading import drop_ins
    from agent.config.password import CREDENTIAL

    return dict(_times([file, *drop_ins(file), file.parent / CREDENTIAL]))


def _times(files: Iterable[Path]) -> Iterable[tuple[Path, tuple[int, int]]]:
    for file in files:
        try:
            found = file.stat()
        except OSError:
            continue
        # Not the modification time: a change of permissions counts too.
        yield file, (found.st_ctime_ns, found.st_size)


def import_with_stubs(absent: Iterable[str], unused: Iterable[str], modules: Iterable[str]) -> None:
    """Import modules without some of their dependencies.

    Args:
        absent: optional dependencies, treated as not installed.
        unused: required dependencies that are never used: replaced by stubs that import the real module on the first
            access to an attribute.
        modules: imported in this order.
    """
    stubs: dict[str, ModuleType | None] = dict.fromkeys(absent)  # None in sys.modules makes the import fail
    stubs |= {name: _lazy_module(name) for name in unused}
    with _installed(stubs), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `requests` warns that no charset detection is installed
        for module in modules:
            importlib.import_module(module)


def limit_malloc_arenas() -> None:
    """Make all threads share one malloc arena: by default glibc gives each thread its own and never releases it.

    Does nothing with a C library without `mallopt` (musl), which has no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _lazy_module(name: str) -> ModuleType:
    """A stub that imports the real module on the first access to an attribute (PEP 562)."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)  # type: ignore[method-assign]
    return module


@contextmanager
def _installed(stubs: Mapping[str, ModuleType | None]) -> Iterator[None]:
    added = {name: module for name, module in stubs.items() if name not in sys.modules}
    sys.modules.update(added)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
