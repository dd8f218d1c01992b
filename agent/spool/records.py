"""One row of the spool as a value, and its form on disk (JSON, never pickle: a row must survive a change of code)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from agent.model import NORMAL_PRIORITY, Clip, ClipKey, Footage, State, UntrustedClock, Upload, Verdict

HISTORY_LENGTH = 12

_Value = TypeVar("_Value")


class RowUnreadable(ValueError):
    """The JSON of a row is damaged: the row cannot be delivered, and must not stop the others."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the life of a clip, for `why`."""

    at: datetime
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The file in the spool that holds a clip's bytes, as it was when it was stored.

    Args:
        sample: 32 hexadecimal digits over both ends of the file: tells the same recording from another one that
            claims the same time.
    """

    name: str
    size_bytes: int
    modified_ns: int
    sample: str


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that the spool knows of one clip, or of footage that was refused before it became one.

    Args:
        video: None for footage that was refused before its registration, camera and time were known.
        stored: None for footage that was refused before it was stored.
        clock: set while it is HELD because this device's clock is not trusted yet; see `Clip.clock`.
        due: Unix seconds of the next look (WAITING, HELD, ACCEPTED, REFUSED), or of the delivery; 0 for none.
    """

    id: int
    state: State
    footage: Footage
    key: ClipKey | None
    stored: Stored | None
    reason: str = ""
    due: float = 0.0
    priority: int = NORMAL_PRIORITY
    comments: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    piece: int = 0
    pieces: int = 1
    attempts: int = 0
    batch_failures: int = 0
    max_batch_clips: int | None = None
    request_id: str | None = None
    history: tuple[Change, ...] = ()
    clock: UntrustedClock | None = None

    @classmethod
    def of_clip(cls, clip: Clip, stored: Stored, state: State, reason: str, at: datetime) -> Record:
        return cls(
            id=0,
            state=state,
            footage=clip.footage,
            key=clip.key,
            stored=stored,
            reason=reason,
            priority=clip.priority,
            comments=clip.comments,
            sources=dict(clip.sources),
            piece=clip.piece,
            pieces=clip.pieces,
            history=(Change(at, state, reason),),
            clock=clip.clock,
        )

    def after(self, verdict: Verdict, at: datetime, due: float) -> Record:
        """This record once the verdict is carried out."""
        return replace(
            self,
            state=verdict.state,
            reason=verdict.reason,
            history=self._history(verdict.state, verdict.reason, at),
            due=due,
            attempts=verdict.attempts,
            batch_failures=verdict.batch_failures,
            max_batch_clips=verdict.max_batch_clips,
            request_id=verdict.request_id or self.request_id,
        )

    def changed(self, state: State, reason: str, at: datetime) -> Record:
        """This record in another state."""
        return replace(self, state=state, reason=reason, history=self._history(state, reason, at))

    def _history(self, state: State, reason: str, at: datetime) -> tuple[Change, ...]:
        """The history with one more step. The first and the latest ones are remembered, repetitions once."""
        history = self.history
        if not history or (history[-1].state, history[-1].reason) != (state, reason):
            history = (*history, Change(at, state, reason))
        if len(history) > HISTORY_LENGTH:
            history = (history[0], *history[-HISTORY_LENGTH + 1 :])
        return history

    def relocated(self, clip: Clip, at: datetime) -> Record:
        """This record once its recording was found as other footage, moved or locked by the recorder.

        From then on that is its footage: where it was before, nothing may be left of it. What has become an event goes
        first. The name of the stored file keeps the old priority; if the row is lost, the footage is found once more.
        """
        what = f"found again as {clip.footage.path}"
        urgent = clip.priority > self.priority
        if urgent and self.state not in (State.DELIVERED, State.LOST):
            what += ", which marks an event: it goes first now"
        noted = self.changed(self.state, what, at)
        seen = replace(noted, reason=self.reason, footage=clip.footage)
        if not urgent:
            return seen
        return replace(
            seen,
            priority=clip.priority,
            comments=clip.comments or self.comments,
            sources={**self.sources, "event": clip.sources.get("event", "")},
        )

    def upload(self, clips_directory: Path) -> Upload:
        """This clip on its way.

        Raises:
            RowUnreadable: the row has no video or no stored file, so there is nothing that could be sent.
        """
        if self.key is None or self.stored is None:
            raise RowUnreadable("the row names no video or no stored file")
        return Upload(
            id=self.id,
            key=self.key,
            comments=self.comments,
            file=clips_directory / self.stored.name,
            size_bytes=self.stored.size_bytes,
            modified_ns=self.stored.modified_ns,
            attempts=self.attempts,
            batch_failures=self.batch_failures,
            max_batch_clips=self.max_batch_clips,
        )


