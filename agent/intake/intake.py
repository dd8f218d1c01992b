"""The intake loop: finds files, follows each until it has settled, identifies it, and hands its clips to the spool.

`run` and everything below it is the intake thread. Other threads only put events into its queue: watchdog's threads
report files and folders, the conformer's thread its results, the main and the control thread wake it up.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import structlog

from agent.config import Config, FootageFolder
from agent.device.clock import Clock
from agent.device.safe_open import OpenFootage, open_footage
from agent.device.warn_once import WarnOnce
from agent.errors import Cancelled, FootageGone, FootageRefused, SpoolFull
from agent.intake.conformer import Conformer, ConformJob, ConformResult
from agent.intake.handover import Handover, Item, PendingBatch, log_clip
from agent.intake.identify.filename import unsupported_reason
from agent.intake.identify.reader import FootageReader
from agent.intake.identify.recording_time import check_recording_time, resolve_against_clock
from agent.intake.planning import AsIs, PlanSettings, Reject, plan
from agent.intake.scanner import FolderScanner, is_in_scope, matches_filters, stat_footage
from agent.intake.tracked import FileState, Tracked
from agent.intake.watcher import FsEvent, Watcher
from agent.model import Clip, ClipKey, Footage
from agent.spool import NotTaken, Spool, Taken

log = structlog.get_logger()

# A directory that appears may already hold files that were written before it was watched: its folder is scanned after
# this time.
NEW_DIRECTORY_DELAY_SECONDS = 1.0
PRUNE_INTERVAL_SECONDS = 6 * 3600.0
PRUNE_CONTINUE_SECONDS = 10.0
# Longest wait for an event: a worker without a heartbeat for long counts as stalled.
MAX_IDLE_SECONDS = 15.0
# The same while the clock is not trusted, since clips may wait for it to be set.
CLOCK_INTERVAL_SECONDS = 5.0


class Intake:
    """Takes the footage of all folders into the spool.

    Args:
        config: folders, vehicle and limits.
        spool: where clips go.
        stop: set when the daemon is to stop; call `wake` after setting it.
        clock: this device's clock; only the intake thread samples it while the intake runs.
        on_taken: called from the intake thread when clips were added or became ready.
        monotonic: seconds of a clock that no one sets.

    Attributes:
        conformer: makes clips of footage that does not fit; its `run` needs a thread of its own.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        stop: threading.Event,
        clock: Clock,
        *,
        on_taken: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders: Sequence[FootageFolder] = config.footage
        self._spool = spool
        self._stop = stop
        self._monotonic = monotonic
        self._clock = clock
        self._clock_seen: tuple[float, bool] | None = None
        self._plan_settings = PlanSettings(config.limits, config.conform)
        # The only thing here that other threads touch; None wakes the loop up.
        self._events: queue.SimpleQueue[FsEvent | ConformResult | None] = queue.SimpleQueue()
        self.conformer = Conformer(config, stop, self._events.put)
        self._readers = {folder: FootageReader(folder, config, stop) for folder in self._folders}
        self._handover = Handover(spool, self._readers, on_taken, monotonic)
        self._watcher = Watcher(self._folders, self._events.put)
        self._warnings = WarnOnce()
        self._scanners = {folder: FolderScanner(folder, spool, self._warnings, clock.wall) for folder in self._folders}
        self._scan_at = dict.fromkeys(self._folders, 0.0)
        self._tracked: dict[Footage, Tracked] = {}
        self._batch = PendingBatch()
        self._prune_at = 0.0
        self._refusals_checked = False

    def wake(self) -> None:
        """Makes the loop scan all folders now: someone asked for a retry, or the daemon is to stop. Any thread."""
        self._events.put(None)

    def run(self, alive: Callable[[], None] = lambda: None) -> None:
        """Takes footage in until `stop` is set.

        Args:
            alive: heartbeat, called several times a minute and with each file.

        Raises:
            SpoolError: the spool cannot be used any more.
        """
        self._maintain_spool()
        try:
            while not self._stop.is_set():
                self._drain_events(self.step(alive))
        except Cancelled:
            log.debug("inspection_cancelled")
        finally:
            self._watcher.stop()

    def step(self, alive: Callable[[], None] = lambda: None) -> float:
        """One round of the loop: scans the folders that are due and checks the files that are due.

        Args:
            alive: heartbeat, called at once and with each file: a card full of footage can take minutes.

        Returns:
            Seconds until there is something to do.
        """
        alive()
        self._maintain_spool()
        self._on_clock_change()
        for folder in self._folders:
            if self._monotonic() >= self._scan_at[folder]:
                for renewed in self._watcher.refresh():
                    self._scan_at[renewed] = self._monotonic()
                    self._scanners[renewed].has_footage = False
                self._scan(folder, alive)
        self._check_due(alive)
        due = min([*self._scan_at.values(), *(tracked.check_at for tracked in self._tracked.values())])
        longest = MAX_IDLE_SECONDS if self._clock.latest.trusted else CLOCK_INTERVAL_SECONDS
        return min(longest, max(0.0, due - self._monotonic()))

    # --- files are found ---------------------------------------------------------------------------------------------

    def _drain_events(self, seconds: float) -> None:
        """Waits for an event, and handles it with all others that are there by then."""
        timeout = seconds
        while not self._stop.is_set():
            try:
                event = self._events.get(timeout=timeout) if timeout > 0 else self._events.get_nowait()
            except queue.Empty:
                return
            timeout = 0.0
            if event is None:
                self._scan_at = dict.fromkeys(self._folders, 0.0)
                for scanner in self._scanners.values():
                    scanner.invalidate()
            elif isinstance(event, ConformResult):
                tracked = self._tracked[event.footage]
                self._tracked[event.footage] = tracked.conform_done(event, self._monotonic())
            else:
                self._on_fs_event(event)

    def _on_fs_event(self, event: FsEvent) -> None:
        folder, path = event.folder, event.path
        if path is None:
            self._scan_soon(folder)
        elif matches_filters(folder, path.name) and is_in_scope(folder, path):
            found = stat_footage(path)
            if isinstance(found, Footage):
                self._observe(folder, found, closed=event.closed)
            elif found is not None:
                self._warnings.warn("footage_skipped", found.path, found.reason, footage=str(found.path))

    def _scan(self, folder: FootageFolder, alive: Callable[[], None]) -> None:
        self._scan_at[folder] = self._monotonic() + folder.rescan_seconds
        scanner = self._scanners[folder]
        for footage in scanner.scan(alive, self._stop.is_set):
            self._observe(folder, footage, closed=False)
        if scanner.is_readable and self._watcher.check_coverage(folder, scanner.directories):
            self._scan_soon(folder)

    def _scan_soon(self, folder: FootageFolder) -> None:
        self._scan_at[folder] = min(self._scan_at[folder], self._monotonic() + NEW_DIRECTORY_DELAY_SECONDS)

    def _observe(self, folder: FootageFolder, footage: Footage, *, closed: bool) -> None:
        """A file was seen: it is tracked from now on, unless its name alone rules it out."""
        now = self._monotonic()
        tracked = self._tracked.get(footage)
        if tracked is not None:
            self._tracked[footage] = tracked.observe(closed=closed, now=now)
        elif not self._is_refused_by_name(folder, footage):
            self._tracked[footage] = Tracked.found(folder, footage, closed=closed, now=now)

    def _is_refused_by_name(self, folder: FootageFolder, footage: Footage) -> bool:
        """Whether the name alone says that the file can never be used; it is then listed as refused.

        Such files are blocks that a camera overwrites without end: one row a name, whatever the file holds meanwhile.
        """
        reason = unsupported_reason(footage.path.name)
        if reason is None:
            return False
        block = Footage(footage.path, 0, 0)
        if self._spool.state_of(block) is None:
            # Without room for the row, the next scan tries again.
            self._handover.refuse(folder, block, FootageRefused(reason))
        return True

    # --- files become clips ------------------------------------------------------------------------------------------

    def _check_due(self, alive: Callable[[], None]) -> None:
        """Checks the files that are due, and spools what becomes ready, in batches."""
        try:
            for tracked in list(self._tracked.values()):
                if self._stop.is_set():
                    return
                alive()
                if tracked.check_at <= self._monotonic():
                    self._check(tracked)
                    if self._batch.is_due(self._monotonic()):
                        self._spool_batch(alive)
            self._spool_batch(alive)
        finally:
            # What is left after a stop or an error: the next start finds these files again.
            with self._batch.drain():
                pass

    def _check(self, tracked: Tracked) -> None:
        """Moves a file that is due on, or drops it."""
        footage = tracked.footage
        if tracked.state is FileState.SETTLING:
            found = stat_footage(footage.path)
            if found != footage:
                del self._tracked[footage]
                if isinstance(found, Footage):
                    self._observe(tracked.folder, found, closed=False)
                return
        if self._spool.state_of(footage) is not None:
            self._drop(tracked)
            return
        conformed = tracked.conformed
        try:
            if conformed is None:
                self._inspect(tracked)
            elif conformed.trouble is not None:
                self._record_outcome(tracked, conformed.trouble)
            else:
                self._add_to_batch(tracked.ready(), conformed.pieces)
        except (FootageGone, FootageRefused) as exc:
            self._record_outcome(tracked, exc)

    def _inspect(self, tracked: Tracked) -> None:
        """Opens a settled file, for the only time, and decides what becomes of it.

        Raises:
            FootageGone: it vanished or changed.
            FootageRefused: it cannot be delivered.
        """
        footage, now = tracked.footage, self._monotonic()
        with ExitStack() as files:
            opened = files.enter_context(open_footage(footage.path))
            if opened.footage != footage:
                raise FootageGone("it changed after it had settled")
            recording = None
            if not opened.is_being_written():
                reader = self._readers[tracked.folder]
                recording = reader.read(opened, is_abandoned=tracked.is_abandoned(now))
            if recording is None:
                self._tracked[footage] = tracked.postpone(now)
                return
            chosen = plan(recording, self._plan_settings)
            if isinstance(chosen, Reject):
                raise chosen.error
            if isinstance(chosen, AsIs):
                if chosen.suspicion:
                    log.warning("footage_doubtful", footage=str(footage.path), reason=chosen.suspicion)
                self._add_to_batch(tracked.ready(), [(chosen.clip, opened)])
                # From here on, the batch closes it.
                files.pop_all()
            else:
                # Checked again when it is cut. What is refused for its times need not be cut first.
                key = ClipKey(recording.registration, recording.camera, recording.start, recording.end)
                self._check_times([Clip(footage, key)])
                self.conformer.submit(ConformJob.of(recording, chosen, opened))
                self._tracked[footage] = tracked.conforming()

    def _add_to_batch(self, tracked: Tracked, pieces: Sequence[tuple[Clip, OpenFootage | Path]]) -> None:
        """Raises FootageRefused: the times of the clips cannot be right."""
        clips = self._check_times([clip for clip, _ in pieces])
        sources = [source for _, source in pieces]
        self._batch.add(Item(tracked, list(zip(clips, sources, strict=True))), self._monotonic())
        self._tracked[tracked.footage] = tracked

    def _check_times(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Checks the times of a file's clips against this device's clock, as it is known in this step of the loop.

        Returns:
            The clips: as they are, with corrected times, or to be held until the clock is trusted.

        Raises:
            FootageRefused: the times cannot be right.
        """
        return resolve_against_clock(clips, self._clock.segments)

    def _spool_batch(self, alive: Callable[[], None]) -> None:
        with self._batch.drain() as items:
            if items:
                outcomes = self._handover.take_in(items, alive)
                for item, outcome in zip(items, outcomes, strict=True):
                    self._record_outcome(item.tracked, outcome)

    def _record_outcome(self, tracked: Tracked, outcome: list[Taken] | NotTaken) -> None:
        """The end of a file's way; without room in the spool it is tried again later."""
        if self._handover.record_outcome(tracked.folder, tracked.footage, outcome):
            self._drop(tracked)
            return
        waiting = tracked.wait_for_room(self._monotonic())
        self._tracked[tracked.footage] = waiting
        if tracked.conformed is not None and waiting.conformed is None:
            self.conformer.release(tracked.conformed)

    def _drop(self, tracked: Tracked) -> None:
        """Tracks a file no longer: it is in the spool, is listed as refused, or is gone."""
        del self._tracked[tracked.footage]
        if tracked.conformed is not None:
            self.conformer.release(tracked.conformed)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def _on_clock_change(self) -> None:
        """Decides the clips that wait for the clock: once after each change of it."""
        clock = self._clock.sample()
        seen = (self._clock.segments[-1].since, clock.trusted)
        if seen == self._clock_seen:
            return
        try:
            decided = self._spool.correct_times(clock, self._time_refusal)
        except SpoolFull as exc:
            self._handover.log_full_once(exc)
            return
        self._clock_seen = seen
        for record in decided:
            log_clip(record.id, record.footage, record.state, record.reason)
            self._handover.on_taken()

    def _time_refusal(self, key: ClipKey) -> str | None:
        """Why the times of a clip cannot be right, by the clock as it is now; None if they can."""
        try:
            now = datetime.fromtimestamp(self._clock.wall(), tz=timezone.utc)
            check_recording_time(key.start, key.end, now)
        except FootageRefused as refusal:
            return refusal.reason
        return None

    def _maintain_spool(self) -> None:
        """Keeps space free on the spool's disk, and forgets rows whose footage no scan can find any more."""
        try:
            self._handover.evict_if_low()
            if not self._refusals_checked:
                self._spool.drop_outdated_refusals(reader.fingerprint for reader in self._readers.values())
                self._refusals_checked = True
            # By a clock that is ahead, everything would have been delivered long ago.
            if self._monotonic() >= self._prune_at and self._clock.latest.trusted:
                readable = [folder.path for folder, scanner in self._scanners.items() if scanner.has_footage]
                more = self._spool.prune(readable)
                self._prune_at = self._monotonic() + (PRUNE_CONTINUE_SECONDS if more else PRUNE_INTERVAL_SECONDS)
        except SpoolFull as exc:
            self._handover.log_full_once(exc)
