"""Clips that wait for this device's clock: what becomes of them once it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from agent.device.clock import ClockReading
from agent.model import Clip, ClipKey, State, UntrustedClock
from agent.spool.clip_queue import ClipQueue
from agent.spool.duplicates import resolve_conflict, same_recording
from agent.spool.files import ClipFiles, read_name
from agent.spool.records import Record, key_text

# Why a clip with these times cannot be right, as a sentence for a technician; None if it can.
TimeCheck = Callable[[ClipKey], "str | None"]

WAITS_FOR_THE_CLOCK = (
    "clock not yet trusted: it is delivered, with its time corrected if need be, as soon as this device's clock is set "
    "(NTP); or at once with the time as it stands: vision-ingest retry CLIP"
)
BOOT_ENDED = (
    "recorded while this device's clock was not set, and the device was switched off before it was, so nothing can "
    "tell by how much its time is wrong. To deliver it with the time as it stands: vision-ingest retry CLIP"
)


class TimeCorrection:
    """Decides about the clips that wait for the clock, and renames their stored files.

    A stored file's name contains the clip's times. The file is renamed first and its row written second; if the power
    goes in between, `finish` writes the row.

    Args:
        queue: the rows.
        files: the stored files.
    """

    def __init__(self, queue: ClipQueue, files: ClipFiles) -> None:
        self._queue = queue
        self._files = files

    def run(self, clock: ClockReading, check: TimeCheck) -> list[Record]:
        """Decides as far as the clock allows now; see `decide`.

        Returns:
            The clips that have changed.
        """
        changed = []
        for record in self._queue.ledger.awaiting_clock():
            decided = decide(record, clock, check, self._queue.utc())
            if decided != record:
                changed += self._settle(decided)
        return changed

    def finish(self) -> None:
        """Completes the rows of files that had been renamed when the power went."""
        behind = {}
        for record in self._queue.ledger.awaiting_clock():
            if record.stored is not None and not self._files.has(record.stored.name):
                named = read_name(record.stored.name)
                if named is not None:
                    behind[named.identity, named.piece] = record
        for name in self._files.names() if behind else ():
            named = read_name(name)
            if named is not None and named.clock is None and (named.identity, named.piece) in behind:
                record = replace(behind[named.identity, named.piece], key=named.key, clock=None)
                reason = "its time had been corrected when the power went"
                self._settle(record.changed(State.WAITING, reason, self._queue.utc()))

    def _settle(self, record: Record) -> list[Record]:
        """Writes a decision. With its time known, a clip may turn out to be a duplicate of another one.

        Returns:
            The clip, unless someone else decided about it meanwhile, or the spool has the same recording already.
        """
        stored, key = record.stored, record.key
        named = read_name(stored.name) if stored else None
        if record.clock is not None or stored is None or key is None or named is None or record.state is State.REFUSED:
            # What is refused for its time keeps its name: a name without a clock would be delivered by recovery.
            return [record] if self._queue.resolve_awaiting_clock(record, lambda: None) else []
        name = replace(named, key=key, clock=None).text
        others = [other for other in self._queue.ledger.with_key(key_text(key)) if other.id != record.id]
        same = same_recording(others, stored)
        if same is not None:
            self._queue.replace_by_alias(record.id, same.id, named.identity, key_text(named.key))
            self._files.remove(stored.name)
            self._files.remove(name)
            return []
        state, reason = resolve_conflict(record.footage, others)
        if state is State.REFUSED:
            record = record.changed(state, reason, self._queue.utc())
        record = replace(record, stored=replace(stored, name=name))
        done = self._queue.resolve_awaiting_clock(
            record, lambda: self._files.rename(stored.name, name), original_key=key_text(named.key)
        )
        return [record] if done else []


def shifted(key: ClipKey, seconds: int) -> ClipKey:
    """The same clip so many seconds later."""
    by = timedelta(seconds=seconds)
    return replace(key, start=key.start + by, end=key.end + by)


def correct_clip(clip: Clip, clock: UntrustedClock, seconds: int) -> Clip:
    """A clip whose time was wrong by so many seconds, with the correction explained for `why`."""
    sources = _explained(clip.sources, clip.key, clock, seconds)
    return replace(clip, key=shifted(clip.key, seconds), sources=sources, original_key=clip.key)


def decide(record: Record, now: ClockReading, check: TimeCheck, at: datetime) -> Record:
    """What becomes of a clip that waits for the clock.

    Args:
        now: this device's clock.
        check: judges times by a clock that is trusted.
        at: the time of the change, for the clip's history.

    Returns:
        WAITING or REFUSED once its times are decided; else HELD, with the reason as it is now.
    """
    clock, key = record.clock, record.key
    if clock is None or key is None:
        return record
    same_boot = clock.boot_id == now.boot_id
    if clock.is_time_source and not same_boot:
        return record.changed(State.HELD, BOOT_ENDED, at)
    if not now.trusted:
        return record
    seconds = clock.offset_seconds(now.boot_time) if same_boot else 0
    corrected = shifted(key, seconds)
    sources = _explained(record.sources, key, clock, seconds) if seconds else record.sources
    decided = replace(record, key=corrected, sources=sources, clock=None)
    reason = check(corrected)
    if reason is not None:
        return decided.changed(State.REFUSED, f"{reason}. To deliver it all the same: vision-ingest retry CLIP", at)
    what = f"its time corrected by {signed(seconds)}" if seconds else "its time was right"
    return decided.changed(State.WAITING, f"this device's clock is trusted now: {what}", at)


def signed(seconds: int) -> str:
    """Such as "+205 days, 3:04:05" or "-0:00:10"."""
    return f"{'-' if seconds < 0 else '+'}{timedelta(seconds=abs(seconds))}"


def _explained(sources: Mapping[str, str], key: ClipKey, clock: UntrustedClock, seconds: int) -> dict[str, str]:
    start = sources.get("start", "the name of the stored file")
    booted = datetime.fromtimestamp(clock.boot_time, tz=timezone.utc)
    return {
        **sources,
        "start": f"{start}, {key.start:%Y-%m-%d %H:%M:%S} UTC by this device's clock before it was set; moved by "
        f"{signed(seconds)}, the error of that clock: by it the device had booted at {booted:%Y-%m-%d %H:%M:%S} UTC",
    }
