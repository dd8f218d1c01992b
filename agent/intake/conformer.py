"""The conformer: executes the plan of footage that does not fit, with ffmpeg, while the intake goes on with the rest.

Works on one recording at a time, in a thread of its own. The intake's thread submits jobs and releases results; the
thread hands each result over through `on_done`.
"""

from __future__ import annotations

import itertools
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from agent.config import Config, Conform, Limits, SpoolSettings
from agent.device.durable import make_directory
from agent.device.safe_open import OpenFootage, open_footage, translated_errors
from agent.errors import Cancelled, FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.intake.identify.recording import MAX_DURATION_SECONDS, MP4, Recording
from agent.intake.planning import Reject, Salvage, Work, clips_of, plan_codec
from agent.media import damage
from agent.media.ffmpeg import CancelToken, InputFile, ProbeResult, probe_file
from agent.media.segments import MARGIN, GopTooLarge, Segment, plan_segments
from agent.media.transcode import SegmentTooLarge, cut, read_gops, reencode
from agent.model import Clip, Footage
from agent.spool.files import NO_SPACE

log = structlog.get_logger()

WORK_DIRECTORY = "work"
IDLE_SECONDS = 30.0
# Segments that come out larger than planned are planned again, this often, with a smaller aim each time.
MAX_ATTEMPTS = 3
SMALLER_AIM = 0.95


@dataclass(frozen=True, slots=True)
class ConformSettings:
    """What segments may be like, and how much disk may be used for them."""

    limits: Limits
    conform: Conform
    spool: SpoolSettings


@dataclass(frozen=True, slots=True)
class ConformJob:
    """A recording that does not fit as it is, with the plan to be executed.

    Args:
        device, inode: of the file that was inspected: by the time of the work its name may stand for another.
    """

    recording: Recording
    plan: Work
    device: int
    inode: int

    @classmethod
    def of(cls, recording: Recording, plan: Work, opened: OpenFootage) -> ConformJob:
        return cls(recording, plan, opened.device, opened.inode)

    def check_same(self, opened: OpenFootage) -> None:
        """Raises FootageGone: this is not the file that was inspected, or it has changed since."""
        found = (opened.device, opened.inode, opened.footage)
        if found != (self.device, self.inode, self.recording.footage):
            raise FootageGone("it changed after it had settled")


@dataclass(frozen=True, slots=True)
class ConformOutput:
    """What became of a recording.

    Args:
        segments: all of the recording without a gap, including what is left out.
        files: the file of each segment.
        how: in words.
    """

    segments: Sequence[Segment]
    files: Sequence[Path]
    how: str


@dataclass(frozen=True, slots=True)
class ConformResult:
    """What the intake gets back for a job.

    Args:
        footage: the file that was submitted.
        pieces: each clip with the file that holds it; empty if there was trouble.
        trouble: why there are none.
        folder: where the pieces lie; `Conformer.release` deletes it.
    """

    footage: Footage
    pieces: tuple[tuple[Clip, Path], ...]
    trouble: FootageRefused | FootageGone | SpoolFull | None
    folder: Path


