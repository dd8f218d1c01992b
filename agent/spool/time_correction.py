"""Clips that are held for their time: what becomes of them once this device's clock is trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from agent.device.clock import ClockReading
from agent.model import Clip, ClipKey, State, UntrustedClock
from agent.spool.clip_queue import ClipQueue
from agent.spool.duplicates import resolve_conflict, same_recording
from agent.spool.files import ClipFiles, read_name
from agent.spool.records import Record, video_key

# Why a clip with these times cannot be right, in a technician's words; None if it can.
Doubt = Callable[[ClipKey], "str | None"]

WAITS_FOR_THE_CLOCK = (
    "clock not yet trusted: it is delivered, with its time put right if need be, as soon as this device's clock is set "
    "(NTP); or at once with the time as it stands: vision-ingest retry CLIP"
)
BOOT_ENDED = (
    "recorded while this device's clock was not set, and the device was switched off before it was, so nothing can "
    "tell by how much its time is wrong. To deliver it with the time as it stands: vision-ingest retry CLIP"
)


class TimeCorrection:
    """Carries out what is decided. The name of a stored file says the clip's times too: the file is renamed first, its
    row written second, and `finish` does the latter if the power went in between.

    Args:
        queue: the rows.
        files: the stored files.
    """

    def __init__(self, queue: ClipQueue, files: ClipFiles) -> None:
        self._queue = queue
        self._files = files

    def run(self, clock: ClockReading, doubt: Doubt, at: datetime) -> list[Record]:
        """Decides as far as the clock allows now; see `judged`.

        Returns:
            The clips that have changed.
        """
        changed = []
        for record in self._queue.ledger.untimed():
            now = judged(record, clock, doubt, at)
            if now != record:
                changed += self._settle(now, at)
        return changed

    def finish(self, at: datetime) -> None:
        """Catches up rows whose stored file had been renamed when the power went."""
        behind = {}
        for record in self._queue.ledger.untimed():
            if record.stored is not None and not self._files.has(record.stored.name):
                said = read_name(record.stored.name)
                if said is not None:
                    behind[said.identity, said.piece] = record
        for name in self._files.names() if behind else ():
            said = read_name(name)
            if said is not None and said.clock is None and (said.identity, said.piece) in behind:
                record = replace(behind[said.identity, said.piece], key=said.key, clock=None)
                self._settle(record.changed(State.WAITING, "its time had been put right when the power went", at), at)

    def _settle(self, record: Record, at: datetime) -> list[Record]:
        """Writes what was decided; a time that is known now may turn out to be that of another clip.

        Returns:
            The clip, unless someone else decided about it meanwhile, or the spool has the same recording already.
        """
        stored, video = record.stored, record.key
        said = read_name(stored.name) if stored else None
        if record.clock is not None or stored is None or video is None or said is None or record.state is State.REFUSED:
            # What is refused for its time keeps its name: that of a clip whose time is right says «deliver me».
            return [record] if self._queue.decide_untimed(record, lambda: None) else []
        name = replace(said, key=video, clock=None).text
        twins = [twin for twin in self._queue.ledger.of_video(video_key(video)) if twin.id != record.id]
        same = same_recording(twins, stored)
        if same is not None:
            self._queue.note_sighting(said.identity, same.id)
            self._queue.note_sighting(video_key(said.key), same.id)
            self._queue.forget(record.id)
            self._files.remove(stored.name)
            self._files.remove(name)
            return []
        state, reason = resolve_conflict(record.footage, twins)
        if state is State.REFUSED:
            record = record.changed(state, reason, at)
        record = replace(record, stored=replace(stored, name=name))
        done = self._queue.decide_untimed(
            record, lambda: self._files.rename(stored.name, name), named=video_key(said.key)
        )
        return [record] if done else []


def moved(video: ClipKey, seconds: int) -> ClipKey:
    """The same video so many seconds later."""
    by = timedelta(seconds=seconds)
    return replace(video, start=video.start + by, end=video.end + by)


def correct_clip(clip: Clip, clock: UntrustedClock, seconds: int) -> Clip:
    """A clip whose time was off by so many seconds, with the story of it for `why`."""
    sources = _told(clip.sources, clip.key, clock, seconds)
    return replace(clip, key=moved(clip.key, seconds), sources=sources, original_key=clip.key)


def judged(record: Record, now: ClockReading, doubt: Doubt, at: datetime) -> Record:
    """What becomes of a clip that is held for its time.

    Args:
        now: this device's clock.
        doubt: judges times by a clock that is trusted.
        at: the time of the change, for the clip's history.

    Returns:
        WAITING or REFUSED once its times are decided; else HELD, with the reason as it is now.
    """
    clock, video = record.clock, record.key
    if clock is None or video is None:
        return record
    same_boot = clock.boot_id == now.boot_id
    if clock.is_time_source and not same_boot:
        return record.changed(State.HELD, BOOT_ENDED, at)
    if not now.trusted:
        return record
    seconds = clock.offset_seconds(now.boot_began) if same_boot else 0
    timed = moved(video, seconds)
    sources = _told(record.sources, video, clock, seconds) if seconds else record.sources
    decided = replace(record, key=timed, sources=sources, clock=None)
    reason = doubt(timed)
    if reason is not None:
        return decided.changed(State.REFUSED, f"{reason}. To deliver it all the same: vision-ingest retry CLIP", at)
    words = f"its time put right by {signed(seconds)}" if seconds else "its time was right"
    return decided.changed(State.WAITING, f"this device's clock is trusted now: {words}", at)


def signed(seconds: int) -> str:
    """Such as "+205 days, 3:04:05" or "-0:00:10"."""
    return f"{'-' if seconds < 0 else '+'}{timedelta(seconds=abs(seconds))}"


def _told(sources: Mapping[str, str], video: ClipKey, clock: UntrustedClock, seconds: int) -> dict[str, str]:
    known = dict(sources)
    start = known.get("start", "the name of the stored file")
    booted = datetime.fromtimestamp(clock.boot_began, tz=timezone.utc)
    known["start"] = (
        f"{start}, {video.start:%Y-%m-%d %H:%M:%S} UTC by this device's clock before it was set; moved by "
        f"{signed(seconds)}, as much as that was off by: by it the device had booted at {booted:%Y-%m-%d %H:%M:%S} UTC"
    )
    return known