def video_key(video: ClipKey) -> str:
    """The text by which the queue finds clips that the API could not tell apart."""
    return "|".join((video.registration, str(video.camera), _instant(video.start), _instant(video.end)))


# Written only where they are set: the name in the row's JSON, and the record's attribute. Rows keep the names of the
# first version that wrote them.
_OPTIONAL = {
    "comments": "comments",
    "sources": "sources",
    "piece": "piece",
    "attempts": "attempts",
    "strikes": "batch_failures",
    "companions": "max_batch_clips",
    "request_id": "request_id",
}


def to_json(record: Record) -> dict[str, Any]:
    """The part of a record that has no column of its own, as persist-queue's JSON serializer takes it.

    A path that is not text (file names on Linux need not be) keeps its odd bytes as JSON's escaped surrogates.
    """
    row: dict[str, Any] = {
        "path": str(record.footage.path),
        "size": record.footage.size_bytes,
        "modified_ns": record.footage.modified_ns,
        "reason": record.reason,
        "history": [[_instant(c.at), c.state.value, c.reason] for c in record.history],
    }
    if record.key is not None:
        video = record.key
        row["video"] = [video.registration, video.camera, _instant(video.start), _instant(video.end)]
    if record.stored is not None:
        stored = record.stored
        row["stored"] = [stored.name, stored.size_bytes, stored.modified_ns, stored.sample]
    if record.clock is not None:
        row["clock"] = [record.clock.boot_id, record.clock.boot_began, record.clock.lag_seconds]
    if record.pieces > 1:
        row["pieces"] = record.pieces
    row |= {name: value for name, attribute in _OPTIONAL.items() if (value := getattr(record, attribute))}
    return row


def from_json(id: int, state: State, due: float, priority: int, row: Any) -> Record:
    """The record of a row that `to_json` wrote.

    Raises:
        RowUnreadable: the row is not of that form: damaged, or written by something else.
    """
    try:
        video, stored, clock = row.get("video"), row.get("stored"), row.get("clock")
        return Record(
            id=id,
            state=state,
            footage=Footage(Path(row["path"]), int(row["size"]), int(row["modified_ns"])),
            key=ClipKey(str(video[0]), int(video[1]), _moment(video[2]), _moment(video[3])) if video else None,
            stored=Stored(_file_name(stored[0]), int(stored[1]), int(stored[2]), str(stored[3])) if stored else None,
            reason=str(row["reason"]),
            due=due,
            priority=priority,
            comments=str(row.get("comments", "")),
            sources={str(k): str(v) for k, v in row.get("sources", {}).items()},
            piece=int(row.get("piece", 0)),
            pieces=int(row.get("pieces", 1)),
            attempts=int(row.get("attempts", 0)),
            batch_failures=int(row.get("strikes", 0)),
            max_batch_clips=_optional(int, row.get("companions")),
            request_id=_optional(str, row.get("request_id")),
            history=tuple(Change(_moment(at), State(name), str(why)) for at, name, why in row["history"]),
            clock=UntrustedClock(str(clock[0]), int(clock[1]), int(clock[2])) if clock else None,
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as exc:
        raise RowUnreadable(f"{type(exc).__name__}: {exc}") from exc


def _file_name(name: object) -> str:
    """Raises ValueError: it leads out of the directory of clips, where other files would be sent and removed."""
    text = str(name)
    if "/" in text or "\0" in text or text in ("", ".", ".."):
        raise ValueError(f"{text!r} is not the name of a stored file")
    return text


def _optional(kind: Callable[[Any], _Value], value: Any) -> _Value | None:
    return None if value is None else kind(value)


def _instant(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _moment(text: str) -> datetime:
    # strptime would take most of the time of a claim.
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is no instant")
    return datetime.fromisoformat(f"{text[:-1]}+00:00")
