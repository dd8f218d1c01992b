"""Shared output of the commands: clips as a table or JSON, sizes. `rich` is imported only where a table is shown."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from agent.device.logs import sanitize
from agent.model import State
from agent.spool.records import Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {
    State.WAITING: "cyan",
    State.SENDING: "blue",
    State.ACCEPTED: "blue",
    State.DELIVERED: "green",
    State.REFUSED: "red",
    State.HELD: "yellow",
    State.LOST: "magenta",
}


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False, emoji=False)


def clip_table(records: Iterable[Record]) -> Table:
    """A table with one row for each clip."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("clip", justify="right")
    table.add_column("footage", overflow="fold")
    table.add_column("vehicle")
    table.add_column("cam", justify="right")
    table.add_column("start (UTC)")
    table.add_column("s", justify="right")
    table.add_column("state")
    table.add_column("why", overflow="fold", ratio=1)
    for record in records:
        video = record.key
        table.add_row(
            str(record.id),
            Text(sanitize(record.footage.path.name)),
            Text(video.registration if video else "–"),
            str(video.camera) if video else "–",
            f"{video.start:%Y-%m-%d %H:%M:%S}" if video else "–",
            str(video.duration_seconds) if video else "–",
            Text(record.state.value, style=COLOURS[record.state]),
            Text(sanitize(record.reason)),
        )
    return table


def as_json(record: Record) -> dict[str, Any]:
    """A clip for `--json`; times are UTC in ISO 8601."""
    video = record.key
    return {
        "id": record.id,
        "state": record.state.value,
        "reason": record.reason,
        "footage": str(record.footage.path),
        "bytes": record.footage.size_bytes,
        "registration": video.registration if video else None,
        "camera": video.camera if video else None,
        "start": video.start.isoformat() if video else None,
        "end": video.end.isoformat() if video else None,
        "priority": record.priority,
        "attempts": record.attempts,
        "request_id": record.request_id,
        "next_look": _iso(record.due) if record.due and record.state is not State.DELIVERED else None,
        "sources": dict(record.sources),
        "history": [{"at": c.at.isoformat(), "state": c.state.value, "reason": c.reason} for c in record.history],
    }


def size(size_bytes: int) -> str:
    """A size in decimal units, like the API's limit."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _iso(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, tz=timezone.utc).isoformat(timespec="seconds")
