"""The output of `inspect`: all values of one file, a summary of many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from agent.cli.render import console, size
from agent.config import FootageFolder
from agent.device.logs import sanitize
from agent.intake.dry_run import NO_REGISTRATION, Finding
from agent.intake.identify.presets import EventTag
from agent.intake.identify.recording import Recording
from agent.intake.identify.recording_time import utc_offset_mismatch
from agent.intake.planning import codec_name
from agent.model import Clip

if TYPE_CHECKING:
    from rich.table import Table

NOT_SET = "not set: --registration, or registration in [vehicle]"


def show_one(finding: Finding, zone: ZoneInfo) -> None:
    """Shows all values of one file with their sources."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(Text(sanitize(str(finding.path)), style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for label, value, source in _rows(finding, zone):
        table.add_row(label, Text(sanitize(value)), Text(sanitize(source)))
    screen.print(table)
    if finding.clips:
        screen.print(f"[green]It would be delivered[/] as {_as_clips(finding.clips)}")
    else:
        screen.print(
            Text("It would not be delivered: ", style="red").append(sanitize(finding.refusal), style="default")
        )


def _as_clips(clips: Sequence[Clip]) -> str:
    if "piece" not in clips[0].sources:
        return "one clip: the file as it is."
    how = clips[0].sources["piece"].rpartition(", ")[2]
    if len(clips) == 1:
        return f"one clip, repacked {how}."
    lines = [f"  {_instant(clip.key.start)}, {clip.key.duration_seconds} s" for clip in clips]
    return "\n".join((f"{len(clips)} clips, cut {how}:", *lines))


def _rows(finding: Finding, zone: ZoneInfo) -> Iterator[tuple[str, str, str]]:
    """Label, value and source of each known value."""
    naming, media, recording = finding.naming, finding.media, finding.recording
    preset = naming.preset
    yield "preset", f"{preset.name} ({preset.family})" if preset else "none knows this name", ""
    sources = recording.sources if recording else naming.sources
    if recording:
        known = recording.registration != NO_REGISTRATION
        yield "registration", *((recording.registration, sources["registration"]) if known else ("–", NOT_SET))
        yield "camera", str(recording.camera), sources["camera"]
        yield "start", _instant(recording.start), sources["start"]
        shown = f"{recording.start.astimezone(zone):%Y-%m-%d %H:%M:%S} {zone.key}"
        yield "", shown, "footage.timezone, or --timezone: the zone of the camera's clock"
        if ahead := _offset_mismatch(finding):
            yield "doubt", _offset_text(ahead), "date in the file, UTC"
    else:
        if naming.camera is not None:
            yield "camera", str(naming.camera), sources["camera"]
        if naming.start is not None:
            yield "start", f"{naming.start:%Y-%m-%d %H:%M:%S}", f"{sources['start']}, by the camera's clock"
    for clip in finding.clips[-1:]:
        yield "end", _instant(clip.key.end), clip.sources["end"]
    if naming.event:
        yield "event", _tag_text(naming.event), naming.sources["event"]
    if media:
        yield "duration", f"{media.duration_seconds:,.1f} s", ""
        codec = "no video" if media.codec is None else codec_name(media.codec)
        yield "video", f"{codec} in {media.container}", ""
    yield "size", size(finding.size_bytes), ""


def _tag_text(tag: EventTag) -> str:
    return f"{tag.word}: delivered first" if tag.high_priority else tag.word


@dataclass(slots=True)
class _Group:
    """The deliverable files of one preset and camera."""

    files: int = 0
    seconds: float = 0.0
    size_bytes: int = 0
    first: datetime | None = None
    last: datetime | None = None
    tags: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        self.files += 1
        self.size_bytes += finding.size_bytes
        for clip in finding.clips:
            self.seconds += clip.key.duration_seconds
            self.first = min(self.first or clip.key.start, clip.key.start)
            self.last = max(self.last or clip.key.end, clip.key.end)
        if finding.recording and finding.recording.event:
            self.tags[finding.recording.event.word] += 1


