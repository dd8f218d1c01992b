"""The composition root: builds intake and delivery, runs them in threads, and handles signals.

Threads: the main thread runs `Daemon.run`, which supervises; `intake`, `delivery` and `conform` are the workers of the
current `Pipeline`; `control` runs `Daemon._handle_control`. docs/architecture.md lists what each owns.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from agent import __version__
from agent.config import Config, environment, load, secrets_of
from agent.delivery.dispatcher import Dispatcher
from agent.device import logs
from agent.device.clock import Clock
from agent.device.control import ControlServer
from agent.device.service import ServiceManager
from agent.device.wakeup import Waker
from agent.errors import ConfigError
from agent.intake.identify.presets import PRESETS
from agent.intake.intake import Intake
from agent.model import State
from agent.spool import Spool
from agent.vision.client import VisionClient

log = structlog.get_logger()

SHUTDOWN_TIMEOUT_SECONDS = 4.0
# The status line is updated at once after a change, but not more often than this; the watchdog is pinged this often.
STATUS_MIN_INTERVAL_SECONDS = 1.0
WATCHDOG_INTERVAL_SECONDS = 15.0
# Heartbeats come several times a minute; during an upload, with each piece of the body that is sent.
STALL_TIMEOUT_SECONDS = 180.0


def read_config(file: Path, *, with_password: bool = True) -> Config:
    """Load the configuration, checked against the known presets.

    Args:
        with_password: whether to read the password too, which an ordinary user may not.

    Raises:
        ConfigError: carries every mistake.
    """
    return load(file, with_password=with_password, presets=("auto", *PRESETS))


class Worker:
    """A supervised thread: it sends heartbeats, and the exception that ended it is kept.

    Args:
        run: the thread's work; its argument is the heartbeat to call regularly.
        on_end: called in the thread when it ends, also after an exception.

    Attributes:
        failure: the exception that ended the thread; set before `on_end` is called.
    """

    def __init__(self, name: str, run: Callable[[Callable[[], None]], None], on_end: Callable[[], None]) -> None:
        self._run = run
        self._on_end = on_end
        self._last_heartbeat = time.monotonic()
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def heartbeat(self) -> None:
        """Record that work goes on. May be called from any thread: a single assignment."""
        self._last_heartbeat = time.monotonic()

    def is_stalled(self, timeout_seconds: float) -> bool:
        """Whether there was no heartbeat for this long."""
        return time.monotonic() - self._last_heartbeat > timeout_seconds

    def _work(self) -> None:
        try:
            self._run(self.heartbeat)
        except BaseException as exc:  # noqa: BLE001  # the main thread logs it and ends the daemon
            self.failure = exc
        self._on_end()


class Pipeline:
    """Intake and delivery for one configuration, running from construction until `stop`.

    Args:
        on_change: called from the workers' threads whenever the status line may have changed.
    """

    def __init__(self, config: Config, spool: Spool, clock: Clock, on_change: Callable[[], None]) -> None:
        self.config = config
        self._stop = threading.Event()
        self._client = VisionClient(config.api, stopping=self._stop.is_set, now=clock.wall)
        self._on_change = on_change
        self.dispatcher = Dispatcher(
            spool, self._client, config.upload, self._stop, on_change=on_change, now=clock.wall
        )
        self.intake = Intake(config, spool, self._stop, clock, on_taken=self._taken)
        self.delivery = Worker("delivery", self.dispatcher.run, on_change)
        self.workers = (
            Worker("intake", self.intake.run, on_change),
            self.delivery,
            Worker("conform", self.intake.conformer.run, on_change),
        )
        for worker in self.workers:
            worker.thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop all workers and wait for them; may be called again if it failed.

        Args:
            seconds: how long to wait in total.

        Returns:
            Whether all have stopped in time.
        """
        deadline = time.monotonic() + seconds
        self._stop.set()
        self.intake.wake()
        self.intake.conformer.wake()
        self.dispatcher.wake()
        self._client.abort()
        for worker in self.workers:
            worker.thread.join(max(0.0, deadline - time.monotonic()))
        if any(worker.thread.is_alive() for worker in self.workers):
            return False
        # Without this, each reload would leave a connection open.
        self._client.close()
        return True

    def _taken(self) -> None:
        self.dispatcher.wake()
        self._on_change()