class Conformer:
    """Makes clips of recordings that do not fit.

    Args:
        config: limits, what may be done, and the spool, in whose directory the segments are written.
        stop: set when the daemon is to stop.
        on_done: called with each result, in the conformer's thread. The next job waits until `release` was called for
            this one: at most one recording's segments are outside of the spool at any time.
    """

    def __init__(self, config: Config, stop: threading.Event, on_done: Callable[[ConformResult], None]) -> None:
        self._settings = ConformSettings(config.limits, config.conform, config.spool)
        self._stop = stop
        self._on_done = on_done
        self._work = config.spool.directory / WORK_DIRECTORY
        # Thread-safe: filled by the intake's thread (and by `wake` from any), emptied by the conformer's.
        self._jobs: queue.PriorityQueue[tuple[int, int, ConformJob | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._released = threading.Event()

    def submit(self, job: ConformJob) -> None:
        """Queues a job. Events go before the others. Called by the intake's thread."""
        self._jobs.put((-job.recording.priority, next(self._numbers), job))

    def release(self, result: ConformResult) -> None:
        """Deletes the segments of a result, once they are in the spool or not wanted; the next job begins.

        Called by the intake's thread.
        """
        shutil.rmtree(result.folder, ignore_errors=True)
        self._released.set()

    def wake(self) -> None:
        """Makes the thread check `stop` now. Called by any thread."""
        self._jobs.put((-1_000_000, next(self._numbers), None))
        self._released.set()

    def run(self, alive: Callable[[], None] = lambda: None) -> None:
        """Works until `stop` is set.

        Args:
            alive: called at least each minute, and each second while there is work.
        """
        # Left by an earlier run: its recordings are submitted again.
        shutil.rmtree(self._work, ignore_errors=True)
        make_directory(self._work)
        cancel = CancelToken(self._stop, alive)
        while not self._stop.is_set():
            alive()
            try:
                _, _, job = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                continue
            if job is None:
                continue
            self._released.clear()
            try:
                self._on_done(self._execute(job, cancel))
            except Cancelled:
                return
            while not self._released.wait(IDLE_SECONDS) and not self._stop.is_set():
                alive()

    def _execute(self, job: ConformJob, cancel: CancelToken) -> ConformResult:
        footage = job.recording.footage
        folder = self._work / footage.identity
        log.info("conforming", footage=str(footage.path), size_bytes=footage.size_bytes)
        try:
            folder.mkdir()
            return ConformResult(footage, tuple(conform(job, self._settings, folder, cancel)), None, folder)
        except (FootageRefused, FootageGone, SpoolFull) as exc:
            return ConformResult(footage, (), exc, folder)
        except OSError as exc:
            if exc.errno in NO_SPACE:
                return ConformResult(footage, (), SpoolFull("the disk of the spool is full"), folder)
            raise SpoolError(f"the spool's work directory cannot be used: {exc}") from exc


def conform(job: ConformJob, settings: ConformSettings, folder: Path, cancel: CancelToken) -> list[tuple[Clip, Path]]:
    """Makes the clips of one recording.

    Args:
        folder: an empty folder for the segments, on the disk of the spool.

    Returns:
        Each clip with the file that holds it: a segment in `folder`, or the footage itself if it proved intact.

    Raises:
        FootageRefused: it cannot be made to fit; the reason says why.
        FootageGone: it vanished or changed meanwhile.
        SpoolFull: there is no room for the segments now.
        Cancelled: the daemon is to stop.
    """
    path = job.recording.footage.path
    with translated_errors(path), open_footage(path) as opened:
        job.check_same(opened)
        task = ConformTask(job, settings, folder, cancel, opened)
        if clip := task.intact_clip():
            opened.check_unchanged()
            return [(clip, path)]
        output = task.run()
        notes = task.damage_notes(output.segments)
        opened.check_unchanged()
    files = [file for segment, file in zip(output.segments, output.files, strict=True) if segment.is_intact]
    return list(zip(clips_of(job.recording, output.segments, output.how, notes), files, strict=True))


class ConformTask:
    """The execution of one job; arguments as of `conform`, with the footage open."""

    def __init__(
        self, job: ConformJob, settings: ConformSettings, folder: Path, cancel: CancelToken, opened: OpenFootage
    ) -> None:
        self._recording = job.recording
        self._if_intact = job.plan.if_intact if isinstance(job.plan, Salvage) else None
        self._settings = settings
        self._folder = folder
        self._cancel = cancel
        self._opened = opened
        self._input = InputFile(opened.file.fileno(), job.recording.media.container)
        self._probed = probe_file(self._input, cancel)

        # ffprobe knows the codec better than the headers that the plan was made from.
        self._codec_plan = plan_codec(self._probed.code, settings.conform)

    def intact_clip(self) -> Clip | None:
        """The clip that the footage makes as it is, if it was only thought to be damaged and reading it all finds none.

        Raises:
            FootageRefused: there is no damage, but it cannot be delivered for another reason.
        """
        if self._if_intact is None or self._codec_plan is not None:
            return None
        gops = list(read_gops(self._input, self._probed, self._cancel))
        if not gops or not all(gop.is_intact for gop in gops):
            return None
        if isinstance(self._if_intact, Reject):
            raise self._if_intact.error
        return self._if_intact.clip

    def run(self) -> ConformOutput:
        """Cuts, repacks or re-encodes it; raises as `conform`."""
        if isinstance(self._codec_plan, Reject):
            raise self._codec_plan.error
        if self._codec_plan is None:
            try:
                return self._cut(self._input, self._probed)
            except GopTooLarge:
                if not self._settings.conform.reencode:
                    raise
        return self._reencode()

    def damage_notes(self, segments: Sequence[Segment]) -> list[str]:
        """What damage did to the recording, in words."""
        notes = [
            f"from second {segment.start_seconds:,.0f} to {segment.end_seconds:,.0f} it held zeros instead of "
            "pictures, which were left out: power was lost before they were on the card"
            for segment in segments
            if not segment.is_intact
        ]
        saved, meant = segments[-1].end_seconds, self._probed.duration_seconds
        if meant - saved > max(1.0, 0.02 * meant):
            notes.append(f"{damage.CUT}: {saved:,.0f} of {meant:,.0f} s could be saved")
        elif not self._recording.media.is_whole or damage.is_cut_short(self._opened.file, self._input.container):
            notes.append(f"{damage.CUT}: its last moments are missing")
        return notes

    def _cut(self, source: InputFile, probed: ProbeResult) -> ConformOutput:
        """Cuts the footage, or what was encoded from it."""
        self._check_room()
        limits, margin = self._settings.limits, MARGIN
        for _ in range(MAX_ATTEMPTS):
            segments = plan_segments(read_gops(source, probed, self._cancel), limits, margin)
            if not any(segment.is_intact for segment in segments):
                raise FootageRefused(damage.diagnose_without_frames(bool(segments)))
            if segments[-1].end_seconds > MAX_DURATION_SECONDS:
                raise FootageRefused("its pictures claim to last over a month: the file is damaged")
            keep_audio = self._settings.conform.audio == "keep"
            try:
                files = cut(
                    source, probed, segments, self._folder, keep_audio=keep_audio, limits=limits, cancel=self._cancel
                )
            except SegmentTooLarge as exc:
                log.debug("piece_too_large", footage=str(self._recording.footage.path), reason=str(exc))
                margin *= SMALLER_AIM
                continue
            how = "cut without encoding" if len(segments) > 1 else "repacked without encoding"
            return ConformOutput(segments, files, how)
        raise FootageRefused("ffmpeg makes its pieces larger than they should be, even with smaller aims")

    def _reencode(self) -> ConformOutput:
        self._check_room(copies=2)
        whole = self._folder / "whole.mp4"
        reencode(self._input, self._probed, whole, self._cancel)
        with whole.open("rb") as file:
            source = InputFile(file.fileno(), MP4)
            output = self._cut(source, probe_file(source, self._cancel))
        whole.unlink()
        return replace(output, how="re-encoded as H.264")

    def _check_room(self, *, copies: int = 1) -> None:
        """Raises SpoolFull, or FootageRefused if there will never be room."""
        footage, spool = self._recording.footage, self._settings.spool
        if footage.size_bytes > spool.max_bytes:
            raise FootageRefused(
                f"it has {footage.size_bytes:,} bytes, and so would its pieces, but the spool may hold only "
                f"{spool.max_bytes:,} (spool.max_bytes): raise that, or set a shorter loop in the camera"
            )
        free = shutil.disk_usage(self._folder).free - spool.min_free_bytes
        if footage.size_bytes * copies > free:
            raise SpoolFull(
                f"no room to cut {footage.path.name}: that needs {footage.size_bytes * copies:,} bytes beside it on "
                f"the disk of the spool, and {max(0, free):,} are free above spool.min_free_bytes"
            )
