"""The thread that makes footage fit, one recording at a time, while the intake goes on with the others."""

from __future__ import annotations

import itertools
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.config import Config
from agent.device.durable import make_directory
from agent.errors import Cancelled, FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.intake.conform.forecast import needs_work
from agent.intake.conform.process import CancelToken
from agent.intake.conform.work import ConformJob, ConformSettings, conform
from agent.model import Clip, Footage
from agent.spool.files import NO_SPACE

log = structlog.get_logger()

WORK_DIRECTORY = "work"
IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ConformResult:
    """What became of a recording that was handed over.

    Args:
        footage: the file that it is.
        pieces: each clip with the file that holds it; empty if there was trouble.
        trouble: why there are none.
        folder: where the pieces lie; it goes with `Conformer.release`.
    """

    footage: Footage
    pieces: tuple[tuple[Clip, Path], ...]
    trouble: FootageRefused | FootageGone | SpoolFull | None
    folder: Path


class Conformer:
    """Makes recordings fit that do not.

    Args:
        config: limits, what may be done, and the spool, in whose directory the pieces are made.
        stop: set when the daemon is to stop.
        on_done: called with each result, from the conformer's own thread. The next recording waits until `release` was
            called for this one: there is never more than one recording's pieces outside of the spool.
    """

    def __init__(self, config: Config, stop: threading.Event, on_done: Callable[[ConformResult], None]) -> None:
        self._rules = ConformSettings(config.limits, config.conform, config.spool)
        self._stop = stop
        self._on_done = on_done
        self._work = config.spool.directory / WORK_DIRECTORY
        self._jobs: queue.PriorityQueue[tuple[int, int, ConformJob | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._free = threading.Event()

    def submit(self, job: ConformJob) -> bool:
        """Queues a recording, unless it is to be taken, or refused, as it is. Events go before the others.

        Raises:
            FootageRefused: something is to be done to it, and ffmpeg is not installed.
            FootageGone: it vanished.
        """
        if not needs_work(job, self._rules.limits, self._rules.conform):
            return False
        self._jobs.put((-job.recording.priority, next(self._numbers), job))
        return True

    def release(self, done: ConformResult) -> None:
        """The pieces are in the spool, or nobody wants them: their folder goes, and the next recording begins."""
        shutil.rmtree(done.folder, ignore_errors=True)
        self._free.set()

    def wake(self) -> None:
        """Makes the thread look at `stop` now."""
        self._jobs.put((-1_000_000, next(self._numbers), None))
        self._free.set()

    def run(self, alive: Callable[[], None] = lambda: None) -> None:
        """Works until `stop` is set.

        Args:
            alive: called at least each minute, and each second while there is work.
        """
        # What an earlier run left half done is of no use: its recording is handed over again.
        shutil.rmtree(self._work, ignore_errors=True)
        make_directory(self._work)
        watch = CancelToken(self._stop, alive)
        while not self._stop.is_set():
            alive()
            try:
                _, _, job = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                continue
            if job is None:
                continue
            self._free.clear()
            try:
                self._on_done(self._do(job, watch))
            except Cancelled:
                return
            while not self._free.wait(IDLE_SECONDS) and not self._stop.is_set():
                alive()

    def _do(self, job: ConformJob, watch: CancelToken) -> ConformResult:
        footage = job.recording.footage
        folder = self._work / footage.identity
        log.info("conforming", footage=str(footage.path), size_bytes=footage.size_bytes)
        try:
            folder.mkdir()
            return ConformResult(footage, tuple(conform(job, self._rules, folder, watch)), None, folder)
        except (FootageRefused, FootageGone, SpoolFull) as exc:
            return ConformResult(footage, (), exc, folder)
        except OSError as exc:
            if exc.errno in NO_SPACE:
                return ConformResult(footage, (), SpoolFull("the disk of the spool is full"), folder)
            raise SpoolError(f"the spool's work directory cannot be used: {exc}") from exc
