"""Fills a spool with the clips of weeks without a link, within seconds.

Rows and stored files are what the daemon would have written: created by its queue, but in one transaction and without
syncs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.model import Clip, ClipKey, Footage, State
from agent.spool.clip_queue import ClipQueue
from agent.spool.files import name_for
from agent.spool.queries import DELIVERED, READY, TABLE
from agent.spool.records import Record, Stored
from simulator.recorder import recording
from tests.support.spooling import add_records

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
CLIP_BYTES = 20_000
FOLDER_FILES = 1000
# ext4 takes 65,000 names for one file.
MOST_NAMES = 50_000


class Stock:
    """A spool to fill.

    Args:
        spool, footage: its directory and the footage folder; both must exist or be made.
    """

    def __init__(self, spool: Path, footage: Path) -> None:
        self._spool = spool
        self._footage = footage
        self._count = 0
        self._names_left = 0
        self._source = footage.parent / "source.mp4"

    def waiting(self, count: int) -> None:
        """Add waiting clips whose footage has been overwritten by the recorder."""
        self._add(count, State.WAITING, in_tree=0)

    def multiply_waiting(self, count: int) -> None:
        """Add copies of the row of the last clip, each a minute later, without stored files.

        In one SQL statement: a million rows would take minutes in Python.
        """
        queue = self._queue()
        columns = "timestamp, status, due, priority, bytes, piece"
        with queue.transaction() as db:
            db.execute("PRAGMA cache_size=-100000")  # else most of the time is spent on writing pages twice
            last, video = db.execute(f"SELECT _id, video FROM {TABLE} ORDER BY _id DESC LIMIT 1").fetchone()
            registration, camera, start, end = video.split("|")
            next_end = "strftime('%Y-%m-%dT%H:%M:%SZ', {}, '1 minutes')".format
            db.execute(
                f"INSERT INTO {TABLE} ({columns}, identity, data, video)"
                f" WITH RECURSIVE later(n, start, end) AS (VALUES(1, :end, {next_end(':end')})"
                f" UNION ALL SELECT n + 1, end, {next_end('end')} FROM later WHERE n < :count)"
                f" SELECT {columns}, printf('%032x', n),"
                # The end first: the start of the next one looks the same.
                " CAST(replace(replace(data, :end, later.end), :start, later.start) AS BLOB),"
                f" :vehicle || later.start || '|' || later.end FROM {TABLE}, later WHERE _id = :last",
                {"count": count, "last": last, "vehicle": f"{registration}|{camera}|", "start": start, "end": end},
            )
        queue.close()

    def wait_again(self) -> None:
        """Make all delivered clips wait again; their stored files are gone."""
        queue = self._queue()
        with queue.transaction() as db:
            db.execute(f"UPDATE {TABLE} SET status = {READY}, due = 0 WHERE status = {DELIVERED}")
        queue.close()

    def delivered(self, count: int, *, in_tree: int) -> None:
        """Add delivered clips, some of which are still in the footage folder."""
        self._add(count, State.DELIVERED, in_tree=in_tree)

    def multiply_delivered(self, times: int) -> None:
        """Multiply the delivered rows, with other names."""
        queue = self._queue()
        columns = "data, timestamp, status, due, priority, bytes, piece, rules"
        with queue.transaction() as db:
            db.execute(
                f"INSERT INTO {TABLE} ({columns}, identity, video) WITH RECURSIVE copies(n) AS"
                f" (VALUES(1) UNION ALL SELECT n + 1 FROM copies WHERE n < {times - 1})"
                f" SELECT {columns}, lower(hex(randomblob(16))), video || n FROM {TABLE}, copies"
                f" WHERE status = {DELIVERED}"
            )
        queue.close()

    def _queue(self) -> ClipQueue:
        clips = self._spool / "clips"
        clips.mkdir(parents=True, exist_ok=True)
        self._spool.chmod(0o700)
        return ClipQueue(self._spool, clips, time.time)

    def _add(self, count: int, state: State, *, in_tree: int) -> None:
        queue = self._queue()
        add_records(queue, self._records(count, state, in_tree))
        queue.close()

    def _records(self, count: int, state: State, in_tree: int) -> Iterator[Record]:
        now = datetime.now(timezone.utc)
        for position in range(count):
            number = self._count
            self._count += 1
            if self._names_left == 0:
                self._write_source()
            start = START + timedelta(minutes=number)
            folder = self._footage / f"{number // FOLDER_FILES:05}"
            path = folder / f"ABC1234X_1_{start:%Y%m%d_%H%M%S}.mp4"
            clip = Clip(
                Footage(path, CLIP_BYTES, self._modified_ns),
                ClipKey("ABC1234X", 1, start, start + timedelta(seconds=60)),
                sources={"registration": "file name", "camera": "file name", "start": "file name"},
            )
            stored = Stored(name_for(clip), CLIP_BYTES, self._modified_ns, f"{number:032x}")
            if state is State.WAITING:
                self._name(self._spool / "clips" / stored.name)
            elif position < in_tree:
                folder.mkdir(parents=True, exist_ok=True)
                self._name(path)
            record = Record.of_clip(clip, stored, state, "", now)
            yield record

    def _name(self, path: Path) -> None:
        path.hardlink_to(self._source)
        self._names_left -= 1

    def _write_source(self) -> None:
        self._source.unlink(missing_ok=True)
        self._source.write_bytes(recording(60.0, size_bytes=CLIP_BYTES))
        self._modified_ns = self._source.stat().st_mtime_ns
        self._names_left = MOST_NAMES
