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
from agent.device.warn_once import News
from agent.errors import Cancelled, FootageGone, FootageRefused, SpoolFull
from agent.intake.conform.conformer import Conformed, Conformer
from agent.intake.dating import dated
from agent.intake.fitting import as_it_is
from agent.intake.handover import Entrance, Group, Member
from agent.intake.naming import unusable
from agent.intake.reading import Reading
from agent.intake.scanner import Survey, examine, reaches, wanted
from agent.intake.settling import Pending, is_being_written, is_hopeless, is_settled, put_off, seen
from agent.intake.times import check_recording_time
from agent.intake.watcher import Watcher
from agent.model import ClipKey, Footage
from agent.spool import NotTaken, Spool, Taken

log = structlog.get_logger()

# A directory that appears may already hold files that no notification told of: the folder is scanned this much later.
SOON_SECONDS = 1.0
PRUNE_SECONDS = 6 * 3600.0
PRUNE_AGAIN_SECONDS = 10.0
# The longest wait: a worker that does not move for long counts as hung.
IDLE_SECONDS = 15.0
# How soon it is noticed that the clock was set, while clips may wait for that.
CLOCK_LOOK_SECONDS = 5.0


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
        self._heeded: tuple[float, bool] | None = None
        self._limits = config.limits
        self._hints: queue.SimpleQueue[tuple[FootageFolder, Path | None, bool] | Conformed | None] = queue.SimpleQueue()
        self.conformer = Conformer(config, stop, self._hints.put)
        self._readings = {folder: Reading(folder, config, stop) for folder in self._folders}
        self._entrance = Entrance(spool, self._readings, on_taken, monotonic)
        self._conforming: dict[Footage, FootageFolder] = {}
        self._conformed: Conformed | None = None
        self._take_conformed_at = 0.0
        self._watcher = Watcher(
            self._folders,
            lambda folder, path, closed: self._hints.put((folder, path, closed)),
            lambda folder: self._hints.put((folder, None, False)),
        )
        self._scan_at = dict.fromkeys(self._folders, 0.0)
        self._pending: dict[tuple[FootageFolder, Path], Pending] = {}
        self._group = Group()
        self._news = News()
        self._surveys = {folder: Survey(folder, spool, self._news, self._clock.wall) for folder in self._folders}
        self._prune_at = 0.0
        self._knows_rules = False

    def wake(self) -> None:
        """Makes the loop scan all folders now: someone asked for a retry, or the daemon is to stop."""
        self._hints.put(None)

    def run(self, alive: Callable[[], None] = lambda: None) -> None:
        """Takes footage in until `stop` is set.

        Args:
            alive: called several times a minute and with each file, as a sign that the loop moves.
        """
        self._tend_spool()
        try:
            while not self._stop.is_set():
                self._listen(self.step(alive))
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
        self._tend_spool()
        self._heed_clock()
        for folder in self._folders:
            if self._monotonic() >= self._scan_at[folder]:
                for renewed in self._watcher.tend():
                    self._scan_at[renewed] = self._monotonic()
                    self._surveys[renewed].has_footage = False
                self._scan(folder, alive)
        self._take_conformed()
        self._take_settled(alive)
        due = min([*self._scan_at.values(), *(pending.look_at for pending in self._pending.values())])
        if self._conformed is not None:
            due = min(due, self._take_conformed_at)
        most = IDLE_SECONDS if self._clock.latest.trusted else CLOCK_LOOK_SECONDS
        return min(most, max(0.0, due - self._monotonic()))

    def _heed_clock(self) -> None:
        """Once after each change of the clock: clips that wait for it may be decided."""
        clock = self._clock.sample()
        setting = (self._clock.segments[-1].since, clock.trusted)
        if setting == self._heeded:
            return
        try:
            retimed = self._spool.correct_times(clock, self._doubt)
        except SpoolFull as exc:
            self._entrance.tell_full(exc)
            return
        self._heeded = setting
        for record in retimed:
            log.info(
                f"clip_{record.state.value}", clip=record.id, footage=str(record.footage.path), reason=record.reason
            )
            self._entrance.on_taken()

    def _doubt(self, video: ClipKey) -> str | None:
        try:
            check_recording_time(video.start, video.end, datetime.fromtimestamp(self._clock.wall(), tz=timezone.utc))
        except FootageRefused as refusal:
            return refusal.reason
        return None

    def _listen(self, seconds: float) -> None:
        """Waits for hints; those that came together are noted together."""
        timeout = seconds
        while not self._stop.is_set():
            try:
                hint = self._hints.get(timeout=timeout) if timeout > 0 else self._hints.get_nowait()
            except queue.Empty:
                return
            timeout = 0.0
            if hint is None:
                self._scan_at = dict.fromkeys(self._folders, 0.0)
                for survey in self._surveys.values():
                    survey.revise()
                continue
            if isinstance(hint, Conformed):
                self._conformed, self._take_conformed_at = hint, 0.0
                continue
            folder, path, closed = hint
            if path is None:
                self._scan_soon(folder)
            elif wanted(folder, path.name) and reaches(folder, path):
                found = examine(path)
                if isinstance(found, Footage):
                    self._note(folder, found, closed=closed)
                elif found is not None:
                    self._news.tell("footage_skipped", found.path, found.reason)

    def _scan(self, folder: FootageFolder, alive: Callable[[], None]) -> None:
        self._scan_at[folder] = self._monotonic() + folder.rescan_seconds
        survey = self._surveys[folder]
        for footage in survey.scan(alive, self._stop.is_set):
            self._note(folder, footage, closed=False)
        if survey.is_there and self._watcher.check(folder, survey.directories):
            self._scan_soon(folder)

    def _scan_soon(self, folder: FootageFolder) -> None:
        self._scan_at[folder] = min(self._scan_at[folder], self._monotonic() + SOON_SECONDS)

    def _is_unusable(self, folder: FootageFolder, footage: Footage) -> bool:
        """Whether the name alone says that the file can never be used; it is then refused.

        Such files are blocks that a camera overwrites without end: one row a file, whatever it holds meanwhile.
        """
        reason = unusable(footage.path.name)
        if reason is None:
            return False
        block = Footage(footage.path, 0, 0)
        if self._spool.state_of(block) is None:
            try:
                self._entrance.refuse(folder, block, FootageRefused(reason))
            except SpoolFull as exc:
                # The next scan meets it again.
                self._entrance.tell_full(exc)
        return True

    def _note(self, folder: FootageFolder, footage: Footage, *, closed: bool) -> None:
        if footage in self._conforming or self._is_unusable(folder, footage):
            return
        key = (folder, footage.path)
        self._pending[key] = seen(
            self._pending.get(key),
            footage,
            closed=closed,
            now=self._monotonic(),
            settle_seconds=folder.settle_seconds,
        )

    def _take_settled(self, alive: Callable[[], None]) -> None:
        for (folder, path), pending in list(self._pending.items()):
            now = self._monotonic()
            if self._stop.is_set():
                return
            alive()
            if pending.look_at > now:
                continue
            found = examine(path)
            if not isinstance(found, Footage):
                del self._pending[folder, path]
            elif found != pending.footage:
                self._note(folder, found, closed=False)
            elif not is_settled(pending, now, folder.settle_seconds) or is_being_written(path):
                self._pending[folder, path] = put_off(pending, now, folder.settle_seconds)
            else:
                self._take(folder, pending)
                if self._group.is_due(self._monotonic()):
                    self._spool_group(alive)
        self._spool_group(alive)

    def _take(self, folder: FootageFolder, pending: Pending) -> None:
        """Inspects one settled file; what comes of it is noted, or is in the group that goes into the spool next."""
        footage = pending.footage
        now = self._monotonic()
        if footage in self._group or self._spool.state_of(footage) is not None:
            del self._pending[folder, footage.path]
            return
        try:
            hopeless = is_hopeless(pending, now, folder.settle_seconds)
            job = self._readings[folder].read(footage, self._clock.segments, is_hopeless=hopeless)
            if job is None:
                self._pending[folder, footage.path] = put_off(pending, now, folder.settle_seconds)
            elif self.conformer.accepts(job):
                self._conforming[footage] = folder
                del self._pending[folder, footage.path]
            else:
                (clip,) = dated([as_it_is(job.recording, self._limits)], self._clock.segments)
                self._group.add(Member(folder, clip), now)
        except (FootageGone, FootageRefused) as exc:
            self._conclude_settled(folder, footage, exc)

    def _spool_group(self, alive: Callable[[], None]) -> None:
        members = self._group.leave()
        if not members:
            return
        outcomes = self._entrance.take_in([[(one.clip, one.clip.footage.path)] for one in members], alive)
        for member, outcome in zip(members, outcomes, strict=True):
            self._conclude_settled(member.folder, member.clip.footage, outcome)

    def _conclude_settled(self, folder: FootageFolder, footage: Footage, outcome: list[Taken] | NotTaken) -> None:
        """Notes what became of a settled file; without room it is tried again later."""
        pending = self._pending.pop((folder, footage.path))
        try:
            self._entrance.conclude(folder, footage, outcome)
        except SpoolFull as exc:
            self._entrance.tell_full(exc)
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
            self._entrance.tell_full(exc)
            if exc is not done.trouble:
                self._take_conformed_at = later
                return
            self._pending[folder, done.footage.path] = Pending(done.footage, now, closed=True, look_at=later)
        del self._conforming[done.footage]
        self._conformed = None
        self.conformer.let_go(done)

    def _spool_conformed(self, folder: FootageFolder, done: Conformed) -> None:
        """Raises SpoolFull."""
        outcome: list[Taken] | NotTaken
        try:
            if done.trouble is not None:
                raise done.trouble
            if self._spool.state_of(done.footage) is not None:
                return
            clips = dated([clip for clip, _ in done.pieces], self._clock.segments)
            (outcome,) = self._entrance.take_in([list(zip(clips, (file for _, file in done.pieces), strict=True))])
        except (FootageGone, FootageRefused) as exc:
            outcome = exc
        self._entrance.conclude(folder, done.footage, outcome)

    def _tend_spool(self) -> None:
        """Keeps free space on its disk, and forgets what no scan can find any more."""
        try:
            self._entrance.evict()
            if not self._knows_rules:
                self._spool.drop_outdated_refusals(reading.rules for reading in self._readings.values())
                self._knows_rules = True
            # By a clock that is ahead, all that was delivered would be long ago.
            if self._monotonic() >= self._prune_at and self._clock.latest.trusted:
                there = [folder.path for folder, survey in self._surveys.items() if survey.has_footage]
                more = self._spool.prune(there)
                self._prune_at = self._monotonic() + (PRUNE_AGAIN_SECONDS if more else PRUNE_SECONDS)
        except SpoolFull as exc:
            self._entrance.tell_full(exc)
