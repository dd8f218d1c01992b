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

from agent.clip import Clip, Footage, Video
from agent.config import Config, FootageFolder
from agent.errors import FootageGone, FootageIncomplete, FootageRefused, SpoolFull
from agent.host.clock import AsTold, Clock
from agent.intake.dating import dated
from agent.intake.inspection import Inspector
from agent.intake.naming import unusable
from agent.intake.news import News
from agent.intake.scanning import examine, reaches, wanted
from agent.intake.settling import Pending, is_being_written, is_hopeless, is_settled, put_off, seen
from agent.intake.survey import Survey
from agent.intake.times import check_recording_time
from agent.intake.watching import Watcher
from agent.spool import Spool

log = structlog.get_logger()

# A directory that appears may already hold files that no notification told of: the folder is scanned this much later.
SOON_SECONDS = 1.0
PRUNE_SECONDS = 6 * 3600.0
PRUNE_AGAIN_SECONDS = 10.0
RELIEVE_SECONDS = 5.0
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
        self._on_taken = on_taken
        self._monotonic = monotonic
        self._clock = clock or Clock("always", AsTold(now))
        self._heeded: tuple[float, bool] | None = None
        self._inspectors = {folder: Inspector(folder, config) for folder in self._folders}
        self._hints: queue.SimpleQueue[tuple[FootageFolder, Path | None, bool] | None] = queue.SimpleQueue()
        self._watcher = Watcher(
            self._folders,
            lambda folder, path, closed: self._hints.put((folder, path, closed)),
            lambda folder: self._hints.put((folder, None, False)),
        )
        self._scan_at = dict.fromkeys(self._folders, 0.0)
        self._pending: dict[tuple[FootageFolder, Path], Pending] = {}
        self._news = News()
        self._surveys = {folder: Survey(folder, spool, self._news, self._clock.wall) for folder in self._folders}
        self._prune_at = 0.0
        self._relieve_at = 0.0
        self._knows_rules = False
        self._was_full = False

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
        self._take_settled(alive)
        due = min([*self._scan_at.values(), *(pending.look_at for pending in self._pending.values())])
        most = IDLE_SECONDS if self._clock.latest.trusted else CLOCK_LOOK_SECONDS
        return min(most, max(0.0, due - self._monotonic()))

    def _heed_clock(self) -> None:
        """Once after each change of the clock: clips that wait for it may be decided."""
        clock = self._clock.look()
        setting = (self._clock.settings[-1].since, clock.trusted)
        if setting == self._heeded:
            return
        try:
            retimed = self._spool.retime(clock, self._doubt)
        except SpoolFull as exc:
            self._tell_full(exc)
            return
        self._heeded = setting
        for record in retimed:
            log.info(
                f"clip_{record.state.value}", clip=record.id, footage=str(record.footage.path), reason=record.reason
            )
            self._on_taken()

    def _doubt(self, video: Video) -> str | None:
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
            self._refuse(block, FootageRefused(reason), self._inspectors[folder].rules)
        return True

    def _note(self, folder: FootageFolder, footage: Footage, *, closed: bool) -> None:
        if self._is_unusable(folder, footage):
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
                try:
                    self._take(folder, pending)
                except SpoolFull as exc:
                    self._tell_full(exc)
                    self._pending[folder, path] = replace(pending, look_at=now + folder.rescan_seconds)

    def _take(self, folder: FootageFolder, pending: Pending) -> None:
        """Inspects one settled file and spools it, or says why not.

        Raises:
            SpoolFull: there is no room now.
        """
        footage = pending.footage
        key = (folder, footage.path)
        now = self._monotonic()
        if self._spool.state_of(footage) is not None:
            del self._pending[key]
            return
        inspector = self._inspectors[folder]
        try:
            clips = self._inspect(inspector, footage)
            self._relieve()
            for taken in self._spool.take_in([(clip, footage.path) for clip in clips]):
                event = "clip_known_already" if taken.again else f"clip_{taken.state.value}"
                why = {"reason": taken.reason} if taken.reason else {}
                log.info(event, clip=taken.id, footage=str(footage.path), **why)
        except FootageGone as exc:
            log.debug("footage_gone", footage=str(footage.path), reason=str(exc))
        except FootageRefused as exc:
            if examine(footage.path) != footage:
                # Its card was pulled while it was read: that says nothing about the footage, and the scan looks again.
                log.debug("footage_gone", footage=str(footage.path), reason=exc.reason)
            elif isinstance(exc, FootageIncomplete) and not is_hopeless(pending, now, folder.settle_seconds):
                self._pending[key] = put_off(pending, now, folder.settle_seconds)
                return
            else:
                self._refuse(footage, exc, inspector.rules)
        else:
            self._was_full = False
            self._on_taken()
        del self._pending[key]

    def _inspect(self, inspector: Inspector, footage: Footage) -> Sequence[Clip]:
        clips = inspector.inspect(footage.path)
        if any(clip.footage != footage for clip in clips):
            raise FootageGone("it changed after it had settled")
        return dated(clips, self._clock.settings)

    def _refuse(self, footage: Footage, refusal: FootageRefused, rules: str) -> None:
        self._spool.refuse(footage, refusal.reason, rules, refusal.look_again_seconds)
        log.warning("footage_refused", footage=str(footage.path), reason=refusal.reason)

    def _tend_spool(self) -> None:
        """Keeps free space on its disk, and forgets what no scan can find any more."""
        try:
            self._relieve()
            if not self._knows_rules:
                self._spool.forget_refusals_of_other_rules(inspector.rules for inspector in self._inspectors.values())
                self._knows_rules = True
            # By a clock that is ahead, all that was delivered would be long ago.
            if self._monotonic() >= self._prune_at and self._clock.latest.trusted:
                there = [folder.path for folder, survey in self._surveys.items() if survey.has_footage]
                more = self._spool.prune(there)
                self._prune_at = self._monotonic() + (PRUNE_AGAIN_SECONDS if more else PRUNE_SECONDS)
        except SpoolFull as exc:
            self._tell_full(exc)

    def _relieve(self) -> None:
        """Makes room on the spool's disk where it is short; in vain it may be for as long as footage stays."""
        if self._monotonic() < self._relieve_at:
            return
        self._relieve_at = self._monotonic() + RELIEVE_SECONDS
        for given_up in self._spool.relieve():
            log.warning(
                "clip_given_up",
                clip=given_up.id,
                footage=str(given_up.footage.path),
                lost=given_up.lost,
                reason=given_up.reason,
            )

    def _tell_full(self, error: SpoolFull) -> None:
        """Logs once that there is no room, until something was taken in again."""
        if not self._was_full:
            self._was_full = True
            log.warning("spool_full", reason=f"{error}; the footage stays where it is and is taken in later")
