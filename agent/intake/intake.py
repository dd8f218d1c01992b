"""The loop that takes footage in: hints and the scan find files, settled files are inspected and spooled."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import structlog

from agent.config import Config, FootageFolder
from agent.device.clock import Clock, FixedClock
from agent.device.warn_once import WarnOnce
from agent.errors import Cancelled, FootageGone, FootageRefused, SpoolFull
from agent.intake.conform.conformer import Conformer, ConformResult
from agent.intake.dating import resolve_against_clock
from agent.intake.fitting import passthrough
from agent.intake.handover import Handover, Item, PendingBatch
from agent.intake.naming import unsupported_reason
from agent.intake.reading import FootageReader
from agent.intake.scanner import FolderScanner, is_in_scope, matches_filters, stat_footage
from agent.intake.settling import Pending, is_abandoned, is_being_written, is_settled, observe, postpone
from agent.intake.times import check_recording_time
from agent.intake.watcher import Watcher
from agent.model import ClipKey, Footage
from agent.spool import NotTaken, Spool, Taken

log = structlog.get_logger()

# A directory that appears may already hold files that no notification told of: the folder is scanned this much later.
NEW_DIRECTORY_DELAY_SECONDS = 1.0
PRUNE_INTERVAL_SECONDS = 6 * 3600.0
PRUNE_CONTINUE_SECONDS = 10.0
# The longest wait: a worker that does not move for long counts as hung.
MAX_IDLE_SECONDS = 15.0
# How soon it is noticed that the clock was set, while clips may wait for that.
CLOCK_INTERVAL_SECONDS = 5.0

# Folder, path (None: scan the folder), and whether the file was closed after writing or moved in.
_FsEvent = tuple[FootageFolder, Path | None, bool]


class Intake:
    """Takes the footage of all folders into the spool until it is told to stop.

    Args:
        config: folders, vehicle and limits.
        spool: where clips go.
        stop: set when the daemon is to stop.
        on_taken: called when clips were added.
        monotonic: seconds of a clock that no one sets.
        now: Unix seconds.
        clock: this device's clock, judged; without it `now` is believed.

    Attributes:
        conformer: makes footage fit that does not; its `run` needs a thread of its own.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        stop: threading.Event,
        *,
        on_taken: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        clock: Clock | None = None,
    ) -> None:
        self._folders: Sequence[FootageFolder] = config.footage
        self._spool = spool
        self._stop = stop
        self._monotonic = monotonic
        self._clock = clock or Clock("always", FixedClock(now))
        self._clock_seen: tuple[float, bool] | None = None
        self._limits = config.limits
        self._fs_events: queue.SimpleQueue[tuple[FootageFolder, Path | None, bool] | ConformResult | None] = (
            queue.SimpleQueue()
        )
        self.conformer = Conformer(config, stop, self._fs_events.put)
        self._readings = {folder: FootageReader(folder, config, stop) for folder in self._folders}
        self._handover = Handover(spool, self._readings, on_taken, monotonic)
        self._conforming: dict[Footage, FootageFolder] = {}
        self._conformed: ConformResult | None = None
        self._take_conformed_at = 0.0
        self._watcher = Watcher(
            self._folders,
            lambda folder, path, closed: self._fs_events.put((folder, path, closed)),
            lambda folder: self._fs_events.put((folder, None, False)),
        )
        self._scan_at = dict.fromkeys(self._folders, 0.0)
        self._pending: dict[tuple[FootageFolder, Path], Pending] = {}
        self._batch = PendingBatch()
        self._warnings = WarnOnce()
        self._scanners = {
            folder: FolderScanner(folder, spool, self._warnings, self._clock.wall) for folder in self._folders
        }
        self._prune_at = 0.0
        self._refusals_checked = False

    def wake(self) -> None:
        """Makes the loop scan all folders now: someone asked for a retry, or the daemon is to stop."""
        self._fs_events.put(None)

    def run(self, alive: Callable[[], None] = lambda: None) -> None:
        """Takes footage in until `stop` is set.

        Args:
            alive: called several times a minute and with each file, as a sign that the loop moves.
        """
        self.maintain_spool()
        try:
            while not self._stop.is_set():
                self.drain_events(self.step(alive))
        except Cancelled:
            log.debug("inspection_cancelled")
        finally:
            self._watcher.stop()

    def step(self, alive: Callable[[], None] = lambda: None) -> float:
        """Scans what is due and takes in what is settled.

        Args:
            alive: called at once and with each file: a card full of footage can take longer than anyone waits.

        Returns:
            Seconds until there is something to do.
        """
        alive()
        self.maintain_spool()
        self.on_clock_change()
        for folder in self._folders:
            if self._monotonic() >= self._scan_at[folder]:
                for renewed in self._watcher.tend():
                    self._scan_at[renewed] = self._monotonic()
                    self._scanners[renewed].has_footage = False
                self._scan(folder, alive)
        self._take_conformed()
        self._inspect_settled(alive)
        due = min([*self._scan_at.values(), *(pending.look_at for pending in self._pending.values())])
        if self._conformed is not None:
            due = min(due, self._take_conformed_at)
        most = MAX_IDLE_SECONDS if self._clock.latest.trusted else CLOCK_INTERVAL_SECONDS
        return min(most, max(0.0, due - self._monotonic()))

    def on_clock_change(self) -> None:
        """Once after each change of the clock: clips that wait for it may be decided."""
        clock = self._clock.sample()
        setting = (self._clock.segments[-1].since, clock.trusted)
        if setting == self._clock_seen:
            return
        try:
            retimed = self._spool.correct_times(clock, self._reject_reason)
        except SpoolFull as exc:
            self._handover.log_full_once(exc)
            return
        self._clock_seen = setting
        for record in retimed:
            log.info(
                f"clip_{record.state.value}", clip=record.id, footage=str(record.footage.path), reason=record.reason
            )
            self._handover.on_taken()

    def _reject_reason(self, video: ClipKey) -> str | None:
        try:
            check_recording_time(video.start, video.end, datetime.fromtimestamp(self._clock.wall(), tz=timezone.utc))
        except FootageRefused as refusal:
            return refusal.reason
        return None

    def drain_events(self, seconds: float) -> None:
        """Waits for hints; those that came together are noted together."""
        timeout = seconds
        while not self._stop.is_set():
            try:
                hint = self._fs_events.get(timeout=timeout) if timeout > 0 else self._fs_events.get_nowait()
            except queue.Empty:
                return
            timeout = 0.0
            if hint is None:
                self._scan_at = dict.fromkeys(self._folders, 0.0)
                for scanner in self._scanners.values():
                    scanner.invalidate()
                continue
            if isinstance(hint, ConformResult):
                self._conformed, self._take_conformed_at = hint, 0.0
                continue
            folder, path, closed = hint
            if path is None:
                self._scan_soon(folder)
            elif matches_filters(folder, path.name) and is_in_scope(folder, path):
                found = stat_footage(path)
                if isinstance(found, Footage):
                    self._observe(folder, found, closed=closed)
                elif found is not None:
                    self._warnings.warn("footage_skipped", found.path, found.reason)

    def _scan(self, folder: FootageFolder, alive: Callable[[], None]) -> None:
        self._scan_at[folder] = self._monotonic() + folder.rescan_seconds
        scanner = self._scanners[folder]
        for footage in scanner.scan(alive, self._stop.is_set):
            self._observe(folder, footage, closed=False)
        if scanner.is_there and self._watcher.check(folder, scanner.directories):
            self._scan_soon(folder)

    def _scan_soon(self, folder: FootageFolder) -> None:
        self._scan_at[folder] = min(self._scan_at[folder], self._monotonic() + NEW_DIRECTORY_DELAY_SECONDS)

    def _is_unusable(self, folder: FootageFolder, footage: Footage) -> bool:
        """Whether the name alone says that the file can never be used; it is then refused.

        Such files are blocks that a camera overwrites without end: one row a file, whatever it holds meanwhile.
        """
        reason = unsupported_reason(footage.path.name)
        if reason is None:
            return False
        block = Footage(footage.path, 0, 0)
        if self._spool.state_of(block) is None:
            try:
                self._handover.refuse(folder, block, FootageRefused(reason))
            except SpoolFull as exc:
                # The next scan meets it again.
                self._handover.log_full_once(exc)
        return True

    def _observe(self, folder: FootageFolder, footage: Footage, *, closed: bool) -> None:
        if footage in self._conforming or self._is_unusable(folder, footage):
            return
        key = (folder, footage.path)
        self._pending[key] = observe(
            self._pending.get(key),
            footage,
            closed=closed,
            now=self._monotonic(),
            settle_seconds=folder.settle_seconds,
        )

    def _inspect_settled(self, alive: Callable[[], None]) -> None:
        for (folder, path), pending in list(self._pending.items()):
            now = self._monotonic()
            if self._stop.is_set():
                return
            alive()
            if pending.look_at > now:
                continue
            found = stat_footage(path)
            if not isinstance(found, Footage):
                del self._pending[folder, path]
            elif found != pending.footage:
                self._observe(folder, found, closed=False)
            elif not is_settled(pending, now, folder.settle_seconds) or is_being_written(path):
                self._pending[folder, path] = postpone(pending, now, folder.settle_seconds)
            else:
                self._inspect(folder, pending)
                if self._batch.is_due(self._monotonic()):
                    self._spool_batch(alive)
        self._spool_batch(alive)

    def _inspect(self, folder: FootageFolder, pending: Pending) -> None:
        """Inspects one settled file; what comes of it is noted, or is in the group that goes into the spool next."""
        footage = pending.footage
        now = self._monotonic()
        if footage in self._batch or self._spool.state_of(footage) is not None:
            del self._pending[folder, footage.path]
            return
        try:
            hopeless = is_abandoned(pending, now, folder.settle_seconds)
            job = self._readings[folder].read(footage, self._clock.segments, is_abandoned=hopeless)
            if job is None:
                self._pending[folder, footage.path] = postpone(pending, now, folder.settle_seconds)
            elif self.conformer.submit(job):
                self._conforming[footage] = folder
                del self._pending[folder, footage.path]
            else:
                (clip,) = resolve_against_clock([passthrough(job.recording, self._limits)], self._clock.segments)
                self._batch.add(Item(folder, clip), now)
        except (FootageGone, FootageRefused) as exc:
            self._record_outcome(folder, footage, exc)

    def _spool_batch(self, alive: Callable[[], None]) -> None:
        items = self._batch.drain()
        if not items:
            return
        outcomes = self._handover.take_in([[(one.clip, one.clip.footage.path)] for one in items], alive)
        for item, outcome in zip(items, outcomes, strict=True):
            self._record_outcome(item.folder, item.clip.footage, outcome)

    def _record_outcome(self, folder: FootageFolder, footage: Footage, outcome: list[Taken] | NotTaken) -> None:
        """Notes what became of a settled file; without room it is tried again later."""
        pending = self._pending.pop((folder, footage.path))
        try:
            self._handover.record_outcome(folder, footage, outcome)
        except SpoolFull as exc:
            self._handover.log_full_once(exc)
            later = self._monotonic() + folder.rescan_seconds
            self._pending[folder, footage.path] = replace(pending, look_at=later)

    def _take_conformed(self) -> None:
        """Spools what the conformer made of a recording; without room for that, or for cutting, it is tried again."""
        done = self._conformed
        now = self._monotonic()
        if done is None or now < self._take_conformed_at:
            return
        folder = self._conforming[done.footage]
        later = now + folder.rescan_seconds
        try:
            self._spool_conformed(folder, done)
        except SpoolFull as exc:
            self._handover.log_full_once(exc)
            if exc is not done.trouble:
                self._take_conformed_at = later
                return
            self._pending[folder, done.footage.path] = Pending(done.footage, now, closed=True, look_at=later)
        del self._conforming[done.footage]
        self._conformed = None
        self.conformer.release(done)

    def _spool_conformed(self, folder: FootageFolder, done: ConformResult) -> None:
        """Raises SpoolFull."""
        outcome: list[Taken] | NotTaken
        try:
            if done.trouble is not None:
                raise done.trouble
            if self._spool.state_of(done.footage) is not None:
                return
            clips = resolve_against_clock([clip for clip, _ in done.pieces], self._clock.segments)
            (outcome,) = self._handover.take_in([list(zip(clips, (file for _, file in done.pieces), strict=True))])
        except (FootageGone, FootageRefused) as exc:
            outcome = exc
        self._handover.record_outcome(folder, done.footage, outcome)

    def maintain_spool(self) -> None:
        """Keeps free space on its disk, and forgets what no scan can find any more."""
        try:
            self._handover.evict_if_low()
            if not self._refusals_checked:
                self._spool.drop_outdated_refusals(reading.fingerprint for reading in self._readings.values())
                self._refusals_checked = True
            # By a clock that is ahead, all that was delivered would be long ago.
            if self._monotonic() >= self._prune_at and self._clock.latest.trusted:
                there = [folder.path for folder, scanner in self._scanners.items() if scanner.has_footage]
                more = self._spool.prune(there)
                self._prune_at = self._monotonic() + (PRUNE_CONTINUE_SECONDS if more else PRUNE_INTERVAL_SECONDS)
        except SpoolFull as exc:
            self._handover.log_full_once(exc)