class Daemon:
    """`vision-ingest run`.

    Args:
        file: the configuration file, read again on SIGHUP.
        config: the configuration that was read from it.
        clock: this device's clock; created here by default.

    Raises:
        SpoolError: the spool is unusable, or another process owns it.

    Threads: all methods run in the main thread, except that workers call `_on_change`, and the control thread calls
    `_handle_control` and through it `_status_line`. What these share is noted at the attributes.
    """

    def __init__(self, file: Path, config: Config, clock: Clock | None = None) -> None:
        self._file = file
        self._config = config
        self._manager = ServiceManager()
        watchdog_seconds = self._manager.watchdog_seconds or STALL_TIMEOUT_SECONDS
        self._stall_timeout_seconds = min(STALL_TIMEOUT_SECONDS, watchdog_seconds)
        self._watchdog_interval_seconds = min(WATCHDOG_INTERVAL_SECONDS, self._stall_timeout_seconds / 3)
        self._waker = Waker()
        self._stop_asked = False
        self._reload_asked = False
        # Set by any thread, reset by the main thread before it reads the state, so that no change is missed.
        self._has_changed = False
        self._last_report = -WATCHDOG_INTERVAL_SECONDS
        self._sent_bytes = 0
        # Revision of the spool, and the number of waiting clips at that revision. The main and the control thread both
        # replace the pair as a whole: apart, a count could be kept for a revision that it does not belong to.
        self._waiting = (-1, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._clock = clock or Clock(config.clock.trust)
        self._spool = Spool(config.spool, self._clock.wall)
        recovery = self._spool.recover()
        self._log_startup(asdict(recovery))
        self._pipeline = Pipeline(config, self._spool, self._clock, self._on_change)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT.

        Returns:
            The exit code: 0 after a signal, 1 if a worker failed: the service manager then restarts the service.
        """
        control = ControlServer(self._config.spool.directory, self._handle_control)
        self._manager.ready()
        code = 1
        try:
            code = self._supervise()
        finally:
            self._manager.stopping()
            control.close()
            if self._pipeline.stop(SHUTDOWN_TIMEOUT_SECONDS):
                # Unless marked as clean, the next start checks the database for damage.
                self._spool.close(clean=code == 0)
                self._waker.close()
            else:
                # A worker is stuck in a system call: return its claimed clips to the queue, then exit regardless.
                self._spool.release_all()
        log.info("stopped", exit_code=code)
        return code

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        else:
            self._stop_asked = True

    def _on_change(self) -> None:
        if not self._has_changed:
            self._has_changed = True
            self._waker.wake()

    def _supervise(self) -> int:
        """The main loop: handles signals, checks the workers, notifies the service manager."""
        while not self._stop_asked:
            if self._reload_asked:
                self._reload_asked = False
                self._reload()
            if self._has_failed_worker():
                return 1
            if self._seconds_to_report() == 0.0:
                self._report()
            self._waker.wait(self._seconds_to_report())
        return 0

    def _seconds_to_report(self) -> float:
        interval = STATUS_MIN_INTERVAL_SECONDS if self._has_changed else self._watchdog_interval_seconds
        return max(0.0, self._last_report + interval - time.monotonic())

    def _has_failed_worker(self) -> bool:
        for worker in self._pipeline.workers:
            if worker.failure is not None:
                log.error("part_failed", part=worker.thread.name, exc_info=worker.failure)
                return True
        return False

    def _report(self) -> None:
        # Reset first: a change from now on leads to another report.
        self._has_changed = False
        self._last_report = time.monotonic()
        sent = self._pipeline.dispatcher.activity.sent_bytes
        if sent != self._sent_bytes:
            self._sent_bytes = sent
            self._pipeline.delivery.heartbeat()
        if not any(worker.is_stalled(self._stall_timeout_seconds) for worker in self._pipeline.workers):
            self._manager.watchdog_ping()
        self._manager.status(self._status_line())

    def _reload(self) -> None:
        """Apply a new configuration; an invalid one is logged and changes nothing."""
        self._manager.reloading()
        try:
            config = read_config(self._file)
        except ConfigError as exc:
            problems = [str(problem) for problem in exc.problems]
            log.warning("configuration_refused", problems=problems, effect="the previous configuration stays in effect")
            self._manager.ready()
            return
        if config.spool != self._config.spool:
            log.warning("restart_needed", reason="[spool] changed: restart the service to apply it")
        while not self._pipeline.stop(SHUTDOWN_TIMEOUT_SECONDS):
            # Never run two pipelines: they would claim each other's clips. A stuck worker ends by the watchdog.
            if self._stop_asked:
                return
        self._spool.release_all()
        self._config = config
        logs.configure(config.log, secrets=secrets_of(config))
        self._clock.trust = config.clock.trust
        self._pipeline = Pipeline(config, self._spool, self._clock, self._on_change)
        self._log_startup()
        self._manager.ready()

    def _log_startup(self, recovery: Mapping[str, int] = MappingProxyType({})) -> None:
        config = self._config
        for problem in environment.check(config):
            log.warning("not_in_order", problem=str(problem))
        self._clock.log_state()
        log.info(
            "started",
            version=__version__,
            watching=[str(folder.path) for folder in config.footage],
            delivering_to=config.api.base_url,
            upload=f"{config.upload.mode}, {config.upload.encoding}, at most {config.upload.batch_clips} clips at once",
            spool=str(config.spool.directory),
            recovery=dict(recovery),
        )

    def _status_line(self) -> str:
        """The line that `systemctl status` and `vision-ingest status` show."""
        activity = self._pipeline.dispatcher.activity
        revision = self._spool.revision
        counted_revision, waiting = self._waiting
        if revision != counted_revision:
            # Counting scans the index of waiting clips: only after changes, since this may be called each second.
            waiting = self._spool.ledger.counts([State.WAITING])[State.WAITING].clips
            self._waiting = (revision, waiting)
        doing = activity.doing
        if activity.batch_clips:
            doing = f"uploading {activity.batch_position} of {activity.batch_clips}"
        clock = "" if self._clock.latest.trusted else ", clock not trusted yet"
        line = f"{waiting} waiting, {doing}{clock}, link {activity.link}"
        return line + (f": {activity.reason}" if activity.reason else "")

    def _handle_control(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Respond to a command; called in the control thread."""
        match request:
            case {"ask": "status"}:
                return {
                    "pid": os.getpid(),
                    "version": __version__,
                    "delivery": asdict(self._pipeline.dispatcher.activity),
                    "sentence": self._status_line(),
                }
            case {"ask": "retry", "clips": [*clips]}:
                changed = self._spool.retry(int(clip) for clip in clips)
                self._pipeline.intake.wake()
                self._pipeline.dispatcher.wake()
                self._on_change()
                return {"changed": [record.id for record in changed]}
        return {"error": "unknown request"}
