"""One row of the spool as a value, its form on disk (JSON: it must survive a change of code), and its footage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from agent.model import NORMAL_PRIORITY, Clip, ClipKey, Footage, State, UntrustedClock, Upload, Verdict

HISTORY_LENGTH = 12

_Value = TypeVar("_Value")


class RowUnreadable(ValueError):
    """A row is damaged: it cannot be delivered, and must not stop the others."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the history of a clip, for `why`."""

    at: datetime
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The file in the spool that holds a clip's bytes, as it was when it was stored.

    Args:
        sample: hash of both ends of the file, 32 hexadecimal digits: distinguishes a duplicate from another recording
            that claims the same time.
    """

    name: str
    size_bytes: int
    modified_ns: int
    sample: str


@dataclass(frozen=True, slots=True)
class Record:
    """All that the spool knows of one clip, or of footage that was refused before it became one.

    Args:
        key: None for footage that was refused before its registration, camera and time were known.
        stored: None for footage that was refused before it was stored.
        clock: set while it is HELD because this device's clock is not trusted yet; see `Clip.clock`.
        due: Unix seconds of the next attempt or check (WAITING, HELD, ACCEPTED, REFUSED), or of the delivery; 0: none.
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
        """This record with a verdict written into it."""
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
        """The history with one more step. It keeps the first and the latest steps, and repetitions once."""
        history = self.history
        if not history or (history[-1].state, history[-1].reason) != (state, reason):
            history = (*history, Change(at, state, reason))
        if len(history) > HISTORY_LENGTH:
            history = (history[0], *history[-HISTORY_LENGTH + 1 :])
        return history

    def relocated(self, clip: Clip, at: datetime) -> Record:
        """This record after its recording was found as other footage: moved or locked by the recorder.

        From now on that is its footage, since the old path may be gone. What has become an event gets its priority.
        The name of the stored file keeps the old priority; if the row is lost, the footage is found again.
        """
        what = f"found again as {clip.footage.path}"
        is_raised = clip.priority > self.priority
        if is_raised and self.state not in (State.DELIVERED, State.LOST):
            what += ", which marks an event: it goes first now"
        moved = replace(self.changed(self.state, what, at), reason=self.reason, footage=clip.footage)
        if not is_raised:
            return moved
        return replace(
            moved,
            priority=clip.priority,
            comments=clip.comments or self.comments,
            sources={**self.sources, "event": clip.sources.get("event", "")},
        )

    def upload(self, clips_directory: Path) -> Upload:
        """What the delivery needs of this clip.

        Raises:
            RowUnreadable: the row has no key or no stored file, so there is nothing that could be sent.
        """
        if self.key is None or self.stored is None:
            raise RowUnreadable("the row has no key or no stored file")
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


def key_text(key: ClipKey) -> str:
    """The column by which the queue finds clips that the API could not tell apart."""
    return "|".join((key.registration, str(key.camera), _instant(key.start), _instant(key.end)))


# Written only where they are set: the name in the row's JSON, which never changes, and the record's attribute.
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
    """The part of a record that has no column of its own, for persist-queue's JSON serializer.

    A path that is not valid text (file names on Linux need not be) keeps its bytes as escaped surrogates.
    """
    row: dict[str, Any] = {
        "path": str(record.footage.path),
        "size": record.footage.size_bytes,
        "modified_ns": record.footage.modified_ns,
        "reason": record.reason,
        "history": [[_instant(c.at), c.state.value, c.reason] for c in record.history],
    }
    if record.key is not None:
        key = record.key
        row["video"] = [key.registration, key.camera, _instant(key.start), _instant(key.end)]
    if record.stored is not None:
        stored = record.stored
        row["stored"] = [stored.name, stored.size_bytes, stored.modified_ns, stored.sample]
    if record.clock is not None:
        row["clock"] = [record.clock.boot_id, record.clock.boot_time, record.clock.lag_seconds]
    if record.pieces > 1:
        row["pieces"] = record.pieces
    row |= {name: value for name, attribute in _OPTIONAL.items() if (value := getattr(record, attribute))}
    return row


def from_json(id: int, state: State, due: float, priority: int, row: Any) -> Record:
    """The record of a row that `to_json` wrote.

    Raises:
        RowUnreadable: the row has another form: it is damaged, or something else wrote it.
    """
    try:
        key, stored, clock = row.get("video"), row.get("stored"), row.get("clock")
        return Record(
            id=id,
            state=state,
            footage=Footage(Path(row["path"]), int(row["size"]), int(row["modified_ns"])),
            key=ClipKey(str(key[0]), int(key[1]), _moment(key[2]), _moment(key[3])) if key else None,
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


def is_there(footage: Footage) -> bool:
    """Whether the file still exists as it was."""
    try:
        stat = footage.path.lstat()
    except (OSError, ValueError):  # ValueError: a damaged row can contain a path with a NUL byte
        return False
    return Footage.from_stat(footage.path, stat) == footage


def can_be_taken_again(record: Record) -> bool:
    """Whether a scan takes in a clip again once its row is deleted. It would not miss one piece of several."""
    # The footage of an adopted clip is unknown: its stored file stands for it, and is all that there is.
    is_adopted = record.stored is not None and record.footage.path.name == record.stored.name
    return record.pieces == 1 and not is_adopted and is_there(record.footage)


def is_gone(footage: Footage, folders: Sequence[Path]) -> bool:
    """Whether no scan can find the footage any more.

    Args:
        folders: those that are scanned and had footage lately. A card that is not plugged in leaves its folder missing
            or empty: what belongs there, or to no folder at all, is out of reach and not gone.
    """
    place = next((folder for folder in folders if folder in footage.path.parents), None)
    return place is not None and place.is_dir() and not is_there(footage)


def _file_name(name: object) -> str:
    """Raises ValueError if it leads out of the directory of clips: other files would be sent and removed."""
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
