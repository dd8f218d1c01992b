"""The layout of the spool's database, its version, and how an older one becomes the present one."""

from __future__ import annotations

import sqlite3

from agent.errors import SpoolError
from agent.spool.queries import DELIVERED, LOST, READY, TABLE

# Of `PRAGMA user_version`. A database without one is of before there were versions: 0.
VERSION = 1
# `PRAGMA application_id` says the version once more, so that a damaged number is not taken for a newer version.
APPLICATION = 0x56490000
CREATE = (
    "CREATE TABLE IF NOT EXISTS {table_name} ({key_column} INTEGER PRIMARY KEY AUTOINCREMENT,"
    # timestamp: Unix seconds when the row was last written.
    " data BLOB, timestamp FLOAT, status INTEGER,"
    " due REAL NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,"
    " identity TEXT, piece INTEGER NOT NULL DEFAULT 0, video TEXT, rules TEXT)"
)
ROW = ("_id", "data", "timestamp", "status", "due", "priority", "bytes", "identity", "piece", "video", "rules")
# The rows that are only remembered, no longer worked on: those that pruning looks at.
REMEMBERED = f"(status IN ({DELIVERED}, {LOST}) OR rules IS NOT NULL)"
INDEXES = (
    # The next batch; holds only what is ready, so that a claim costs the same behind a million other rows.
    f"CREATE INDEX IF NOT EXISTS clip_ready ON {TABLE} (priority DESC, _id) WHERE status = {READY}",
    # What is due, and the sums that `status` shows, without reading the rows.
    f"CREATE INDEX IF NOT EXISTS clip_tally ON {TABLE} (status, due, bytes)",
    f"CREATE UNIQUE INDEX IF NOT EXISTS clip_identity ON {TABLE} (identity, piece)",
    f"CREATE INDEX IF NOT EXISTS clip_video ON {TABLE} (video)",
    # What may be forgotten next.
    f"CREATE INDEX IF NOT EXISTS clip_age ON {TABLE} (timestamp) WHERE {REMEMBERED}",
    # The same footage under another name or time stamp (moved, locked, touched).
    "CREATE TABLE IF NOT EXISTS sighting (identity TEXT PRIMARY KEY, clip INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS sighting_clip ON sighting (clip)",
)
# What makes version n + 1 of version n, at place n. Columns may only be added: an older program must not lose data.
MIGRATIONS = (
    # Until then a delivered row's time stamp was that of its making.
    (f"UPDATE {TABLE} SET timestamp = due WHERE status = {DELIVERED}",),
)


def check_version(connection: sqlite3.Connection) -> None:
    """Nothing is written to a database that a later version of this program made.

    Raises:
        SpoolError: it is of a later version.
        sqlite3.DatabaseError: its version is damaged.
    """
    version = _version(connection)
    if version > VERSION and connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION + version:
        raise SpoolError(
            f"its queue was written by a newer vision-ingest (layout {version}; this one knows layout {VERSION}). "
            f"Install that version again; nothing was changed"
        )
    if not 0 <= version <= VERSION:
        raise sqlite3.DatabaseError(f"its version is {version}")


def check_columns(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError if the table is there but is not ours."""
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")}
    if columns and not columns.issuperset(ROW):
        raise sqlite3.DatabaseError(f"its table lacks {', '.join(sorted(set(ROW) - columns))}")


def migrate(db: sqlite3.Connection) -> None:
    """Makes the present layout of an older one; call it within a transaction."""
    for steps in MIGRATIONS[_version(db) :]:
        for step in steps:
            db.execute(step)
    for statement in INDEXES:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute(f"PRAGMA application_id = {APPLICATION + VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
