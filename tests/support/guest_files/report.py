"""Reports the state of the spool, before the daemon changes it, as one line of JSON on the serial line."""

import contextlib
import io
import json
import sqlite3
from pathlib import Path

from agent.cli import main
from agent.model import State
from agent.spool.queries import DATABASE, open_ledger

SPOOL = Path("/data/spool")


def report() -> dict[str, object]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        main(["status", "--json", "--config", "/data/config.toml"])
    if not printed.getvalue():
        return {"integrity": "none yet", "clips": {}, "stored": []}
    connection = sqlite3.connect(f"file:{SPOOL / DATABASE}?mode=ro", uri=True)
    integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    names: dict[str, list[str]] = {state.value: [] for state in State}
    with open_ledger(SPOOL) as ledger:
        for record in ledger.records():
            # A row that was made anew from a stored file knows no name; footage that is no clip knows no start.
            known_as = str(record.key.start) if record.key else record.footage.path.name
            names[record.state.value].append(known_as)
    return {
        "integrity": integrity,
        "clips": names,
        "status": json.loads(printed.getvalue()),
        "stored": [file.name for file in (SPOOL / "clips").iterdir()],
    }


print("REPORT", json.dumps(report()), flush=True)
