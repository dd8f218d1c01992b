"""The thread that makes footage fit, one recording at a time, while the intake goes on with the others."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import structlog

from agent.config import Config, Conform, Limits, SpoolSettings
from agent.device.durable import make_directory
from agent.device.safe_open import open_regular_file
from agent.errors import Cancelled, FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.intake.identify.inspector import MAX_DURATION_SECONDS
from agent.intake.identify.recording import MP4, Recording
from agent.intake.planning import ConformJob, clips_of, is_h264, needs_work, passthrough, unsupported_codec_reason
from agent.media import damage
from agent.media.ffmpeg import CancelToken, InputFile, ProbeResult, probe_file
from agent.media.segments import MARGIN, GopTooLarge, Segment, plan_segments
from agent.media.transcode import SegmentTooLarge, cut, read_gops, reencode
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


log = structlog.get_logger()

# How often a plan is tried with smaller aims before the recording is given up.
PLANS = 3


@dataclass(frozen=True, slots=True)
class ConformSettings:
    """The settings that decide what pieces look like, and how much disk may be used for them."""

    limits: Limits
    conform: Conform
    spool: SpoolSettings


@dataclass(frozen=True, slots=True)
class ConformOutput:
    """What became of a recording.

    Args:
        pieces: all of it without a gap, what is left out too.
        files: the file of each piece; none if the footage itself will do.
        how: in words.
    """

    pieces: Sequence[Segment]
    files: Sequence[Path]
    how: str


def conform(job: ConformJob, rules: ConformSettings, folder: Path, watch: CancelToken) -> list[tuple[Clip, Path]]:
    """Makes the clips of one recording.

    Args:
        folder: an empty folder for the pieces, on the disk of the spool.

    Returns:
        Each clip with the file that holds it: a piece in `folder`, or the footage itself if it will do after all.

    Raises:
        FootageRefused: it cannot be made to fit; the reason says why.
        FootageGone: it vanished or changed meanwhile.
        SpoolFull: there is no room for the pieces now.
        Cancelled: `watch` says stop.
    """
    footage = job.recording.footage
    with open_regular_file(footage.path) as file:
        _check_unchanged(footage, file)
        work = ConformTask(job, rules, folder, watch, file)
        made = work.made()
        notes = work.notes(made.pieces)
        _check_unchanged(footage, file)
    if not made.files:
        return [(passthrough(job.recording, rules.limits), footage.path)]
    files = [file for piece, file in zip(made.pieces, made.files, strict=True) if piece.is_intact]
    return list(zip(clips_of(job.recording, made.pieces, made.how, notes), files, strict=True))


class ConformTask:
    """Args: as `conform`; `file`: the footage, which stays the same file whatever happens to its name."""

    def __init__(
        self, job: ConformJob, rules: ConformSettings, folder: Path, watch: CancelToken, file: BinaryIO
    ) -> None:
        self._job = job
        self._rules = rules
        self._folder = folder
        self._watch = watch
        self._file = file
        self._source = InputFile(file.fileno(), job.recording.media.container)
        self._facts = probe_file(self._source, watch)

    def made(self) -> ConformOutput:
        """Cuts, repacks or encodes anew, whatever is needed first."""
        may_encode = self._rules.conform.reencode
        if not is_h264(self._facts.code) and not may_encode:
            raise FootageRefused(unsupported_codec_reason(self._facts.code))
        if is_h264(self._facts.code):
            try:
                return self._cut(self._source, self._facts)
            except GopTooLarge:
                if not may_encode:
                    raise
        return self._reencoded()

    def notes(self, pieces: Sequence[Segment]) -> list[str]:
        """What damage did to the recording, in words."""
        notes = [
            f"from second {piece.start_seconds:,.0f} to {piece.end_seconds:,.0f} it held zeros instead of pictures, "
            "which were left out: power was lost before they were on the card"
            for piece in pieces
            if not piece.is_intact
        ]
        saved, meant = pieces[-1].end_seconds, self._facts.duration_seconds
        if meant - saved > max(1.0, 0.02 * meant):
            notes.append(f"{damage.CUT}: {saved:,.0f} of {meant:,.0f} s could be saved")
        elif not self._job.is_whole or damage.is_cut_short(self._file, self._source.container):
            notes.append(f"{damage.CUT}: its last moments are missing")
        return notes

    def _cut(self, source: InputFile, facts: ProbeResult) -> ConformOutput:
        margin = MARGIN
        if self._fits() and source is self._source:
            found = tuple(read_gops(source, facts, self._watch))
            if found and all(group.is_intact for group in found):
                return ConformOutput(found, (), "")
        _check_room(self._job.recording, self._rules, self._folder)
        for _ in range(PLANS):
            pieces = plan_segments(read_gops(source, facts, self._watch), self._rules.limits, margin)
            if not any(piece.is_intact for piece in pieces):
                raise FootageRefused(damage.diagnose_without_frames(bool(pieces)))
            if pieces[-1].end_seconds > MAX_DURATION_SECONDS:
                raise FootageRefused("its pictures claim to last over a month: the file is damaged")
            try:
                files = cut(
                    source,
                    facts,
                    pieces,
                    self._folder,
                    keep_audio=self._rules.conform.audio == "keep",
                    limits=self._rules.limits,
                    watch=self._watch,
                )
            except SegmentTooLarge as exc:
                log.debug("piece_too_large", footage=str(self._job.recording.footage.path), reason=str(exc))
                margin *= 0.95
                continue
            return ConformOutput(
                pieces, files, "cut without encoding" if len(pieces) > 1 else "repacked without encoding"
            )
        raise FootageRefused("ffmpeg makes its pieces larger than they should be, even with smaller aims")

    def _reencoded(self) -> ConformOutput:
        _check_room(self._job.recording, self._rules, self._folder, copies=2)
        whole = self._folder / "whole.mp4"
        reencode(self._source, self._facts, whole, self._watch)
        with whole.open("rb") as file:
            source = InputFile(file.fileno(), MP4)
            made = self._cut(source, probe_file(source, self._watch))
        whole.unlink()
        return replace(made, how="encoded anew as H.264")

    def _fits(self) -> bool:
        """Whether the footage will do as it is: the doubt about it was unfounded."""
        recording, limits = self._job.recording, self._rules.limits
        return (
            self._job.is_whole
            and recording.media.container == MP4
            and recording.footage.size_bytes <= limits.max_bytes
            and recording.media.duration_seconds <= limits.max_seconds
        )


def _check_unchanged(footage: Footage, file: BinaryIO) -> None:
    if Footage.from_stat(footage.path, os.fstat(file.fileno())) != footage:
        raise FootageGone("it changed after it had settled")


def _check_room(recording: Recording, rules: ConformSettings, folder: Path, *, copies: int = 1) -> None:
    """Raises SpoolFull, or FootageRefused if there will never be room."""
    size_bytes = recording.footage.size_bytes
    if size_bytes > rules.spool.max_bytes:
        raise FootageRefused(
            f"it has {size_bytes:,} bytes, and so would its pieces, but the spool may hold only "
            f"{rules.spool.max_bytes:,} (spool.max_bytes): raise that, or set a shorter loop in the camera"
        )
    free = shutil.disk_usage(folder).free - rules.spool.min_free_bytes
    if size_bytes * copies > free:
        raise SpoolFull(
            f"no room to cut {recording.footage.path.name}: that needs {size_bytes * copies:,} bytes beside it on the "
            f"disk of the spool, and {max(0, free):,} are free above spool.min_free_bytes"
        )