def show_summary(
    findings: Sequence[Finding], others: Counter[str], folders: Collection[FootageFolder], seconds: float
) -> None:
    """Shows what would be delivered, by preset and camera, and what would not, by reason."""
    from rich.text import Text

    screen = console()
    good = [finding for finding in findings if finding.clips]
    refused = [finding for finding in findings if not finding.clips]
    recordings = [finding.recording for finding in good if finding.recording]
    registrations = {recording.registration for recording in recordings}
    if good:
        screen.print(_table_of_good(good, with_vehicle=len(registrations) > 1))
    if refused:
        screen.print(_table_of_refused(refused))

    def say(text: str, style: str = "dim") -> None:
        screen.print(Text(text, style=style))

    if len(registrations) == 1 and NO_REGISTRATION not in registrations:
        say(f"Vehicle: {registrations.pop()}.")
    elif NO_REGISTRATION in registrations:
        say(f"The registration is {NOT_SET}.", style="yellow")
    zones = ", ".join(sorted({folder.timezone.key for folder in folders}))
    say(f"The camera's clock is taken to run in {zones}.")
    for ahead, count in Counter(filter(None, map(_offset_mismatch, good))).most_common(1):
        say(f"The dates in {count:,} files say otherwise: {_offset_text(ahead)}.", style="yellow")
    for source, count in _start_sources(recordings).items():
        say(f"Start of {count:,} by: {source}.")
    if others:
        say(f"Passed over: {', '.join(f'{count:,} {sanitize(kind)}' for kind, count in others.most_common(8))}.")
    clips = sum(len(finding.clips) for finding in good)
    total = size(sum(finding.size_bytes for finding in good))
    screen.print(
        f"\n[bold]{len(findings):,} files[/] in {seconds:.1f} s: [green]{len(good):,} would be delivered[/]"
        f" as {clips:,} clips, {total}; [{'red' if refused else 'dim'}]{len(refused):,} would be refused[/]."
    )


def _offset_mismatch(finding: Finding) -> timedelta | None:
    recording, preset = finding.recording, finding.naming.preset
    return utc_offset_mismatch(recording.start, recording.media, preset.created) if recording and preset else None


def _offset_text(ahead: timedelta) -> str:
    side = "ahead of" if ahead > timedelta(0) else "behind"
    return f"the camera's clock is {_length(abs(ahead).total_seconds())[:-3]} h {side} that zone"


def _start_sources(recordings: Iterable[Recording]) -> dict[str, int]:
    """How many starts come from another source than the name, by source."""
    sources = Counter(recording.sources["start"].partition(";")[0] for recording in recordings)
    return {source: count for source, count in sources.items() if not source.startswith("file name")}


def _table_of_good(findings: Iterable[Finding], *, with_vehicle: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    groups: dict[tuple[str, str, int], _Group] = {}
    for finding in findings:
        recording = finding.recording
        if recording is not None:
            key = (recording.preset or "–", recording.registration if with_vehicle else "", recording.camera)
            groups.setdefault(key, _Group()).add(finding)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("preset", no_wrap=True)
    if with_vehicle:
        table.add_column("vehicle", no_wrap=True)
    for name in ("cam", "files", "length", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from … to (UTC)", no_wrap=True)
    table.add_column("marked", overflow="fold")
    for (preset, registration, camera), group in sorted(groups.items()):
        table.add_row(
            preset,
            *((registration,) if with_vehicle else ()),
            str(camera),
            f"{group.files:,}",
            _length(group.seconds),
            size(group.size_bytes),
            f"{group.first:%Y-%m-%d %H:%M}\n{group.last:%Y-%m-%d %H:%M}",
            Text("\n".join(f"{count:,} {sanitize(word)}" for word, count in group.tags.most_common())),
        )
    return table


def _table_of_refused(findings: Iterable[Finding]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((_preset(finding), _without_details(finding)), []).append(finding)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("preset", no_wrap=True)
    table.add_column("files", justify="right", no_wrap=True)
    table.add_column("would be refused because", overflow="fold", ratio=3)
    table.add_column("for example", overflow="fold", ratio=1)
    for (preset, _), alike in sorted(groups.items(), key=lambda group: -len(group[1])):
        example = alike[0]
        table.add_row(
            preset,
            Text(f"{len(alike):,}", style="red"),
            Text(sanitize(example.refusal)),
            Text(sanitize(example.path.name), style="dim"),
        )
    return table


def _preset(finding: Finding) -> str:
    return finding.naming.preset.name if finding.naming.preset else "–"


def _without_details(finding: Finding) -> str:
    """The refusal without numbers and file names, so that alike refusals are counted together."""
    without_name = finding.refusal.replace(finding.path.name, "NAME")
    return re.sub(r"\d[\d,.]*", "#", without_name)


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}"
